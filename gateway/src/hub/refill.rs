//! The refill task: reads missed messages from the streams and passes them to the hub.
//!
//! [`run`] reads what the hub requests: a page after a hole, or the end of a stream that is unverified. A stream
//! becomes unverified when the subscription was interrupted, an own beat came back late, or a generation opened.
//! Invariant: nothing is read without a request, so an idle node reads nothing. Results are judged by
//! [`crate::hub::position`], not here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use presence::model::stream::{PageLimit, StreamEnd, StreamId};
use presence::registry::{Generation, RegistryError};
use tokio::sync::watch;

use crate::backplane::{Backplane, ReplayPage};
use crate::hub::position::{RefillRequest, StreamPage};
use crate::hub::{Hub, RefillResult};
use crate::message::ChatMessage;

const PAGE_MESSAGES: usize = 200;
/// Pages read concurrently. Some connections of the query pool stay free for others.
const CONCURRENT_PAGES: usize = 4;
/// Pause after a failed read, times a random factor from 0.5 to 1.5.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Age of an own beat's echo above which messages may have been lost as well.
const ECHO_AGE_MAX: Duration = Duration::from_secs(2);

/// Returns true if the echo of an own beat, of this age on arrival, came late.
#[must_use]
pub fn is_late(echo_age: Option<Duration>) -> bool {
    echo_age.is_some_and(|age| age > ECHO_AGE_MAX)
}

/// Answers refill requests for as long as it is polled, and verifies every stream when a generation opens.
pub async fn run(hub: Arc<Hub>, backplane: Backplane, generations: watch::Receiver<Generation>) {
    tokio::join!(answer_requests(&hub, &backplane), verify_on_open(&hub, generations));
}

async fn answer_requests(hub: &Hub, backplane: &Backplane) {
    loop {
        let requests = hub.refill_requests().await.into_iter();
        let (pages, ends): (Vec<_>, Vec<_>) =
            requests.partition(|(_, request)| matches!(request, RefillRequest::Page(_)));
        let (ends_read, pages_read) = tokio::join!(read_ends(hub, backplane, ends), read_pages(hub, backplane, pages));
        if let Err(error) = ends_read.and(pages_read) {
            tracing::debug!(%error, "refill failed, retrying");
            tokio::time::sleep(RETRY_PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }
}

/// Verifies every stream when a generation opens: a gateway that subscribes late misses what was republished before.
async fn verify_on_open(hub: &Hub, mut generations: watch::Receiver<Generation>) {
    while generations.changed().await.is_ok() {
        if generations.borrow_and_update().is_open() {
            hub.verify_streams();
        }
    }
}

/// Reads the ends of streams with one call.
async fn read_ends(
    hub: &Hub,
    backplane: &Backplane,
    requests: Vec<(StreamId, RefillRequest)>,
) -> Result<(), RegistryError> {
    let streams: Vec<StreamId> = requests.iter().map(|(stream, _)| stream.clone()).collect();
    if streams.is_empty() {
        return Ok(());
    }
    let (mut ends, outcome) = match backplane.read_ends(&streams).await {
        Ok(ends) => (HashMap::<StreamId, StreamEnd>::from_iter(ends), Ok(())),
        Err(error) => (HashMap::new(), Err(error)),
    };
    for (stream, request) in &requests {
        let result = ends.remove(stream).map_or(RefillResult::Failed, RefillResult::End);
        hub.apply_refill(stream, request, result);
    }
    outcome
}

/// Reads one page of each stream. A stream that needs more requests it again, after the others.
async fn read_pages(
    hub: &Hub,
    backplane: &Backplane,
    requests: Vec<(StreamId, RefillRequest)>,
) -> Result<(), RegistryError> {
    let reads = stream::iter(requests).map(async |(stream, request)| {
        let limit = PageLimit::of_messages(PAGE_MESSAGES);
        let (result, outcome) = match backplane.read_after(&stream, request.position().seq, limit).await {
            Ok(page) => (RefillResult::Page(stream_page(page)), Ok(())),
            Err(error) => (RefillResult::Failed, Err(error)),
        };
        hub.apply_refill(&stream, &request, result);
        outcome
    });
    reads.buffer_unordered(CONCURRENT_PAGES).fold(Ok(()), async |all, one| all.and(one)).await
}

fn stream_page(ReplayPage { end, messages, through }: ReplayPage) -> StreamPage<ChatMessage> {
    let messages = messages.into_iter().map(|message| (message.seq, message)).collect();
    StreamPage { end, messages, through }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use presence::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
    use presence::registry::{
        ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, JoinedAt, MemoryRegistry, Phase, Registry,
    };
    use presence::store::memory::Store;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;
    use crate::backplane::{Delivery, MemoryBackplane, PriorPosition, PublishAttempt, PublishRequest};
    use crate::hub::FeedJoin;
    use crate::message::{Accepted, Body};
    use crate::metrics::Metrics;
    use crate::outbound::outbox::Outbox;
    use crate::wire::Dialect;

    const OPEN: Generation = Generation { number: 1, phase: Phase::Open };
    const RECOVERING: Generation = Generation { number: 2, phase: Phase::Recovering };

    #[tokio::test]
    async fn opened_generation_refills_messages_that_reached_no_subscriber() {
        let store = Store::default();
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        let backplane = Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_: Delivery| {})));
        let (incarnation, session) = (Incarnation::random(), SessionId::random());
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        registry.open_lease(&incarnation, &info).await.unwrap();
        let (ann, lobby) = (Nick::parse("ann").unwrap(), RoomName::parse("#lobby").unwrap());
        let (fence, _) = registry
            .claim(ClaimRequest {
                incarnation: &incarnation,
                session: &session,
                nick: &ann,
                token: &TokenHash::of(b"secret"),
                user: None,
            })
            .await
            .unwrap();
        let owner = Owner { incarnation, session: session.clone(), fence };
        let joined = registry
            .join(JoinRequest {
                room: &lobby,
                nick: &ann,
                owner: &owner,
                user: None,
                status: &Status::default(),
                entry: JoinEntry::New,
                moderates: false,
            })
            .await
            .unwrap();

        let (hub, outbox) = (Arc::new(Hub::new(Metrics::new().counts)), Outbox::new(Dialect::Json));
        let (JoinedAt { epoch, seq, forks, .. }, stream) = (joined, StreamId::Room(lobby.key().clone()));
        hub.start_join(&lobby, &session, &outbox);
        hub.observe_end(&stream, &StreamEnd { epoch: epoch.clone(), seq, forks });
        let request = FeedJoin { display: "#lobby", session: &session, outbox: &outbox, epoch: &epoch, after: seq };
        hub.complete_join(&stream, &request);
        let (generation, generations) = watch::channel(RECOVERING);
        let refill = tokio::spawn(run(Arc::clone(&hub), backplane.clone(), generations));

        let (msg_id, body, accepted) = ("m1".into(), Body::from_text("republished"), Accepted::default());
        let request =
            PublishRequest { msg_id, key: None, from: ann, from_user: None, owner, moderates: false, body, accepted };
        let prior = PriorPosition::default();
        backplane.publish(&lobby, &request, PublishAttempt::First(&prior)).await.unwrap();
        let now = Instant::now();
        let delivered = async {
            while outbox.is_empty() {
                hub.fan_out_portion(|| now);
                yield_now().await;
            }
        };
        generation.send(OPEN).unwrap();
        timeout(Duration::from_secs(10), delivered).await.expect("the message is refilled");
        refill.abort();
    }
}
