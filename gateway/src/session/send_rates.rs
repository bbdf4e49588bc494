//! The byte rates of all rooms and inboxes that this gateway sends into.
//!
//! [`SendRates`] is asked before a message is published, so a refused message was neither queued nor stored. It reports
//! a time of refusals with one line at its beginning and one at its end. The rule is in [`super::rate_meter`].

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::host::reloadable::Reloadable;
use presence::model::{NickKey, RoomKey, SessionId};

use crate::message::Target;

use super::rate_meter::{MeterTable, OverRate, RateRefusals, SendCharge};

/// The time between two looks for the end of an episode.
const EPISODE_CHECK: Duration = Duration::from_secs(1);

/// The byte rates of one gateway.
#[derive(Debug)]
pub struct SendRates {
    bytes_per_second: Reloadable<u64>,
    rooms: SharedTable<RoomKey>,
    inboxes: SharedTable<NickKey>,
}

type SharedTable<K> = Arc<Mutex<MeterTable<K>>>;

impl SendRates {
    /// Rates of at most this many bytes per second and target.
    #[must_use]
    pub fn new(bytes_per_second: Reloadable<u64>) -> Self {
        Self { bytes_per_second, rooms: SharedTable::default(), inboxes: SharedTable::default() }
    }

    /// Takes the bytes of a message from the rate of its target.
    ///
    /// # Errors
    /// The time after which the message fits.
    pub(super) fn admit(&self, to: &Target, charge: SendCharge<'_>) -> Result<(), OverRate> {
        let (now, bytes_per_second) = (Instant::now(), self.bytes_per_second.get());
        match to {
            Target::Room(room) => {
                let outcome = lock(&self.rooms).admit(now, bytes_per_second, room.key(), charge);
                if let Err(OverRate { begun_by: Some(from), .. }) = &outcome {
                    tracing::warn!(%room, from = from.as_str(), bytes_per_second, "room rate exceeded");
                    let room = room.clone();
                    report_end(
                        &self.rooms,
                        room.key().clone(),
                        move |RateRefusals { messages, bytes, .. }, seconds| {
                            tracing::info!(%room, messages, bytes, seconds, "room rate restored");
                        },
                    );
                }
                outcome
            }
            Target::Nick(nick) => {
                let outcome = lock(&self.inboxes).admit(now, bytes_per_second, nick.key(), charge);
                if let Err(OverRate { begun_by: Some(from), .. }) = &outcome {
                    tracing::warn!(from = from.as_str(), bytes_per_second, "inbox rate exceeded");
                    let from = from.clone();
                    report_end(&self.inboxes, nick.key().clone(), move |episode, seconds| {
                        let RateRefusals { messages, bytes, .. } = episode;
                        tracing::info!(from = from.as_str(), messages, bytes, seconds, "inbox rate restored");
                    });
                }
                outcome
            }
        }
    }

    /// Returns the bytes of a message that was not stored, or was stored before.
    pub(super) fn refund(&self, to: &Target, session: &SessionId, bytes: usize) {
        let rate = self.bytes_per_second.get();
        match to {
            Target::Room(room) => lock(&self.rooms).refund(rate, room.key(), session, bytes),
            Target::Nick(nick) => lock(&self.inboxes).refund(rate, nick.key(), session, bytes),
        }
    }
}

/// Waits for the end of an episode and reports it with its duration in seconds.
fn report_end<K: Clone + Eq + Hash + Send + 'static>(
    table: &SharedTable<K>,
    key: K,
    report: impl FnOnce(RateRefusals, u64) + Send + 'static,
) {
    let table = Arc::clone(table);
    tokio::spawn(async move {
        let ended = loop {
            tokio::time::sleep(EPISODE_CHECK).await;
            let ended = lock(&table).take_ended(Instant::now(), &key);
            if let Some(ended) = ended {
                break ended;
            }
        };
        report(ended, ended.last.duration_since(ended.first).as_secs());
    });
}

fn lock<K>(table: &SharedTable<K>) -> MutexGuard<'_, MeterTable<K>> {
    // Every method keeps the table valid at each step.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
