//! A TCP proxy that simulates a bad network: delay, jitter, silence, resets, one-way stalls, low rates, single-byte
//! writes.
//!
//! It runs between gateways and Redis in the fault bench and in tests of one link. Delayed bytes are delivered when the
//! fault ends, like TCP retransmissions. Invariant: it never changes, drops or reorders bytes of an open connection. It
//! listens on the loopback interface only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, sleep_until};

/// Command that turns a connection into a subscription.
const SUBSCRIBE: &[u8] = b"\r\nSUBSCRIBE\r\n";
/// Maximum bytes of one read.
const CHUNK_BYTES: usize = 16 * 1024;
/// Lost time that a limited connection makes up for.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The direction of bytes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// State of the simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No fault.
    Pass,
    /// Each piece is delayed by `delay` and up to `jitter` more.
    Late {
        /// Minimum delay.
        delay: Duration,
        /// Maximum addition to the delay.
        jitter: Duration,
    },
    /// Connections stay open and new ones are accepted, but no bytes pass in either direction.
    BlackHole,
    /// Every open connection is reset at once, and every new one immediately.
    Reset,
    /// No bytes pass in this direction.
    Stall(Direction),
    /// Connections with a subscription receive nothing; all others work.
    MuteSubscriptions,
    /// Connections without a subscription receive nothing; subscriptions work.
    MuteCommands,
    /// Every byte is written separately.
    Slice,
    /// Replies of each connection pass at this rate, as on a home line.
    Limited {
        /// Bytes per second.
        bytes_per_second: u32,
    },
}

impl Mode {
    fn delays(self, direction: Direction, subscribed: &AtomicBool) -> bool {
        match self {
            Self::BlackHole => true,
            Self::Stall(stalled) => stalled == direction,
            Self::MuteSubscriptions => direction == Direction::Replies && subscribed.load(Ordering::Relaxed),
            Self::MuteCommands => direction == Direction::Replies && !subscribed.load(Ordering::Relaxed),
            Self::Pass | Self::Late { .. } | Self::Reset | Self::Slice | Self::Limited { .. } => false,
        }
    }
}

/// A running proxy in front of one address. Dropping it closes every connection.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FaultProxy {
    /// Listens on a free port of the loopback interface, for connections to `upstream`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (mode, seen) = watch::channel(Mode::Pass);
        Self { address, mode, accepting: tokio::spawn(accept(listener, upstream, seen)) }
    }

    /// Returns the address of the proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode, also for open connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mode: watch::Receiver<Mode>) {
    // Owned by this task, so that the connections end with the proxy.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(forward(client, upstream, mode.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards one connection until an end closes it or it is reset.
async fn forward(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    if *mode.borrow() == Mode::Reset {
        return client.set_zero_linger();
    }
    // Without the proxy an absent server would refuse the connection; an accepted connection can only be reset.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return client.set_zero_linger() };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, replies) = (mode.clone(), mode.clone());
    let subscribed = AtomicBool::new(false);
    let broken = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let forth = pump(client_read, server_write, Direction::Requests, &subscribed, requests);
        let back = pump(server_read, client_write, Direction::Replies, &subscribed, replies);
        tokio::select! {
            both = async { tokio::try_join!(forth, back) } => both.is_err(),
            _ = mode.wait_for(|mode| *mode == Mode::Reset) => true,
        }
    };
    if broken {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    subscribed: &AtomicBool,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut free_at = Instant::now();
    loop {
        let read = from.read(&mut chunk).await?;
        if direction == Direction::Requests && chunk[..read].windows(SUBSCRIBE.len()).any(|word| word == SUBSCRIBE) {
            subscribed.store(true, Ordering::Relaxed);
        }
        // The end of a connection is delayed like its bytes.
        let now = *mode.wait_for(|mode| !mode.delays(direction, subscribed)).await.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        if let Mode::Late { delay, jitter } = now {
            sleep(delay + jitter.mul_f64(rand::random::<f64>())).await;
        }
        if let (Mode::Limited { bytes_per_second }, Direction::Replies) = (now, direction) {
            // Time spent elsewhere is made up for, up to a little, so the mean rate holds.
            free_at = free_at.max(Instant::now() - CATCH_UP)
                + Duration::from_secs_f64(read as f64 / f64::from(bytes_per_second));
            sleep_until(free_at.into()).await;
        }
        let piece = if now == Mode::Slice { 1 } else { read };
        for bytes in chunk[..read].chunks(piece) {
            to.write_all(bytes).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    /// Long enough for a byte on the loopback interface.
    const SILENCE: Duration = Duration::from_millis(150);

    /// Starts a server that echoes all bytes.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut chunk = [0; 1024];
                    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                        stream.write_all(&chunk[..read]).await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn proxy() -> (FaultProxy, TcpStream) {
        let proxy = FaultProxy::start(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut stream, b"hello").await;
        receives(&mut stream, b"hello").await;
        (proxy, stream)
    }

    async fn send(stream: &mut TcpStream, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
    }

    async fn receives(stream: &mut TcpStream, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        timeout(SOON, stream.read_exact(&mut received)).await.expect("in time").unwrap();
        assert_eq!(received, bytes);
    }

    async fn receives_nothing(stream: &mut TcpStream) {
        let mut byte = [0];
        timeout(SILENCE, stream.read(&mut byte)).await.expect_err("no bytes pass");
    }

    #[tokio::test]
    async fn muted_subscriptions_leave_other_connections_open() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::MuteSubscriptions);
        send(&mut stream, b"ping").await;
        receives(&mut stream, b"ping").await;
        let subscribe = [b"*2", SUBSCRIBE, b"$1\r\nc\r\n"].concat();
        send(&mut stream, &subscribe).await;
        receives_nothing(&mut stream).await;
        proxy.set(Mode::MuteCommands);
        receives(&mut stream, &subscribe).await;
    }

    #[tokio::test]
    async fn muted_commands_receive_replies_after_the_fault() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::MuteCommands);
        send(&mut stream, b"ping").await;
        receives_nothing(&mut stream).await;
        proxy.set(Mode::Pass);
        receives(&mut stream, b"ping").await;
    }

    #[tokio::test]
    async fn proxy_passes_bytes_and_connection_end() {
        let (_proxy, mut stream) = proxy().await;
        stream.shutdown().await.unwrap();
        assert_eq!(timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn black_hole_and_stall_delay_all_bytes() {
        for mode in [Mode::BlackHole, Mode::Stall(Direction::Requests), Mode::Stall(Direction::Replies)] {
            let (proxy, mut stream) = proxy().await;
            proxy.set(mode);
            send(&mut stream, b"held ").await;
            let mut late = TcpStream::connect(proxy.address()).await.unwrap();
            send(&mut late, b"late").await;
            receives_nothing(&mut stream).await;
            receives_nothing(&mut late).await;
            proxy.set(Mode::Pass);
            send(&mut stream, b"back").await;
            receives(&mut stream, b"held back").await;
            receives(&mut late, b"late").await;
        }
    }

    #[tokio::test]
    async fn stall_keeps_other_direction_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        proxy.set(Mode::Stall(Direction::Requests));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        send(&mut stream, b"stuck").await;
        send(&mut server, b"news").await;
        receives(&mut stream, b"news").await;
        receives_nothing(&mut server).await;
    }

    #[tokio::test]
    async fn reset_ends_open_and_new_connections() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::Reset);
        let error = timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        if let Ok(mut late) = TcpStream::connect(proxy.address()).await {
            timeout(SOON, late.read(&mut [0])).await.unwrap().unwrap_err();
        }
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut again, b"again").await;
        receives(&mut again, b"again").await;
    }

    #[tokio::test]
    async fn absent_server_resets_the_connection() {
        let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy = FaultProxy::start(away).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn late_and_slice_modes_deliver_every_byte() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::Late { delay: SILENCE, jitter: Duration::from_millis(20) });
        let sent = Instant::now();
        send(&mut stream, b"slow").await;
        receives(&mut stream, b"slow").await;
        assert!(sent.elapsed() >= 2 * SILENCE, "late both ways: {:?}", sent.elapsed());
        proxy.set(Mode::Slice);
        let long: Vec<u8> = (0..=255).cycle().take(5000).collect();
        send(&mut stream, &long).await;
        receives(&mut stream, &long).await;
    }

    #[tokio::test]
    async fn slice_mode_splits_writes_into_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        proxy.set(Mode::Slice);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        send(&mut stream, &[7; 2000]).await;
        let (mut chunk, mut reads, mut total) = ([0; 4096], 0, 0);
        while total < 2000 {
            total += timeout(SOON, server.read(&mut chunk)).await.unwrap().unwrap();
            reads += 1;
        }
        assert!(reads > 1, "a single write would arrive in one read");
    }
}
