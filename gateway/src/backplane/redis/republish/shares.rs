//! The space of the republish ring and its shares: no session and no target holds more than it leaves free.
//!
//! [`RingShares`] is pure: its callers pass the time. One large holder gets half of the ring, `n` of them get an equal
//! part of `n + 1` each, and the last part stays free for small ones. A refusal names the holder at its limit and the
//! time until the ring has space for the message, as far as the store answers beats. It does not know messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::{NickKey, RoomKey};

use super::ring::SAFE_AFTER;

/// Maximum time that a message of an answering store is in the ring: its safety, the beat that begins it, the beat that
/// reports it, and the second in which it was reserved.
const HELD_MAX: Duration = SAFE_AFTER.saturating_add(Duration::from_secs(3));
/// Minimum pause before a retry, also while the store answers no beat.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// A holder of a share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::backplane::redis) enum ShareHolder {
    /// A sender, by the id of its session.
    Session(String),
    /// The messages of a room.
    Room(RoomKey),
    /// The direct messages to a nickname.
    Inbox(NickKey),
}

/// The space of one message, to be returned with [`RingShares::release`].
#[derive(Debug)]
pub(super) struct HeldSpace {
    holders: [Arc<ShareHolder>; 2],
    bytes: usize,
    /// The second of the reservation.
    second: u64,
}

/// A message without space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backplane::redis) struct NoSpace {
    /// The holder whose share is used up; `None` if the whole ring is.
    pub(in crate::backplane::redis) holder: Option<ShareHolder>,
    /// The time until the message fits.
    pub(in crate::backplane::redis) retry_after: Duration,
}

/// The space of the ring, by holder. A holder without bytes has no entry.
#[derive(Debug)]
pub(super) struct RingShares {
    limit: usize,
    start: Instant,
    /// The second of the newest reservation; no later one is earlier.
    newest: u64,
    whole: HeldBytes,
    holders: HashMap<Arc<ShareHolder>, HeldBytes>,
}

/// Bytes by the second of their reservation, oldest first. A store that answers leaves about ten seconds.
#[derive(Debug, Default)]
struct HeldBytes {
    bytes: usize,
    seconds: VecDeque<(u64, usize)>,
}

impl RingShares {
    /// Creates the shares of a ring of `limit` bytes.
    pub(super) fn new(limit: usize, now: Instant) -> Self {
        Self { limit, start: now, newest: 0, whole: HeldBytes::default(), holders: HashMap::new() }
    }

    /// Reserves the space of a message for its session and its target.
    ///
    /// # Errors
    /// The share or the ring that is full.
    pub(super) fn reserve(
        &mut self,
        holders: [ShareHolder; 2],
        bytes: usize,
        now: Instant,
    ) -> Result<HeldSpace, NoSpace> {
        let free = self.limit.saturating_sub(self.whole.bytes);
        let shares = holders.iter().map(|holder| {
            let held = self.holders.get(holder);
            // Each byte that the holder returns also is one more that it leaves free.
            let excess = (held.map_or(0, |held| held.bytes) + 2 * bytes).saturating_sub(free).div_ceil(2);
            (Some(holder), held, excess)
        });
        let whole = (None, Some(&self.whole), bytes.saturating_sub(free));
        let full = shares.chain([whole]).filter(|(.., excess)| *excess > 0).map(|(holder, held, excess)| {
            let freed = held.and_then(|held| held.freed_through(excess)).map(Duration::from_secs);
            let until = freed.map_or(now, |second| self.start + second + HELD_MAX);
            let retry_after = until.saturating_duration_since(now).max(PAUSE_MIN);
            NoSpace { holder: holder.cloned(), retry_after }
        });
        if let Some(no_space) = full.max_by_key(|no_space| no_space.retry_after) {
            return Err(no_space);
        }
        let second = now.saturating_duration_since(self.start).as_secs().max(self.newest);
        self.newest = second;
        self.whole.add(second, bytes);
        let holders = holders.map(|holder| {
            let holder =
                self.holders.get_key_value(&holder).map_or_else(|| Arc::new(holder), |(known, _)| known.clone());
            self.holders.entry(holder.clone()).or_default().add(second, bytes);
            holder
        });
        Ok(HeldSpace { holders, bytes, second })
    }

    /// Returns the space of a message.
    pub(super) fn release(&mut self, space: &HeldSpace) {
        self.whole.remove(space.second, space.bytes);
        for holder in &space.holders {
            let Some(held) = self.holders.get_mut(holder) else { continue };
            held.remove(space.second, space.bytes);
            if held.bytes == 0 {
                self.holders.remove(holder);
            }
        }
    }

    /// Returns the number of reserved bytes.
    pub(super) fn bytes(&self) -> usize {
        self.whole.bytes
    }
}

impl HeldBytes {
    fn add(&mut self, second: u64, bytes: usize) {
        self.bytes += bytes;
        match self.seconds.back_mut().filter(|(newest, _)| *newest == second) {
            Some((_, held)) => *held += bytes,
            None => self.seconds.push_back((second, bytes)),
        }
    }

    fn remove(&mut self, second: u64, bytes: usize) {
        self.bytes -= bytes;
        let Ok(found) = self.seconds.binary_search_by_key(&second, |(held, _)| *held) else { return };
        self.seconds[found].1 -= bytes;
        if self.seconds[found].1 == 0 {
            self.seconds.remove(found);
        }
    }

    /// Returns the second whose release, with all before it, frees this number of bytes.
    fn freed_through(&self, bytes: usize) -> Option<u64> {
        let mut freed = 0;
        let enough = self.seconds.iter().find(|(_, held)| {
            freed += held;
            freed >= bytes
        });
        enough.or(self.seconds.back()).map(|(second, _)| *second)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMIT: usize = 4000;

    fn holders(session: &str, room: &str) -> [ShareHolder; 2] {
        [ShareHolder::Session(session.to_owned()), ShareHolder::Room(RoomKey::from_store(room))]
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn session_fills_only_its_share_of_ring() {
        let start = Instant::now();
        let mut shares = RingShares::new(LIMIT, start);
        for room in ["a", "b", "c", "d"] {
            shares.reserve(holders("hog", room), 500, start).unwrap();
        }
        let refused = shares.reserve(holders("hog", "e"), 1, start).unwrap_err();
        assert_eq!(refused.holder, Some(ShareHolder::Session("hog".to_owned())));
        shares.reserve(holders("ann", "a"), 750, start).unwrap();
        assert_eq!(shares.bytes(), 2750);
    }

    #[test]
    fn targets_fill_only_their_share_of_ring() {
        let start = Instant::now();
        let room = ShareHolder::Room(RoomKey::from_store("busy"));
        let inbox = ShareHolder::Inbox(NickKey::from_store("busy"));
        let mut shares = RingShares::new(LIMIT, start);
        for (target, count) in [(room, 20), (inbox, 10)] {
            let send = |session: usize| [ShareHolder::Session(session.to_string()), target.clone()];
            for session in 0..count {
                shares.reserve(send(session), 100, start).unwrap();
            }
            assert_eq!(shares.reserve(send(99), 1, start).unwrap_err().holder, Some(target));
        }
        shares.reserve(holders("ann", "quiet"), 500, start).unwrap();
    }

    #[test]
    fn many_large_holders_leave_space_for_small_ones() {
        let start = Instant::now();
        let mut shares = RingShares::new(LIMIT, start);
        let mut is_full = false;
        while !is_full {
            is_full = true;
            for name in ["a", "b", "c", "d", "e", "f", "g"] {
                is_full &= shares.reserve(holders(name, name), 10, start).is_err();
            }
        }
        assert!((LIMIT - 600..=LIMIT - 400).contains(&shares.bytes()), "{}", shares.bytes());
        shares.reserve(holders("ann", "quiet"), 200, start).unwrap();
    }

    #[test]
    fn full_ring_refuses_every_holder() {
        let start = Instant::now();
        let mut shares = RingShares::new(LIMIT, start);
        let name = |number: usize| number.to_string();
        let reserve = |shares: &mut RingShares, number| shares.reserve(holders(&name(number), &name(number)), 1, start);
        let held: Vec<_> = (0..LIMIT - 1).map(|number| reserve(&mut shares, number).unwrap()).collect();
        assert!(reserve(&mut shares, LIMIT).is_err(), "nobody leaves less free than one message");
        let refused = shares.reserve(holders("x", "x"), 2, start).unwrap_err();
        assert_eq!(refused.holder, None);
        held.iter().for_each(|space| shares.release(space));
        assert_eq!((shares.bytes(), shares.holders.len()), (0, 0), "nothing is left of former holders");
        assert!(shares.whole.seconds.is_empty());
    }

    #[test]
    fn refusal_states_when_message_will_fit() {
        let start = Instant::now();
        let mut shares = RingShares::new(LIMIT, start);
        let first = shares.reserve(holders("hog", "a"), 600, start).unwrap();
        shares.reserve(holders("hog", "a"), 1400, at(start, 4)).unwrap();
        let mut wait =
            |bytes, second| shares.reserve(holders("hog", "b"), bytes, at(start, second)).unwrap_err().retry_after;
        assert_eq!(wait(600, 5), HELD_MAX - Duration::from_secs(5), "the oldest message frees enough");
        assert_eq!(wait(601, 5), HELD_MAX - Duration::from_secs(1), "the next one has to go too");
        assert_eq!(wait(1, 60), PAUSE_MIN, "the store answers no beat");
        shares.release(&first);
        shares.reserve(holders("hog", "b"), 600, at(start, 8)).unwrap();
    }

    #[test]
    fn reservations_out_of_clock_order_are_released() {
        let start = Instant::now();
        let mut shares = RingShares::new(LIMIT, start);
        let later = shares.reserve(holders("ann", "a"), 10, at(start, 2)).unwrap();
        let earlier = shares.reserve(holders("ann", "a"), 20, at(start, 1)).unwrap();
        shares.release(&earlier);
        assert_eq!(shares.whole.seconds, [(2, 10)]);
        shares.release(&later);
        assert!(shares.whole.seconds.is_empty() && shares.holders.is_empty());
    }
}
