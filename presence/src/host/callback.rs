//! [`CallbackClient`]: HTTP calls from Parley to addresses of an application.
//!
//! Webhooks and hooks use it. Invariants: a call ends within its deadline, whatever the other side does. It connects
//! only to an address that it has checked itself, so no name can lead to this machine or its neighbourhood. It follows
//! no redirect, uses no proxy, and reads a bounded answer. It does not retry.

mod address;
pub mod signature;
mod url;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use self::address::is_near;
pub use self::url::CallbackUrl;

/// Maximum number of bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of name lookups at a time. A lookup that hangs keeps its thread and its place.
const LOOKUPS_MAX: usize = 8;

/// A call.
#[derive(Debug, Clone)]
pub struct CallbackRequest<'a> {
    /// The address.
    pub url: &'a CallbackUrl,
    /// A header in addition to the usual ones.
    pub header: (&'static str, String),
    /// The body, JSON.
    pub body: Bytes,
    /// The time limit for all: name lookup, connection, TLS, request and answer.
    pub deadline: Duration,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackAnswer {
    /// The status code.
    pub status: u16,
    /// The body, or its beginning.
    pub body: Bytes,
    /// False if the body is longer than 64 KiB. The connection was closed then.
    pub is_whole: bool,
}

/// Reason why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The deadline has passed.
    #[error("no answer in time")]
    Late,
    /// The name has no address.
    #[error("name not resolved: {0}")]
    Unresolved(String),
    /// The address is of this machine or its neighbourhood.
    #[error("address {0} is refused: it is a loopback or link-local address (callbacks.allow_private)")]
    Refused(IpAddr),
    /// No connection.
    #[error("not connected: {0}")]
    Unconnected(String),
    /// The TLS handshake failed.
    #[error("tls: {0}")]
    Tls(String),
    /// The answer is not HTTP, or the connection broke.
    #[error("no answer: {0}")]
    Broken(String),
}

/// Client of the addresses of an application. Cheap to clone.
#[derive(Clone)]
pub struct CallbackClient {
    tls: TlsConnector,
    allow_private: bool,
    lookups: Arc<Semaphore>,
}

impl fmt::Debug for CallbackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackClient").field("allow_private", &self.allow_private).finish_non_exhaustive()
    }
}

impl CallbackClient {
    /// Creates a client. With `allow_private` it also connects to loopback and link-local addresses. Reads the root
    /// certificates of the system.
    ///
    /// # Panics
    /// Never: the crypto provider has the usual versions of TLS.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            tracing::warn!(%error, "root certificate of the system not read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let (tls, lookups) = (TlsConnector::from(Arc::new(config)), Arc::new(Semaphore::new(LOOKUPS_MAX)));
        Self { tls, allow_private, lookups }
    }

    /// Sends a POST request and reads the answer. Dropping the future closes the connection.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub async fn post(&self, request: CallbackRequest<'_>) -> Result<CallbackAnswer, CallbackError> {
        let deadline = request.deadline;
        tokio::time::timeout(deadline, self.call(request)).await.unwrap_or(Err(CallbackError::Late))
    }

    async fn call(&self, request: CallbackRequest<'_>) -> Result<CallbackAnswer, CallbackError> {
        let url = request.url;
        let socket = self.connect(url).await?;
        if !url.is_tls() {
            return exchange(socket, request).await;
        }
        let name =
            ServerName::try_from(url.host().to_owned()).map_err(|error| CallbackError::Tls(error.to_string()))?;
        let stream = self.tls.connect(name, socket).await.map_err(|error| CallbackError::Tls(error.to_string()))?;
        exchange(stream, request).await
    }

    /// Connects to the first address of the host that accepts. Every address is checked before.
    async fn connect(&self, url: &CallbackUrl) -> Result<TcpStream, CallbackError> {
        let (allowed, refused): (Vec<_>, Vec<_>) =
            self.resolve(url).await?.into_iter().partition(|address| self.allow_private || !is_near(address.ip()));
        let mut failure = refused.first().map_or_else(
            || CallbackError::Unresolved("the name has no address".to_owned()),
            |address| CallbackError::Refused(address.ip()),
        );
        for address in allowed {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    // A large batch is several writes.
                    socket.set_nodelay(true).map_err(|error| CallbackError::Unconnected(error.to_string()))?;
                    return Ok(socket);
                }
                Err(error) => failure = CallbackError::Unconnected(error.to_string()),
            }
        }
        Err(failure)
    }

    async fn resolve(&self, url: &CallbackUrl) -> Result<Vec<SocketAddr>, CallbackError> {
        if let Ok(ip) = url.host().parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, url.port())]);
        }
        let unresolved = |error: &dyn fmt::Display| CallbackError::Unresolved(error.to_string());
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(|error| unresolved(&error))?;
        let host = (url.host().to_owned(), url.port());
        let lookup = tokio::task::spawn_blocking(move || {
            let _place = place;
            io::Result::Ok(std::net::ToSocketAddrs::to_socket_addrs(&host)?.collect())
        });
        lookup.await.map_err(|error| unresolved(&error))?.map_err(|error| unresolved(&error))
    }
}

/// Returns a warning if every call to the address that a setting names is refused.
#[must_use]
pub fn refusal_warning(setting: &str, url: &CallbackUrl, allow_private: bool) -> Option<String> {
    let reason = "a loopback or link-local address is refused: set callbacks.allow_private to call it";
    (!allow_private && url.is_near()).then(|| format!("{setting}: {}: {reason}", url.host()))
}

/// Sends the request over a connection and reads the answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    CallbackRequest { url, header: (name, value), body, .. }: CallbackRequest<'_>,
) -> Result<CallbackAnswer, CallbackError> {
    let broken = |error: &dyn std::error::Error| CallbackError::Broken(with_source(error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Aborted when the call ends.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(url.path())
        .header(HOST, url.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("parley/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .header(name, value)
        .body(Full::new(body))
        .map_err(|error| broken(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    read_answer(answer).await.map_err(|error| broken(&error))
}

async fn read_answer(answer: Response<hyper::body::Incoming>) -> hyper::Result<CallbackAnswer> {
    let (status, mut body) = (answer.status().as_u16(), answer.into_body());
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        let left = ANSWER_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(left)]);
        if data.len() > left {
            return Ok(CallbackAnswer { status, body: bytes.freeze(), is_whole: false });
        }
    }
    Ok(CallbackAnswer { status, body: bytes.freeze(), is_whole: true })
}

/// Returns the text of an error with that of its cause, which hyper leaves out.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;
