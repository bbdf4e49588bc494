//! One client: a socket and its stage. It takes 32 bytes while idle, in every dialect.
//!
//! It has no task and no buffers: a process reads for all its clients into one buffer. A client stores bytes only for
//! partial frames and unfinished writes. It knows neither dialect nor clock.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::clock::Nanos;

/// Stage of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ClientStage {
    /// No connection.
    #[default]
    Away,
    /// Connection attempt in progress.
    Connecting,
    /// WebSocket upgrade requested.
    Upgrading,
    /// Registration and join in progress.
    LoggingIn,
    /// Ready.
    Ready,
}

/// Load client.
#[derive(Debug, Default)]
pub(crate) struct LoadClient {
    socket: Option<TcpStream>,
    pub(crate) stage: ClientStage,
    /// Refusals since it was last ready.
    pub(crate) attempts: u8,
    /// Due time of its login.
    pub(crate) began: Nanos,
    kept: Option<Box<KeptBytes>>,
}

/// Bytes that could not be processed at once.
#[derive(Debug, Default)]
struct KeptBytes {
    /// Beginning of a frame or line.
    received: Vec<u8>,
    /// Beginning of a unit of a stream that travels in frames.
    stream: Vec<u8>,
    unsent: Vec<u8>,
}

impl LoadClient {
    /// Starts a connection attempt. The socket turns writable when it succeeds or fails.
    pub(crate) fn connect(&mut self, to: SocketAddr, registry: &Registry, token: Token) -> io::Result<()> {
        let mut socket = TcpStream::connect(to)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.kept = None;
        self.socket = Some(socket);
        self.stage = ClientStage::Connecting;
        Ok(())
    }

    /// Returns true if the connection is established; fails if it was refused.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => socket.set_nodelay(true).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Drops the connection and all stored bytes.
    pub(crate) fn close(&mut self) {
        (self.socket, self.kept, self.stage) = (None, None, ClientStage::Away);
    }

    /// Writes as many bytes as the socket accepts; [`LoadClient::flush`] writes the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(kept) = self.kept.as_mut().filter(|kept| !kept.unsent.is_empty()) {
            kept.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let written = self.write(bytes)?;
        if written < bytes.len() {
            self.kept.get_or_insert_default().unsent.extend_from_slice(&bytes[written..]);
        }
        Ok(())
    }

    /// Writes the stored rest. The caller calls it when the socket turns writable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let unsent = std::mem::take(&mut kept.unsent);
        let written = self.write(&unsent)?;
        self.keep(|kept| &mut kept.unsent, &unsent[written..]);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = &mut self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut written = 0;
        while written < bytes.len() {
            match socket.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Reads once, and puts stored and new bytes at the beginning of `buffer`. Returns `None` without new bytes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        let kept = self.kept.as_ref().map_or(&[][..], |kept| &kept.received);
        let Some(space) = buffer.get_mut(kept.len()..).filter(|space| !space.is_empty()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match socket.read(space) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer[..kept.len()].copy_from_slice(kept);
                Ok(Some(kept.len() + count))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores the beginning of a frame for the next [`LoadClient::read`] and replaces earlier stored bytes.
    pub(crate) fn keep_received(&mut self, rest: &[u8]) {
        self.keep(|kept| &mut kept.received, rest);
    }

    /// Returns the stored bytes of a stream that travels in frames, followed by `more`.
    pub(crate) fn take_stream(&mut self, more: &[u8]) -> Vec<u8> {
        let mut stream = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.stream)).unwrap_or_default();
        stream.extend_from_slice(more);
        stream
    }

    /// Stores the beginning of a unit of such a stream.
    pub(crate) fn keep_stream(&mut self, rest: &[u8]) {
        self.keep(|kept| &mut kept.stream, rest);
    }

    /// Frees the memory if nothing is stored.
    fn keep(&mut self, part: impl Fn(&mut KeptBytes) -> &mut Vec<u8>, rest: &[u8]) {
        if rest.is_empty() && self.kept.is_none() {
            return;
        }
        let kept = self.kept.get_or_insert_default();
        *part(kept) = rest.to_vec();
        if kept.received.is_empty() && kept.stream.is_empty() && kept.unsent.is_empty() {
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_client_is_small_and_stores_nothing() {
        let mut client = LoadClient::default();
        // In debug builds mio adds a check of its own to a socket.
        assert!(size_of::<LoadClient>() <= if cfg!(debug_assertions) { 40 } else { 32 }, "{}", size_of::<LoadClient>());
        client.keep_received(b"half");
        assert_eq!(client.take_stream(b"a frame"), b"a frame");
        assert!(client.kept.is_some());
        client.keep_received(b"");
        assert!(client.kept.is_none());
    }
}
