//! `GET /v1/events`: changes of users and rooms, as server-sent events that resume by id.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;

use super::Api;
use super::extract::bad;
use super::feed::{EventId, EventSubscription, FeedItem};
use super::problem::{ListRefusals, Problem};

/// Interval of comments on a quiet stream, which show proxies and clients that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pause of a client before it reconnects after the end of the stream.
const RETRY: Duration = Duration::from_secs(2);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Disables response buffering in nginx.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Changes as server-sent events
///
/// The events are `online`, `offline`, `join`, `leave` and `rename`, each with an `id` and one JSON object as data. The
/// stream begins with the id of the current position and sends a comment every 15 s. A client that reconnects with
/// `Last-Event-ID` (browsers do so by themselves) first receives the events that it missed. Only a limited number of
/// events is kept. If some are gone, `gap` comes first, and the client should read the lists again. A client that reads
/// too slowly receives `lagged`. After `lagged`, a lost store or a restart the stream ends, and the client resumes by
/// id.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params((
        "Last-Event-ID" = Option<String>, Header,
        description = "Continue after this event; `0` for all events that are kept.",
        example = "1795252200000-0",
    )),
    responses(
        (
            status = 200, description = "A stream that stays open.", body = String,
            content_type = "text/event-stream",
            example = json!("id: 1795252200000-0\nevent: online\ndata: {\"nick\":\"ann\"}\n\n"),
        ),
        ListRefusals,
    ),
)]
pub(super) async fn events(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let last = last_event_id(&headers)?;
    let subscription = api.ask(api.feed.subscribe(last)).await?;
    let stream = opening(&subscription).chain(body(subscription));
    let events = Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat"));
    Ok(([(ACCEL_BUFFERING, HeaderValue::from_static("no"))], events).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(EventId::parse);
    id.map(Some).ok_or(bad("Last-Event-ID must be the id of an event of this stream"))
}

/// Returns the first blocks of a stream. An id without data sets the position of the client without an event, so a
/// client that received no event can resume too.
fn opening(subscription: &EventSubscription) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let mut events = vec![Event::default().retry(RETRY)];
    if subscription.gap() {
        let data = json!({ "message": "events before the next one are no longer kept, read the lists again" });
        events.push(Event::default().event("gap").data(data.to_string()));
    } else {
        events.push(Event::default().id(subscription.position().to_string()));
    }
    stream::iter(events.into_iter().map(Ok))
}

fn body(subscription: EventSubscription) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(subscription), async |subscription| {
        let mut subscription = subscription?;
        match subscription.next().await? {
            FeedItem::Event(event) => {
                let event = Event::default().id(&event.id).event(&event.kind).data(&event.data);
                Some((Ok(event), Some(subscription)))
            }
            FeedItem::Lagged(missed) => {
                let event = Event::default().event("lagged").data(json!({ "missed": missed }).to_string());
                Some((Ok(event), None))
            }
        }
    })
}
