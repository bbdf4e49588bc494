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
use presence::log::{Head, Log};
use presence::registry::{Generation, RegistryError};
use tokio::sync::watch;

use crate::backplane::{Backplane, Missed};
use crate::hub::position::{Ask, Page};
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

/// Reads for as long as it is polled.
pub async fn run(hub: Arc<Hub>, backplane: Backplane) {
    loop {
        let (pages, tops): (Vec<_>, Vec<_>) =
            hub.asks().await.into_iter().partition(|(_, ask)| matches!(ask, Ask::Page(_)));
        let (compared, refilled) = tokio::join!(compare(&hub, &backplane, tops), refill(&hub, &backplane, pages));
        if let Err(error) = compared.and(refilled) {
            tracing::debug!(%error, "logs could not be read, trying on");
            tokio::time::sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }
}

/// Has all tops compared when a generation opens, for as long as it is polled and the store's generation is watched: what
/// was put back before, for somebody whose gateway had not spoken yet, was sent to nobody.
pub async fn look_again(hub: Arc<Hub>, mut generations: watch::Receiver<Generation>) {
    while generations.changed().await.is_ok() {
        if generations.borrow_and_update().is_open() {
            hub.doubt();
        }
    }
}

/// Compares the tops of logs, all together.
async fn compare(hub: &Hub, backplane: &Backplane, asks: Vec<(Log, Ask)>) -> Result<(), RegistryError> {
    let logs: Vec<Log> = asks.iter().map(|(log, _)| log.clone()).collect();
    if logs.is_empty() {
        return Ok(());
    }
    let (mut tops, outcome) = match backplane.tops(&logs).await {
        Ok(tops) => (HashMap::<Log, Head>::from_iter(tops), Ok(())),
        Err(error) => (HashMap::new(), Err(error)),
    };
    for (log, ask) in &asks {
        hub.read(log, ask, tops.remove(log).map_or(Reading::Failed, Reading::Top));
    }
    outcome
}

/// Reads one page of each log; one that needs more asks again, behind the others.
async fn refill(hub: &Hub, backplane: &Backplane, asks: Vec<(Log, Ask)>) -> Result<(), RegistryError> {
    let reads = stream::iter(asks).map(async |(log, ask)| {
        let (Ask::Page(asked) | Ask::Top(asked)) = &ask;
        let (reading, outcome) = match backplane.missed(&log, asked.seq, PAGE).await {
            Ok(missed) => (Reading::Page(page(missed)), Ok(())),
            Err(error) => (Reading::Failed, Err(error)),
        };
        hub.read(&log, &ask, reading);
        outcome
    });
    reads.buffer_unordered(AT_ONCE).fold(Ok(()), async |all, one| all.and(one)).await
}

fn page(Missed { head, messages, through }: Missed) -> Page<ChatMessage> {
    let messages = messages.into_iter().map(|message| (message.seq, message)).collect();
    Page { head, messages, through }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use presence::model::{RoomName, SessionId};
    use presence::registry::Phase;
    use tokio::time::timeout;

    use super::*;
    use crate::metrics::Metrics;
    use crate::session::outbox::Outbox;
    use crate::wire::Format;

    const OPEN: Generation = Generation { number: 1, phase: Phase::Open };
    const RECOVERING: Generation = Generation { number: 2, phase: Phase::Recovering };

    #[tokio::test]
    async fn tops_are_compared_when_a_generation_opens_and_not_while_it_recovers() {
        let (hub, room) = (Arc::new(Hub::new(Metrics::new().counts)), RoomName::parse("#lobby").unwrap());
        hub.prepare(&room, &SessionId::random(), &Outbox::new(Format::Json));
        let log = Log::Room(room.key().clone());
        hub.begin(&log, &Head { epoch: "e".into(), top: 7, forks: Vec::new() });
        let (store, generations) = watch::channel(OPEN);
        let watching = tokio::spawn(look_again(Arc::clone(&hub), generations));

        store.send(RECOVERING).unwrap();
        tokio::task::yield_now().await;
        assert!(hub.asks().now_or_never().is_none(), "what is being put back is not there yet");
        store.send(OPEN).unwrap();
        let asks = timeout(Duration::from_secs(10), hub.asks()).await.expect("nobody looks again");
        assert_eq!(asks.len(), 1);
        assert!(matches!(&asks[0], (asked, Ask::Top(_)) if *asked == log));
        drop(store);
        watching.await.unwrap();
    }
}
