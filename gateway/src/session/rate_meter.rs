//! The byte rate of rooms and inboxes: which message is refused when one of them receives more than its readers can
//! be expected to take.
//!
//! A [`RateMeter`] is a token bucket with a use for each sender. A sender must leave as many bytes in the bucket as it
//! used in the last second or so. So the largest senders are refused first, and a quiet member's message still passes
//! beside a flood. A [`MeterTable`] holds the meters that are not quiet. Pure: every `Instant` is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use presence::model::{Nick, SessionId};

/// Time in which half of a sender's use is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// Minimum capacity of a bucket: half of it holds one message of the maximum size.
const CAPACITY_BYTES_MIN: f64 = 256.0 * 1024.0;
/// Use of a sender that is as good as none.
const NEGLIGIBLE_BYTES: f64 = 512.0;
/// The time between two searches for quiet meters.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Time without a refusal after which an episode is over.
const EPISODE_QUIET: Duration = Duration::from_secs(5);
/// Maximum number of simultaneous episodes; refusals beyond them are not reported.
const EPISODES_MAX: usize = 32;

/// A message that is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendCharge<'a> {
    /// The session of the sender.
    pub(super) session: &'a SessionId,
    /// The nickname of the sender.
    pub(super) nick: &'a Nick,
    /// The bytes that each reader receives.
    pub(super) bytes: usize,
}

/// A refused message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OverRate {
    /// The time after which the same message fits, if no other sender uses the bytes.
    pub(super) retry_after: Duration,
    /// The largest sender, if this refusal begins an episode.
    pub(super) begun_by: Option<Nick>,
}

/// A time of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateRefusals {
    /// The first refusal.
    pub(super) first: Instant,
    /// The newest refusal.
    pub(super) last: Instant,
    /// Refused messages.
    pub(super) messages: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Recent use of one sender.
#[derive(Debug)]
struct SenderUse {
    nick: Nick,
    bytes: f64,
    at: Instant,
}

impl SenderUse {
    fn bytes_at(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        self.bytes * (-(age.as_secs_f64() / HALF_LIFE.as_secs_f64())).exp2()
    }
}

/// The meter of one room or inbox.
#[derive(Debug)]
struct RateMeter {
    /// Bytes in the bucket.
    space: f64,
    at: Instant,
    senders: HashMap<SessionId, SenderUse>,
    episode: Option<RateRefusals>,
}

/// Returns the capacity of a bucket: the bytes of one second.
fn capacity(rate: u64) -> f64 {
    (rate as f64).max(CAPACITY_BYTES_MIN)
}

/// Returns the bytes that a message takes from the bucket.
fn cost(rate: u64, bytes: usize) -> f64 {
    (bytes as f64).min(capacity(rate) / 2.0)
}

impl RateMeter {
    fn new(now: Instant, rate: u64) -> Self {
        Self { space: capacity(rate), at: now, senders: HashMap::new(), episode: None }
    }

    fn refill(&mut self, now: Instant, rate: u64) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.space = (self.space + elapsed.as_secs_f64() * rate as f64).min(capacity(rate));
    }

    /// Takes the bytes of a message, or returns the time after which there is room for it.
    fn admit(&mut self, now: Instant, rate: u64, charge: SendCharge<'_>) -> Result<(), Duration> {
        self.refill(now, rate);
        let cost = cost(rate, charge.bytes);
        let sender = self.senders.get_mut(charge.session);
        let used = sender.as_ref().map_or(0.0, |sender| sender.bytes_at(now));
        let needed = cost + used.min(capacity(rate) / 2.0);
        if self.space < needed {
            return Err(Duration::from_secs_f64((needed - self.space) / rate as f64));
        }
        self.space -= cost;
        if let Some(sender) = sender {
            (sender.bytes, sender.at) = (used + cost, now);
        } else {
            let sender = SenderUse { nick: charge.nick.clone(), bytes: cost, at: now };
            self.senders.insert(charge.session.clone(), sender);
        }
        Ok(())
    }

    fn refund(&mut self, rate: u64, session: &SessionId, bytes: usize) {
        let cost = cost(rate, bytes);
        self.space = (self.space + cost).min(capacity(rate));
        if let Some(sender) = self.senders.get_mut(session) {
            sender.bytes = (sender.bytes - cost).max(0.0);
        }
    }

    fn largest_sender(&self, now: Instant) -> Option<&Nick> {
        let by_use = |a: &&SenderUse, b: &&SenderUse| a.bytes_at(now).total_cmp(&b.bytes_at(now));
        self.senders.values().max_by(by_use).map(|sender| &sender.nick)
    }

    /// Forgets quiet senders. Returns true if the meter differs from a new one.
    fn is_in_use(&mut self, now: Instant, rate: u64) -> bool {
        self.refill(now, rate);
        self.senders.retain(|_, sender| sender.bytes_at(now) >= NEGLIGIBLE_BYTES);
        self.episode.is_some() || !self.senders.is_empty() || self.space < capacity(rate)
    }
}

/// The meters of all rooms, or of all inboxes.
#[derive(Debug)]
pub(super) struct MeterTable<K> {
    meters: HashMap<K, RateMeter>,
    swept: Option<Instant>,
    episodes: usize,
}

impl<K> Default for MeterTable<K> {
    fn default() -> Self {
        Self { meters: HashMap::new(), swept: None, episodes: 0 }
    }
}

impl<K: Clone + Eq + Hash> MeterTable<K> {
    /// Takes the bytes of a message to `key` at this rate in bytes per second.
    ///
    /// # Errors
    /// [`OverRate`] if there is no room for it; nothing is taken then.
    pub(super) fn admit(&mut self, now: Instant, rate: u64, key: &K, charge: SendCharge<'_>) -> Result<(), OverRate> {
        self.sweep(now, rate);
        if !self.meters.contains_key(key) {
            self.meters.insert(key.clone(), RateMeter::new(now, rate));
        }
        let Some(meter) = self.meters.get_mut(key) else { return Ok(()) };
        meter.admit(now, rate, charge).map_err(|retry_after| {
            let is_first = meter.episode.is_none() && self.episodes < EPISODES_MAX;
            if is_first {
                self.episodes += 1;
                meter.episode = Some(RateRefusals { first: now, last: now, messages: 0, bytes: 0 });
            }
            if let Some(episode) = &mut meter.episode {
                episode.last = now;
                episode.messages += 1;
                episode.bytes += charge.bytes as u64;
            }
            let begun_by = is_first.then(|| meter.largest_sender(now).unwrap_or(charge.nick).clone());
            OverRate { retry_after, begun_by }
        })
    }

    /// Returns the bytes of a message that was not stored.
    pub(super) fn refund(&mut self, rate: u64, key: &K, session: &SessionId, bytes: usize) {
        if let Some(meter) = self.meters.get_mut(key) {
            meter.refund(rate, session, bytes);
        }
    }

    /// Ends and returns an episode whose last refusal is long enough ago.
    pub(super) fn take_ended(&mut self, now: Instant, key: &K) -> Option<RateRefusals> {
        let is_over = |episode: &mut RateRefusals| now.saturating_duration_since(episode.last) >= EPISODE_QUIET;
        let ended = self.meters.get_mut(key)?.episode.take_if(is_over)?;
        self.episodes -= 1;
        Some(ended)
    }

    /// Drops quiet meters, once in a while.
    fn sweep(&mut self, now: Instant, rate: u64) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL);
        if is_due {
            self.swept = Some(now);
            self.meters.retain(|_, meter| meter.is_in_use(now, rate));
        }
    }
}

#[cfg(test)]
mod tests;
