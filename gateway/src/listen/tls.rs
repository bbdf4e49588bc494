//! TLS of the client ports: [`TlsTermination`] handshakes, [`TlsClient`] is the encrypted stream of a client.
//!
//! All output of such a connection passes its outbox: each has a cipher state of its own, so the hub cannot write to
//! its socket. Invariant: handshakes take at most half of the threads, and each gives way after every step. Knows
//! neither HTTP nor lines.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::BytesMut;
use presence::host::reloadable::Reloadable;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::ListenerKind;

use super::certificate::ServerCertificate;
use super::frame::{AcceptedStream, ClientStream, READ_BYTES_MAX, poll_read};

/// First byte of a record with a part of a handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The encrypted stream of a client. Boxed: it is moved on its way to its transport.
pub(super) type TlsClient = Box<TlsStream<TcpStream>>;

/// The certificate of the moment.
#[derive(Clone)]
struct CurrentCertificate(Reloadable<Option<ServerCertificate>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get().map(|certificate| certificate.certified())
    }
}

impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CurrentCertificate").field(&self.0.get()).finish()
    }
}

/// The end of a failed handshake.
#[derive(Debug)]
pub(super) enum TlsFailure {
    /// The client speaks without TLS. Nothing is read or written.
    Plain(TcpStream),
    /// The client ended the handshake, or broke it.
    Broken(io::Error),
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Ends TLS on the client ports, for as long as there is a certificate.
pub struct TlsTermination {
    certificate: CurrentCertificate,
    web: TlsAcceptor,
    lines: TlsAcceptor,
    /// Steps of handshakes that may run at a time.
    turns: Semaphore,
}

impl TlsTermination {
    /// Creates it for this certificate; `None` is no TLS. Must be called inside a runtime.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn new(certificate: Reloadable<Option<ServerCertificate>>) -> Result<Self, rustls::Error> {
        let (provider, tickets) = (Arc::new(default_provider()), Ticketer::new()?);
        let certificate = CurrentCertificate(certificate);
        let acceptor = |protocol: &[u8]| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let mut config = builder
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(certificate.clone()));
            config.alpn_protocols = vec![protocol.to_owned()];
            // A resumed handshake needs no signature, and the client keeps its state.
            config.ticketer = Arc::clone(&tickets);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(TlsAcceptor::from(Arc::new(config)))
        };
        // A browser offers another protocol than that of lines, so no page can speak to that port.
        let (web, lines) = (acceptor(b"http/1.1")?, acceptor(b"parley-lines")?);
        let turns = Semaphore::new((Handle::current().metrics().num_workers() / 2).max(1));
        Ok(Self { certificate, web, lines, turns })
    }

    /// Returns true if new connections use TLS.
    pub(super) fn is_on(&self) -> bool {
        self.certificate.0.get().is_some()
    }

    /// Handshakes with a client of which some bytes may be read already. The caller limits the time.
    ///
    /// # Errors
    /// The client speaks without TLS, or breaks the handshake.
    pub(super) async fn handshake(
        &self,
        port: ListenerKind,
        stream: TcpStream,
        read_ahead: &[u8],
    ) -> Result<TlsClient, TlsFailure> {
        let first = match read_ahead.first() {
            Some(&first) => first,
            None => first_byte(&stream).await?,
        };
        if first != HANDSHAKE_RECORD {
            return Err(TlsFailure::Plain(stream));
        }
        let acceptor = match port {
            ListenerKind::Ws => &self.web,
            ListenerKind::Tcp => &self.lines,
        };
        let mut accepting = acceptor.accept_with(stream, |connection| feed(connection, read_ahead));
        let woken = Arc::new(HandshakeWaker::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let turn = self.turns.acquire().await.map_err(io::Error::other)?;
            let step = Pin::new(&mut accepting).poll(&mut Context::from_waker(&waker));
            // The turn is kept meanwhile: whatever waits for this thread runs before the next step of a handshake.
            yield_now().await;
            drop(turn);
            match step {
                Poll::Ready(outcome) => return Ok(Box::new(outcome?)),
                Poll::Pending => woken.0.notified().await,
            }
        }
    }
}

impl fmt::Debug for TlsTermination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTermination").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Remembers that a handshake can go on, also while it waits for its turn.
#[derive(Debug, Default)]
struct HandshakeWaker(Notify);

impl Wake for HandshakeWaker {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Waits for the first byte of a client and leaves it unread.
async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// Passes bytes on that arrived before the handshake.
fn feed(connection: &mut ServerConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() && matches!(connection.read_tls(&mut bytes), Ok(read) if read > 0) {
        // An error stays in the connection and ends the handshake.
        let _ = connection.process_new_packets();
    }
}

impl AcceptedStream for TlsClient {
    type Client = Self;
    const SCHEME: Option<&'static str> = Some("https");

    fn into_client(self) -> Self {
        self
    }
}

impl ClientStream for TlsClient {
    fn shared(&self) -> Option<Arc<OwnedWriteHalf>> {
        None
    }

    fn poll_read<T>(&mut self, cx: &mut Context<'_>, decode: impl FnOnce(&mut [u8]) -> T) -> Poll<io::Result<T>> {
        poll_read(self, READ_BYTES_MAX, cx, decode)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize, bytes: &mut BytesMut) -> Poll<io::Result<usize>> {
        poll_read(self, most, cx, |read| {
            bytes.extend_from_slice(read);
            read.len()
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut **self).poll_write_vectored(cx, slices)) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            outcome => Poll::Ready(outcome),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_flush(cx)
    }

    async fn hang_up(mut self) {
        // Sends close_notify: the client knows that nothing was cut off.
        if self.shutdown().await.is_ok() {
            while let Ok(false) = poll_fn(|cx| self.poll_read(cx, |skipped| skipped.is_empty())).await {}
        }
    }
}
