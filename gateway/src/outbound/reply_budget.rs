//! The budget of replies: the bytes of lists that all clients of a gateway together may leave unread.
//!
//! A [`ReplyBudget`] reserves bytes before a list is read from the store. A [`ReplyReservation`] holds them until the
//! reply is written or its connection ends. Three quarters of the budget serve replies of any size, the rest small ones
//! only. So clients that do not read make the pages of others shorter before any request waits. Knows no list.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The largest small reply: one message of the maximum size and its names.
const SMALL_REPLY_BYTES: usize = 68 * 1024;
/// The unit of reservations.
const UNIT_BYTES: usize = 1024;
/// The maximum time that a request waits for a part of the budget.
const WAIT: Duration = Duration::from_secs(1);
/// The shortest time between two log lines about refused replies.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The reply was refused: unread replies use the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyBudgetUsed;

/// The bytes of unread replies that a gateway holds at most. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReplyBudget {
    any_size: Arc<Semaphore>,
    small_only: Arc<Semaphore>,
    units: usize,
    last_logged: Arc<Mutex<Option<Instant>>>,
}

/// A reserved part of the budget, released on drop.
#[derive(Debug)]
pub struct ReplyReservation(OwnedSemaphorePermit);

impl ReplyBudget {
    /// A budget of this many bytes, of which nothing is used.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = bytes / UNIT_BYTES;
        let small_only = units / 4;
        let [any_size, small_only] = [units - small_only, small_only].map(|part| Arc::new(Semaphore::new(part)));
        Self { any_size, small_only, units, last_logged: Arc::default() }
    }

    /// Reserves bytes for a reply. If the budget has no room for `wanted`, it reserves a small reply instead, and the
    /// caller reads a shorter page. Waits up to a second.
    ///
    /// # Errors
    /// [`ReplyBudgetUsed`] without room for a small reply within that time.
    pub async fn reserve(&self, wanted: usize) -> Result<ReplyReservation, ReplyBudgetUsed> {
        let small = wanted.min(SMALL_REPLY_BYTES);
        let at_once = [(&self.any_size, wanted), (&self.small_only, small), (&self.any_size, small)];
        // A small reply leaves the larger part to large ones.
        let preferred = if wanted > SMALL_REPLY_BYTES { &at_once[..] } else { &at_once[1..] };
        let free =
            preferred.iter().find_map(|(part, bytes)| Arc::clone(part).try_acquire_many_owned(units(*bytes)).ok());
        if let Some(permit) = free {
            return Ok(ReplyReservation(permit));
        }
        match timeout(WAIT, Arc::clone(&self.small_only).acquire_many_owned(units(small))).await {
            Ok(Ok(permit)) => Ok(ReplyReservation(permit)),
            _ => {
                self.log_refusal();
                Err(ReplyBudgetUsed)
            }
        }
    }

    /// Returns the reserved bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        let free = self.any_size.available_permits() + self.small_only.available_permits();
        self.units.saturating_sub(free) * UNIT_BYTES
    }

    fn log_refusal(&self) {
        let now = Instant::now();
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last_logged.is_none_or(|logged| now.duration_since(logged) >= LOG_PAUSE) {
            *last_logged = Some(now);
            drop(last_logged);
            let (reserved_bytes, budget_bytes) = (self.reserved_bytes(), self.units * UNIT_BYTES);
            tracing::warn!(reserved_bytes, budget_bytes, "list refused, clients leave earlier lists unread");
        }
    }
}

impl ReplyReservation {
    /// Returns the reserved bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT_BYTES
    }

    /// Releases everything beyond the size that the reply turned out to have.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(surplus));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn unread_replies_shorten_pages_before_any_is_refused() {
        let budget = ReplyBudget::new(4 * MIB);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(budget.reserve(MIB).await.unwrap());
            assert_eq!(held.last().unwrap().bytes(), MIB);
        }
        for _ in 0..MIB / SMALL_REPLY_BYTES {
            held.push(budget.reserve(MIB).await.unwrap());
            assert_eq!(held.last().unwrap().bytes(), SMALL_REPLY_BYTES, "the page is shorter");
        }
        assert!(budget.reserved_bytes() <= 4 * MIB);
        let (large, small) = tokio::join!(budget.reserve(MIB), budget.reserve(SMALL_REPLY_BYTES));
        assert_eq!((large.unwrap_err(), small.unwrap_err()), (ReplyBudgetUsed, ReplyBudgetUsed));
        drop(held);
        assert_eq!(budget.reserved_bytes(), 0);
        assert_eq!(budget.reserve(MIB).await.unwrap().bytes(), MIB);
    }

    #[tokio::test]
    async fn waiting_request_gets_what_a_written_reply_releases() {
        let budget = ReplyBudget::new(4 * MIB);
        let mut held = Vec::new();
        while budget.reserved_bytes() + SMALL_REPLY_BYTES <= 4 * MIB {
            held.push(budget.reserve(SMALL_REPLY_BYTES).await.unwrap());
        }
        let (next, ()) = tokio::join!(budget.reserve(MIB), async { drop(held.remove(0)) });
        assert_eq!(next.unwrap().bytes(), SMALL_REPLY_BYTES);
    }

    #[tokio::test]
    async fn reservation_shrinks_to_the_size_of_its_reply() {
        let budget = ReplyBudget::new(4 * MIB);
        let mut reserved = budget.reserve(MIB).await.unwrap();
        reserved.shrink_to(5_000);
        assert_eq!((reserved.bytes(), budget.reserved_bytes()), (5 * UNIT_BYTES, 5 * UNIT_BYTES));
        reserved.shrink_to(MIB);
        assert_eq!(reserved.bytes(), 5 * UNIT_BYTES, "it never grows");
        drop(reserved);
        assert_eq!(budget.reserved_bytes(), 0);
    }
}
