//! What this node owns in the store: one entry for each session with a nickname, with a connection or without one.
//!
//! Written by the drivers as their calls are answered; read by whoever has to tell the store again what is ours, and by
//! the departure of sessions that do not come back. Every change compares the claim, so a driver that is still ending
//! never touches what its session has become since. Invariant: one claim of a session at a time, the newest one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::model::{Fence, Incarnation, LeftReason, Owner, SessionId};
use presence::registry::LocalClaim;
use tokio::sync::Notify;
use tokio::time::timeout_at;

/// The holdings of one node.
#[derive(Debug, Default)]
pub struct LocalClaims {
    /// Boxed: a table of large entries is mostly room for entries to come.
    entries: Mutex<HashMap<SessionId, Box<Entry>>>,
    /// A session was detached.
    detached: Notify,
}

#[derive(Debug)]
struct Entry {
    holding: LocalClaim,
    /// When it goes for good, as others see it, and what they are told; `None` while it has a connection or is going.
    leaves: Option<(Instant, LeftReason)>,
}

impl LocalClaims {
    /// A session has a claim, in the place of an older one.
    pub fn hold(&self, holding: LocalClaim) {
        let mut entries = self.lock();
        let known = entries.get(&holding.owner.session);
        if known.is_none_or(|known| known.holding.owner.fence <= holding.owner.fence) {
            entries.insert(holding.owner.session.clone(), Box::new(Entry { holding, leaves: None }));
        }
    }

    /// Changes what is held by this claim, if it is the newest.
    pub fn change(&self, owner: &Owner, change: impl FnOnce(&mut LocalClaim)) {
        if let Some(entry) = current(&mut self.lock(), owner) {
            change(&mut entry.holding);
        }
    }

    /// The session has lost its connection and leaves at `due`, unless it is resumed before.
    pub fn detach(&self, owner: &Owner, due: Instant, reason: LeftReason) {
        if let Some(entry) = current(&mut self.lock(), owner) {
            entry.holding.detached = true;
            entry.leaves = Some((due, reason));
            self.detached.notify_one();
        }
    }

    /// The session is to leave at once, if it has no connection: of one that has, its connection is ended.
    pub fn send_off(&self, session: &SessionId, reason: LeftReason) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(session).filter(|entry| entry.leaves.is_some()) {
            entry.leaves = Some((Instant::now(), reason));
            self.detached.notify_one();
        }
    }

    /// The claim is given back, or was found to be lost.
    pub fn release(&self, owner: &Owner) {
        let mut entries = self.lock();
        if current(&mut entries, owner).is_some() {
            entries.remove(&owner.session);
        }
    }

    /// The session was taken over from this claim, or from an older one.
    pub fn taken(&self, session: &SessionId, fence: Fence) {
        let mut entries = self.lock();
        if entries.get(session).is_some_and(|entry| entry.holding.owner.fence <= fence) {
            entries.remove(session);
        }
    }

    /// The lease is lost, and with it everything that it held.
    pub fn forget(&self, incarnation: &Incarnation) {
        self.lock().retain(|_, entry| entry.holding.owner.incarnation != *incarnation);
    }

    /// Everything that is held.
    #[must_use]
    pub fn all(&self) -> Vec<LocalClaim> {
        self.lock().values().map(|entry| entry.holding.clone()).collect()
    }

    /// How many sessions have no connection.
    #[must_use]
    pub fn count_detached(&self) -> usize {
        self.lock().values().filter(|entry| entry.holding.detached).count()
    }

    /// Waits until sessions are due to leave, and takes them: each is given out once, and stays held until it is released.
    /// Dropping the future loses nothing. One waiter: the departure.
    pub async fn due(&self) -> Vec<(LocalClaim, LeftReason)> {
        loop {
            let detached = self.detached.notified();
            let (due, next) = self.take_due(Instant::now());
            if !due.is_empty() {
                return due;
            }
            match next {
                Some(next) => drop(timeout_at(next.into(), detached).await),
                None => detached.await,
            }
        }
    }

    fn take_due(&self, now: Instant) -> (Vec<(LocalClaim, LeftReason)>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for entry in self.lock().values_mut() {
            match entry.leaves {
                Some((at, reason)) if at <= now => {
                    entry.leaves = None;
                    due.push((entry.holding.clone(), reason));
                }
                Some((at, _)) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        (due, next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Box<Entry>>> {
        // Every method leaves the map whole, so a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a session, if this claim is the one that it has.
fn current<'a>(entries: &'a mut HashMap<SessionId, Box<Entry>>, owner: &Owner) -> Option<&'a mut Box<Entry>> {
    entries.get_mut(&owner.session).filter(|entry| entry.holding.owner == *owner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use presence::model::{Nick, Status, TokenHash};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn owner(fence: u64) -> Owner {
        let (incarnation, session) = (Incarnation::from_store("i"), SessionId::from_store("s"));
        Owner { incarnation, session, fence: Fence(fence) }
    }

    fn holding(fence: u64) -> LocalClaim {
        let (nick, token) = (Nick::parse("ann").unwrap(), TokenHash::of(b"secret"));
        LocalClaim { nick, owner: owner(fence), status: Status::default(), rooms: Vec::new(), token, detached: false }
    }

    fn fences(holdings: &LocalClaims) -> Vec<u64> {
        holdings.all().into_iter().map(|holding| holding.owner.fence.0).collect()
    }

    #[test]
    fn a_driver_that_is_still_ending_does_not_touch_the_newer_claim() {
        let (holdings, now) = (LocalClaims::default(), Instant::now());
        holdings.hold(holding(1));
        holdings.hold(holding(2));
        holdings.detach(&owner(1), now, LeftReason::Closed);
        holdings.change(&owner(1), |holding| holding.detached = true);
        holdings.release(&owner(1));
        holdings.taken(&owner(1).session, Fence(1));
        holdings.hold(holding(1));
        assert_eq!((fences(&holdings), holdings.count_detached()), (vec![2], 0));
        assert!(holdings.take_due(now + SECOND).0.is_empty());
        holdings.taken(&owner(1).session, Fence(2));
        assert_eq!(fences(&holdings), [] as [u64; 0]);
    }

    #[test]
    fn a_detached_session_is_due_once_and_not_after_it_was_resumed() {
        let (holdings, now) = (LocalClaims::default(), Instant::now());
        holdings.hold(holding(1));
        holdings.detach(&owner(1), now + SECOND * 5, LeftReason::Timeout);
        assert_eq!(holdings.take_due(now + SECOND * 4).1, Some(now + SECOND * 5));
        let (due, next) = holdings.take_due(now + SECOND * 5);
        assert_eq!((due.len(), due[0].1, next), (1, LeftReason::Timeout, None));
        assert!(holdings.take_due(now + SECOND * 6).0.is_empty(), "given out once");
        assert_eq!(fences(&holdings), [1], "still ours, until it is released");

        holdings.detach(&owner(1), now + SECOND * 5, LeftReason::Timeout);
        holdings.hold(holding(2));
        assert!(holdings.take_due(now + SECOND * 6).0.is_empty(), "it came back");
    }

    #[test]
    fn a_session_is_sent_off_at_once_only_if_it_waits() {
        let (holdings, now) = (LocalClaims::default(), Instant::now());
        holdings.hold(holding(1));
        holdings.send_off(&owner(1).session, LeftReason::Kicked);
        assert!(holdings.take_due(now + SECOND * 60).0.is_empty(), "it has a connection");
        holdings.detach(&owner(1), now + SECOND * 5, LeftReason::Timeout);
        holdings.send_off(&owner(1).session, LeftReason::Kicked);
        let (due, _) = holdings.take_due(Instant::now());
        assert_eq!((due.len(), due[0].1), (1, LeftReason::Kicked));
    }

    #[test]
    fn a_lost_lease_holds_nothing() {
        let holdings = LocalClaims::default();
        holdings.hold(holding(1));
        holdings.forget(&Incarnation::from_store("another"));
        assert_eq!(fences(&holdings), [1]);
        holdings.forget(&owner(1).incarnation);
        assert_eq!(fences(&holdings), [] as [u64; 0]);
    }
}
