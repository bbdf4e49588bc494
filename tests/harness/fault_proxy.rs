//! A TCP proxy that is a bad network on purpose: slow, jittery, silent, cut off, stuck one way, a byte at a time.
//!
//! It stands between gateways and Redis in the fault bench and in tests that break one link and no process. What it
//! holds back is delivered when the fault ends, as TCP would do after its retransmissions; what it resets is gone.
//! It never changes, drops or reorders bytes of a connection that lives, and listens on the loopback interface only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// What a connection says that is to carry a subscription.
const SUBSCRIBE: &[u8] = b"\r\nSUBSCRIBE\r\n";
/// Bytes taken over in one go.
const CHUNK: usize = 16 * 1024;

/// The direction of bytes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server behind.
    Requests,
    /// From the server behind to the client.
    Replies,
}

/// What the network is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should be.
    Pass,
    /// Everything comes late, each piece by `delay` and up to `jitter` more.
    Late {
        /// The least delay.
        delay: Duration,
        /// The most that is added to it.
        jitter: Duration,
    },
    /// Connections stay open, new ones are accepted, and nothing comes through either way.
    BlackHole,
    /// Every connection is reset at once, and every new one as soon as it is made.
    Reset,
    /// One way stands still, the other works.
    Stall(Direction),
    /// Connections over which a client has subscribed on Redis hear nothing more; all others work.
    Deaf,
    /// The other way round: only connections over which a client has subscribed hear anything.
    Unanswered,
    /// Every byte is a packet of its own.
    Slice,
}

impl Mode {
    fn holds_back(self, direction: Direction, subscribed: &AtomicBool) -> bool {
        match self {
            Self::BlackHole => true,
            Self::Stall(stalled) => stalled == direction,
            Self::Deaf => direction == Direction::Replies && subscribed.load(Ordering::Relaxed),
            Self::Unanswered => direction == Direction::Replies && !subscribed.load(Ordering::Relaxed),
            Self::Pass | Self::Late { .. } | Self::Reset | Self::Slice => false,
        }
    }
}

/// A running proxy in front of one address. Dropping it cuts every connection.
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
    /// If there is no port.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (mode, seen) = watch::channel(Mode::Pass);
        Self { address, mode, accepting: tokio::spawn(accept(listener, upstream, seen)) }
    }

    /// Where to connect instead of upstream.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network, for connections that are open as well.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mode: watch::Receiver<Mode>) {
    // Owned here, so that the connections end with the proxy.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, upstream, mode.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until one end hangs up or it is reset.
async fn carry(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    if *mode.borrow() == Mode::Reset {
        return client.set_zero_linger();
    }
    // A server that is away looks as it would without us: refused, which to a connection that stands means reset.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return client.set_zero_linger() };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, replies) = (mode.clone(), mode.clone());
    let subscribed = AtomicBool::new(false);
    let broken = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let there = pump(client_read, server_write, Direction::Requests, &subscribed, requests);
        let back = pump(server_read, client_write, Direction::Replies, &subscribed, replies);
        tokio::select! {
            both = async { tokio::try_join!(there, back) } => both.is_err(),
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
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if direction == Direction::Requests && chunk[..read].windows(SUBSCRIBE.len()).any(|word| word == SUBSCRIBE) {
            subscribed.store(true, Ordering::Relaxed);
        }
        // An end is held back like bytes are: a black hole does not tell which side hung up.
        let now = *mode.wait_for(|mode| !mode.holds_back(direction, subscribed)).await.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        if let Mode::Late { delay, jitter } = now {
            sleep(delay + jitter.mul_f64(rand::random::<f64>())).await;
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
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    /// Long enough for a byte on the loopback interface.
    const SILENCE: Duration = Duration::from_millis(150);

    /// A server that says everything back, and how often it was woken to read.
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
        says(&mut stream, b"hello").await;
        receives(&mut stream, b"hello").await;
        (proxy, stream)
    }

    async fn says(stream: &mut TcpStream, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
    }

    async fn receives(stream: &mut TcpStream, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        timeout(SOON, stream.read_exact(&mut heard)).await.expect("in time").unwrap();
        assert_eq!(heard, bytes);
    }

    async fn hears_nothing(stream: &mut TcpStream) {
        let mut byte = [0];
        timeout(SILENCE, stream.read(&mut byte)).await.expect_err("nothing comes through");
    }

    #[tokio::test]
    async fn deaf_mode_silences_only_subscribed_connections() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::Deaf);
        says(&mut stream, b"ping").await;
        receives(&mut stream, b"ping").await;
        let subscribe = [b"*2", SUBSCRIBE, b"$1\r\nc\r\n"].concat();
        says(&mut stream, &subscribe).await;
        hears_nothing(&mut stream).await;
        proxy.set(Mode::Unanswered);
        receives(&mut stream, &subscribe).await;
    }

    #[tokio::test]
    async fn unanswered_mode_silences_unsubscribed_connections() {
        let (proxy, mut stream) = proxy().await;
        proxy.set(Mode::Unanswered);
        says(&mut stream, b"ping").await;
        hears_nothing(&mut stream).await;
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
            says(&mut stream, b"held ").await;
            let mut late = TcpStream::connect(proxy.address()).await.unwrap();
            says(&mut late, b"late").await;
            hears_nothing(&mut stream).await;
            hears_nothing(&mut late).await;
            proxy.set(Mode::Pass);
            says(&mut stream, b"back").await;
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
        says(&mut stream, b"stuck").await;
        says(&mut server, b"news").await;
        receives(&mut stream, b"news").await;
        hears_nothing(&mut server).await;
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
        says(&mut again, b"again").await;
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
        says(&mut stream, b"slow").await;
        receives(&mut stream, b"slow").await;
        assert!(sent.elapsed() >= 2 * SILENCE, "late both ways: {:?}", sent.elapsed());
        proxy.set(Mode::Slice);
        let long: Vec<u8> = (0..=255).cycle().take(5000).collect();
        says(&mut stream, &long).await;
        receives(&mut stream, &long).await;
    }

    #[tokio::test]
    async fn slice_mode_splits_writes_into_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        proxy.set(Mode::Slice);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        says(&mut stream, &[7; 2000]).await;
        let (mut chunk, mut reads, mut total) = ([0; 4096], 0, 0);
        while total < 2000 {
            total += timeout(SOON, server.read(&mut chunk)).await.unwrap().unwrap();
            reads += 1;
        }
        assert!(reads > 1, "one write would have come in one piece");
    }
}
