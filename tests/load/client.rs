//! One client: a socket and where it stands. 32 bytes while it is idle, whatever it speaks.
//!
//! It has no task and no buffers: a process reads for all of its clients into one buffer, and a client keeps something
//! only while half a frame has come or not everything could be written. It knows no dialect and no clock.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::clock::Nanos;

/// How far a client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ClientStage {
    /// No connection.
    #[default]
    Away,
    /// The connection is being made.
    Connecting,
    /// The upgrade to WebSocket is asked for.
    Upgrading,
    /// Registering and entering its room.
    Greeting,
    /// There.
    Ready,
}

/// A client.
#[derive(Debug, Default)]
pub(crate) struct LoadClient {
    socket: Option<TcpStream>,
    pub(crate) stage: ClientStage,
    /// How often it was turned away since it was last there.
    pub(crate) attempts: u8,
    /// When its login was due.
    pub(crate) began: Nanos,
    kept: Option<Box<KeptBytes>>,
}

/// What could not be done with at once.
#[derive(Debug, Default)]
struct KeptBytes {
    /// The beginning of a frame, or of a line.
    received: Vec<u8>,
    /// The beginning of a unit of a stream that travels in frames.
    stream: Vec<u8>,
    unsent: Vec<u8>,
}

impl LoadClient {
    /// Begins a connection. It is made, or refused, when the socket turns writable.
    pub(crate) fn connect(&mut self, to: SocketAddr, registry: &Registry, token: Token) -> io::Result<()> {
        let mut socket = TcpStream::connect(to)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.kept = None;
        self.socket = Some(socket);
        self.stage = ClientStage::Connecting;
        Ok(())
    }

    /// Whether the connection was made; fails when it was refused.
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

    /// Drops the connection and everything kept.
    pub(crate) fn close(&mut self) {
        (self.socket, self.kept, self.stage) = (None, None, ClientStage::Away);
    }

    /// Writes it, or as much as goes now; the rest follows by [`LoadClient::flush`].
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

    /// Writes what could not be written before. To be called when the socket turns writable.
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

    /// Reads once: what was kept and what came now, at the beginning of `buffer`. `None` when nothing came.
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

    /// Keeps the beginning of a frame for the next [`LoadClient::read`]; of what was kept before nothing is left.
    pub(crate) fn keep_received(&mut self, rest: &[u8]) {
        self.keep(|kept| &mut kept.received, rest);
    }

    /// What was kept of a stream that travels in frames, and then this.
    pub(crate) fn take_stream(&mut self, more: &[u8]) -> Vec<u8> {
        let mut stream = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.stream)).unwrap_or_default();
        stream.extend_from_slice(more);
        stream
    }

    /// Keeps the beginning of a unit of such a stream.
    pub(crate) fn keep_stream(&mut self, rest: &[u8]) {
        self.keep(|kept| &mut kept.stream, rest);
    }

    /// Nothing to keep is no memory kept.
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
    fn an_idle_client_is_small_and_keeps_nothing() {
        let mut client = LoadClient::default();
        // mio adds a check of its own to a socket in debug builds.
        assert!(size_of::<LoadClient>() <= if cfg!(debug_assertions) { 40 } else { 32 }, "{}", size_of::<LoadClient>());
        client.keep_received(b"half");
        assert_eq!(client.take_stream(b"a frame"), b"a frame");
        assert!(client.kept.is_some());
        client.keep_received(b"");
        assert!(client.kept.is_none());
    }
}
