//! Reads from the logs (of rooms and inboxes) what did not arrive, and brings it to the hub: one task per node, started by
//! the server.
//!
//! It reads only what a log asks for: a page after a hole, or the top after a doubt (the subscription was away, our own
//! beat came back late, or a generation opened). At rest it does nothing; it never polls. What to make of an answer is
//! [`crate::hub::position`]'s to decide.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use presence::model::stream::{StreamEnd, StreamId};
use presence::registry::{Generation, RegistryError};
use tokio::sync::watch;

use crate::backplane::{Backplane, ReplayPage};
use crate::hub::position::{Ask, StreamPage};
use crate::hub::{Hub, Reading};
use crate::message::ChatMessage;

/// Messages of one page.
const PAGE: usize = 200;
/// Pages that are read at a time: some of the query pool's connections stay free for others.
const AT_ONCE: usize = 4;
/// How long after a failed read the next one waits: half of it, and up to as much again at random.
const PAUSE: Duration = Duration::from_millis(200);
/// An own beat that took so long to come back leaves a doubt whether everything else did.
const LATE: Duration = Duration::from_secs(2);

/// Whether the echo of an own beat, as old as this when it arrived, came late.
#[must_use]
pub fn is_late(echo_age: Option<Duration>) -> bool {
    echo_age.is_some_and(|age| age > LATE)
}

/// Reads for as long as it is polled: what logs ask for, and all their tops when the store opens a generation.
pub async fn run(hub: Arc<Hub>, backplane: Backplane, generations: watch::Receiver<Generation>) {
    tokio::join!(read_on(&hub, &backplane), look_again(&hub, generations));
}

async fn read_on(hub: &Hub, backplane: &Backplane) {
    loop {
        let (pages, tops): (Vec<_>, Vec<_>) =
            hub.asks().await.into_iter().partition(|(_, ask)| matches!(ask, Ask::Page(_)));
        let (compared, refilled) = tokio::join!(compare(hub, backplane, tops), refill(hub, backplane, pages));
        if let Err(error) = compared.and(refilled) {
            tracing::debug!(%error, "logs could not be read, trying on");
            tokio::time::sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }
}

/// What was put back before a generation opens, for somebody whose gateway had not spoken yet, was sent to nobody.
async fn look_again(hub: &Hub, mut generations: watch::Receiver<Generation>) {
    while generations.changed().await.is_ok() {
        if generations.borrow_and_update().is_open() {
            hub.doubt();
        }
    }
}

/// Compares the tops of logs, all together.
async fn compare(hub: &Hub, backplane: &Backplane, asks: Vec<(StreamId, Ask)>) -> Result<(), RegistryError> {
    let logs: Vec<StreamId> = asks.iter().map(|(log, _)| log.clone()).collect();
    if logs.is_empty() {
        return Ok(());
    }
    let (mut tops, outcome) = match backplane.read_ends(&logs).await {
        Ok(tops) => (HashMap::<StreamId, StreamEnd>::from_iter(tops), Ok(())),
        Err(error) => (HashMap::new(), Err(error)),
    };
    for (log, ask) in &asks {
        hub.read(log, ask, tops.remove(log).map_or(Reading::Failed, Reading::Top));
    }
    outcome
}

/// Reads one page of each log; one that needs more asks again, behind the others.
async fn refill(hub: &Hub, backplane: &Backplane, asks: Vec<(StreamId, Ask)>) -> Result<(), RegistryError> {
    let reads = stream::iter(asks).map(async |(log, ask)| {
        let (Ask::Page(asked) | Ask::Top(asked)) = &ask;
        let (reading, outcome) = match backplane.read_after(&log, asked.seq, PAGE).await {
            Ok(missed) => (Reading::Page(page(missed)), Ok(())),
            Err(error) => (Reading::Failed, Err(error)),
        };
        hub.read(&log, &ask, reading);
        outcome
    });
    reads.buffer_unordered(AT_ONCE).fold(Ok(()), async |all, one| all.and(one)).await
}

fn page(ReplayPage { head, messages, through }: ReplayPage) -> StreamPage<ChatMessage> {
    let messages = messages.into_iter().map(|message| (message.seq, message)).collect();
    StreamPage { head, messages, through }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use presence::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
    use presence::registry::{GatewayInfo, JoinEntry, JoinRequest, JoinedAt, MemoryRegistry, Phase, Registry};
    use presence::store::memory::Store;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;
    use crate::backplane::{MemoryBackplane, PublishRequest};
    use crate::message::{Accepted, Body};
    use crate::metrics::Metrics;
    use crate::outbound::outbox::Outbox;
    use crate::wire::Dialect;

    const OPEN: Generation = Generation { number: 1, phase: Phase::Open };
    const RECOVERING: Generation = Generation { number: 2, phase: Phase::Recovering };

    #[tokio::test]
    async fn what_was_sent_to_nobody_is_found_when_a_generation_opens() {
        let store = Store::default();
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        let backplane = Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_| {})));
        let (incarnation, session) = (Incarnation::random(), SessionId::random());
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        registry.open_lease(&incarnation, &info).await.unwrap();
        let (ann, lobby) = (Nick::parse("ann").unwrap(), RoomName::parse("#lobby").unwrap());
        let (fence, _) = registry.claim(&incarnation, &session, &ann, &TokenHash::of(b"secret")).await.unwrap();
        let owner = Owner { incarnation, session: session.clone(), fence };
        let joined = registry
            .join(JoinRequest {
                room: &lobby,
                nick: &ann,
                owner: &owner,
                status: &Status::default(),
                entry: JoinEntry::New,
            })
            .await
            .unwrap();

        let (hub, outbox) = (Arc::new(Hub::new(Metrics::new().counts)), Outbox::new(Dialect::Json));
        let (JoinedAt { epoch, seq: top, forks, .. }, log) = (joined, StreamId::Room(lobby.key().clone()));
        hub.prepare(&lobby, &session, &outbox);
        hub.begin(&log, &StreamEnd { epoch: epoch.clone(), top, forks });
        hub.admit(&log, "#lobby", (&session, &outbox), &epoch, top);
        let (generation, generations) = watch::channel(RECOVERING);
        let reading = tokio::spawn(run(Arc::clone(&hub), backplane.clone(), generations));

        let (msg_id, body, accepted) = ("m1".into(), Body::from_text("put back"), Accepted::default());
        let draft = PublishRequest { msg_id, key: None, from: ann, owner, body, accepted };
        backplane.publish(&lobby, &draft).await.unwrap();
        let now = Instant::now();
        let heard = async {
            while outbox.is_empty() {
                hub.give_out(|| now);
                yield_now().await;
            }
        };
        generation.send(OPEN).unwrap();
        timeout(Duration::from_secs(10), heard).await.expect("nobody looks again");
        reading.abort();
    }
}
