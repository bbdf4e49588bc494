//! [`ApiAdmission`]: the limits that every request passes before its handler, and its answer before the client.
//!
//! A request of HTTP/1.1 names one host. Event streams, requests and buffered bytes have seats for each client address
//! (`seats.rs`); a request without a seat is refused as `overloaded` at once. Reads of the store also wait for a place
//! of their address (`read_shares.rs`). A body is read before its request takes a seat, so slow bodies hold no seats of
//! requests. From then to the last byte of the answer the connection is not waiting (`waiting.rs`). A reconnecting
//! event stream is answered 200, because browsers give up a stream after any other status.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ApiClients;
use super::events::{LAST_EVENT_ID, stream_refusal};
use super::extract::bad;
use super::problem::refused_as;
use super::read_shares::{ReadKind, ReadShares};
use super::refusal_log::RefusalLog;
use super::seats::{SeatKind, SeatPermit, SeatRefusal, SeatTable};
use crate::host::client_address::{ClientAddress, TrustedProxies};
use crate::host::host_header::names_one_host;
use crate::host::problem::Problem;
use crate::host::refusal_episodes::{LimitScope, MetLimit};
use crate::model::SanctionSubject;
use crate::model::codes::ErrorCode;
use crate::service::waiting::ConnectionPhase;

/// The route of event streams.
const EVENTS_ROUTE: &str = "/v1/events";
/// Maximum size of a request body: a lookup of 1000 nicknames of the maximum length, with every character escaped.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// Time limit of a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a body or an answer that takes no seats of bytes: waiting connections and requests bound these.
const SMALL_BYTES_MAX: usize = 16 * 1024;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The socket's peer, set by the server for each request.
#[derive(Debug, Clone, Copy)]
pub(in crate::service) struct PeerAddress(pub(in crate::service) IpAddr);

/// The limits of requests. Cheap to clone: clones share the seats.
#[derive(Debug, Clone)]
pub(super) struct ApiAdmission {
    proxies: Arc<TrustedProxies>,
    seats: SeatTable,
    reads: ReadShares,
    refusals: RefusalLog,
}

impl ApiAdmission {
    /// Creates the limits of a process for its clients.
    pub(super) fn new(clients: ApiClients, refusals: RefusalLog) -> Self {
        Self {
            proxies: Arc::new(clients.proxies),
            seats: SeatTable::new(clients.connections),
            reads: ReadShares::default(),
            refusals,
        }
    }

    /// Checks that a ban spares the proxies of this process and is not of a wide network.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) fn check_ban(&self, subject: &SanctionSubject) -> Result<(), String> {
        self.proxies.check_ban(subject)
    }

    fn client(&self, request: &Request) -> ClientAddress {
        let peer = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |PeerAddress(peer)| *peer);
        let forwarded: Vec<&str> =
            request.headers().get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
        self.proxies.client(peer, forwarded.into_iter()).address
    }

    /// Waits for a place among the reads of this address. Returns `None` if none is free in time.
    pub(super) async fn read_place(&self, kind: ReadKind, client: ClientAddress) -> Option<OwnedSemaphorePermit> {
        self.reads.place(kind, client).await
    }

    /// Refuses a read whose address has all its places.
    pub(super) fn refuse_place(&self, kind: ReadKind, client: ClientAddress) -> Problem {
        self.refuse(kind.name(), SeatRefusal::AddressFull, client)
    }

    fn take(&self, kind: SeatKind, client: ClientAddress, count: usize) -> Result<SeatPermit, Problem> {
        self.seats.take(kind, client, count).map_err(|refusal| self.refuse(kind.name(), refusal, client))
    }

    fn refuse(&self, limit: &'static str, refusal: SeatRefusal, client: ClientAddress) -> Problem {
        let (limits, scope, address) = match refusal {
            SeatRefusal::AllTaken => ("this server has reached its limit of", LimitScope::Process, None),
            SeatRefusal::AddressFull => ("your address has reached its limit of", LimitScope::Address, Some(client)),
        };
        self.refusals.record(MetLimit { name: limit, scope }, address);
        refused_as(ErrorCode::Overloaded, format!("{limits} {limit}"))
    }

    /// Takes seats for the bytes of a body or an answer; none if they are few.
    fn take_bytes(&self, kind: SeatKind, client: ClientAddress, bytes: usize) -> Result<Option<SeatPermit>, Problem> {
        if bytes <= SMALL_BYTES_MAX { Ok(None) } else { self.take(kind, client, bytes.div_ceil(1024)).map(Some) }
    }

    /// Refuses a read for which this process has no time.
    pub(super) fn refuse_read(&self) -> Problem {
        self.refusals.record(MetLimit { name: "concurrent reads", scope: LimitScope::Process }, None);
        refused_as(ErrorCode::Overloaded, "too many listings and other reads are under way")
    }
}

/// Admits a request and holds its seats until the answer is written.
pub(super) async fn admit(State(admission): State<ApiAdmission>, request: Request, next: Next) -> Response {
    if !names_one_host(&request) {
        return bad("a request of HTTP/1.1 needs exactly one valid Host header").into_response();
    }
    let client = admission.client(&request);
    let (mut request, _buffer) = match arrived(&admission, client, request).await {
        Ok(arrived) => arrived,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(client);
    let unwritten = request.extensions().get().map(ConnectionPhase::answer);
    let is_stream = request.extensions().get::<MatchedPath>().is_some_and(|route| route.as_str() == EVENTS_ROUTE);
    let kind = if is_stream { SeatKind::Stream } else { SeatKind::Request };
    let reconnects = is_stream && request.headers().contains_key(LAST_EVENT_ID);
    let seat = match admission.take(kind, client, 1) {
        Ok(seat) => seat,
        Err(_) if reconnects => return stream_refusal(),
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    // The body of a stream has no known size.
    let Some(bytes) = response.body().size_hint().exact() else {
        return response.map(|body| held(body, (seat, unwritten)));
    };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    match admission.take_bytes(SeatKind::AnswerKib, client, bytes) {
        Ok(answer) => response.map(|body| held(body, (seat, answer, unwritten))),
        Err(problem) => problem.into_response(),
    }
}

/// Reads the body, while the connection still waits. Returns the request with the seats of its body.
async fn arrived(
    admission: &ApiAdmission,
    client: ClientAddress,
    request: Request,
) -> Result<(Request, Option<SeatPermit>), Problem> {
    if request.body().is_end_stream() {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let bytes = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(BODY_BYTES_MAX);
    if bytes > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let buffer = admission.take_bytes(SeatKind::BodyKib, client, bytes)?;
    match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok((Request::from_parts(parts, Body::from(body.to_bytes())), buffer)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) | Err(_) => Err(bad("the request body did not arrive completely")),
    }
}

fn too_large() -> Problem {
    refused_as(ErrorCode::TooLarge, "the request body exceeds 512 KiB")
}

/// Holds seats until the body has ended and its last bytes are written.
fn held(body: Body, seats: impl Send + Sync + 'static) -> Body {
    let seats = Arc::new(seats);
    let hold = move |bytes: Bytes| Bytes::from_owner(SeatedBytes { bytes, _seats: Arc::clone(&seats) });
    Body::new(body.map_frame(move |frame| frame.map_data(&hold)))
}

/// Bytes of an answer with its seats.
struct SeatedBytes<S> {
    bytes: Bytes,
    _seats: Arc<S>,
}

impl<S> AsRef<[u8]> for SeatedBytes<S> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
