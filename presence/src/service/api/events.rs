//! `GET /v1/events`: changes of users and rooms, as server-sent events that resume by id.
//!
//! A browser gives up a stream after any status but 200, so a stream stays open while the store is away: `unavailable`
//! reports the outage, and `available` its end. The stream then continues after its last event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::Api;
use super::event_filter::{EventFilter, EventQuery};
use super::extract::bad;
use super::feed::{EventFeed, EventSubscription, FeedItem, FeedPosition, StreamStart};
use super::keys::{ApiKey, Read};
use super::problem::{StreamRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;

/// Interval of comments on a quiet stream, which show proxies and clients that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pause of a client before it reconnects after the end of the stream.
const RETRY: Duration = Duration::from_secs(2);

/// Events that a filter leaves out until the client gets a newer position.
const SKIPPED_MAX: usize = 256;

/// The answer to an event stream that reconnects while no seat is free: it retries later.
const STREAM_REFUSAL: &str = "retry: 10000\nevent: overloaded\ndata: {\"message\":\"the server is overloaded\"}\n\n";

pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Disables response buffering in nginx.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Changes as server-sent events
///
/// The events are `online`, `offline`, `join`, `leave`, `rename` and `moderation`, each with an `id` and one JSON
/// object as data. The stream begins with the id of the current position and sends a comment every 15 s. A client that
/// reconnects with `Last-Event-ID` (browsers do so by themselves) first receives the events that it missed. Only a
/// limited number of events is kept. If some are gone, `gap` comes first, and the client should read the lists again.
/// While the store is away the stream stays open: `unavailable` marks the begin of the outage, `available` the end, and
/// then the stream continues where it was. A client that reads slowly misses nothing that is kept. After a restart the
/// stream ends, and the client resumes by id.
///
/// With `messages=true` the stream has the messages of a room instead, as `message` events, in their order. An id is
/// the seq of its message with a mark of its epoch.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    security(("key" = ["read"])),
    params(
        EventQuery,
        (
            "Last-Event-ID" = Option<String>, Header,
            description = "Continue after this event; `0` for all events that are kept.",
            example = "1795252200000-0",
        ),
    ),
    responses(
        (
            status = 200, description = "A stream that stays open.", body = String,
            content_type = "text/event-stream",
            example = json!("id: 1795252200000-0\nevent: online\ndata: {\"nick\":\"ann\"}\n\n"),
        ),
        StreamRefusals,
    ),
)]
pub(super) async fn events(
    key: ApiKey<Read>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    filter: EventFilter,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let start = StreamStart { client, last: last_event_id(&headers)? };
    let feed = match filter.messages_of() {
        None => api.feed.clone(),
        Some(room) => {
            if let Ok(None) = api.read(client, api.registry.room(room)).await {
                return Err(refused(ErrorCode::NoSuchRoom));
            }
            match api.room_feeds.of(room) {
                Some(feed) => feed,
                None if start.last.is_some() => return Ok(stream_refusal()),
                None => {
                    return Err(refused_as(ErrorCode::Overloaded, "streams follow the messages of 256 other rooms"));
                }
            }
        }
    };
    // Whatever fails here, the stream begins, and waits for the store.
    let mut source = match api.ask(Instant::now(), feed.subscribe(start)).await {
        Ok(subscription) => EventSource::live(subscription),
        Err(_) => EventSource::away(feed, start),
    };
    source.filter = filter;
    let retry = stream::iter([Event::default().retry(RETRY)]);
    let stream = retry.chain(stream::unfold(source, async |mut source| Some((source.next().await, source))));
    // In any phase: a read of the store may take seconds.
    let stream = stream.take_until(api.stop.cancelled_owned());
    let stream = stream.take_until(Box::pin(key.removed(api.guard.access.clone())));
    let events = Sse::new(stream.map(Ok::<_, Infallible>));
    let events = events.keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat"));
    Ok(([(ACCEL_BUFFERING, HeaderValue::from_static("no"))], events).into_response())
}

/// Returns the answer to a stream that reconnects and finds no place.
pub(super) fn stream_refusal() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))], STREAM_REFUSAL).into_response()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<FeedPosition>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(FeedPosition::parse);
    id.map(Some).ok_or(bad("Last-Event-ID must be the id of an event of this stream"))
}

/// State of one stream.
enum StreamPhase {
    /// It follows the log.
    Live(EventSubscription),
    /// The store cannot be read; the stream continues at the start, or from the present of the store.
    Away(EventFeed, StreamStart),
}

/// The blocks of one stream, in order.
struct EventSource {
    /// Blocks that come first.
    ready: VecDeque<Event>,
    phase: StreamPhase,
    filter: EventFilter,
    /// Events since the last block that the filter has left out.
    skipped: usize,
}

impl EventSource {
    fn live(subscription: EventSubscription) -> Self {
        Self::begin(opening(&subscription), StreamPhase::Live(subscription))
    }

    fn away(feed: EventFeed, start: StreamStart) -> Self {
        let notice = notice("unavailable", "the event log cannot be read, the stream continues when it can");
        Self::begin(notice, StreamPhase::Away(feed, start))
    }

    fn begin(first: Event, phase: StreamPhase) -> Self {
        Self { ready: [first].into(), phase, filter: EventFilter::default(), skipped: 0 }
    }

    /// Waits for the next block. Dropping the future loses no event.
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            match &mut self.phase {
                StreamPhase::Live(subscription) => match subscription.next().await {
                    Some(FeedItem::Event(event)) if !self.filter.admits(&event) => {
                        self.skipped += 1;
                        if self.skipped == SKIPPED_MAX {
                            self.skipped = 0;
                            return Event::default().id(&event.id);
                        }
                    }
                    Some(FeedItem::Event(event)) => {
                        self.skipped = 0;
                        return Event::default().id(&event.id).event(&event.kind).data(&event.data);
                    }
                    Some(FeedItem::Gap) => return gap(),
                    None => {
                        let away = Self::away(subscription.feed().clone(), subscription.restart());
                        (self.ready, self.phase) = (away.ready, away.phase);
                    }
                },
                StreamPhase::Away(feed, start) => {
                    let subscription = feed.resubscribe(*start).await;
                    let live = Self::live(subscription);
                    (self.ready, self.phase) = (live.ready, live.phase);
                    self.ready.push_back(notice("available", "the event log can be read again"));
                }
            }
        }
    }
}

/// Returns the first block of a subscription. An id without data sets the position of the client without an event, so a
/// client that received no event can resume too.
fn opening(subscription: &EventSubscription) -> Event {
    if subscription.follows_gap() { gap() } else { Event::default().id(subscription.position().to_string()) }
}

fn gap() -> Event {
    notice("gap", "events before the next one are no longer kept, read the lists again")
}

/// Returns an event about the stream itself, which has no id.
fn notice(kind: &str, message: &str) -> Event {
    Event::default().event(kind).data(json!({ "message": message }).to_string())
}
