//! The local claims: what this gateway owns in the registry, one entry per session with a nickname, attached or
//! detached.
//!
//! Drivers write it as their calls are answered; reassertion, audit and expiry read it. Every change compares the
//! claim, so a driver that is still ending never touches a later claim of its session. A session has one claim at a
//! time, the newest.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::codes::CloseCode;
use presence::model::{Fence, Incarnation, OfflineReason, Owner, RoomKey, SessionId};
use presence::registry::LocalClaim;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::identity::KeyFingerprint;
use crate::sanctions::SanctionedClient;

/// Claims of one gateway.
#[derive(Debug, Default)]
pub struct LocalClaims {
    /// Boxed, because a hash table allocates spare slots of the full entry size.
    entries: Mutex<HashMap<SessionId, Box<ClaimEntry>>>,
    /// Wakes the expiry after a change of a due time.
    detached: Notify,
}

#[derive(Debug)]
struct ClaimEntry {
    claim: LocalClaim,
    /// Time and reason of the leave; `None` while the session is attached, unless it was ordered to end, or already
    /// expiring. Boxed: few sessions are detached.
    expiry: Option<Box<(Instant, OfflineReason)>>,
    notes: ClientNotes,
}

/// What a session's claim does not tell of its client.
#[derive(Debug, Clone, Copy)]
pub struct ClientNotes {
    /// The key of the user's token; `None` for a guest.
    pub key: Option<KeyFingerprint>,
    /// The time of issue of that token, in Unix milliseconds.
    pub issued: u64,
    /// The address of the client.
    pub address: Option<ClientAddress>,
}

impl ClientNotes {
    /// Notes of a client that is not noted yet: no revocation applies to it.
    const NONE_YET: Self = Self { key: None, issued: u64::MAX, address: None };
}

impl ClaimEntry {
    /// Returns the client, as far as moderators can name it.
    fn client(&self) -> SanctionedClient<'_> {
        let LocalClaim { nick, owner, user, .. } = &self.claim;
        SanctionedClient {
            nick: nick.key(),
            user: user.as_deref().map(|user| (user, self.notes.issued)),
            session: Some(&owner.session),
            address: self.notes.address,
        }
    }
}

impl LocalClaims {
    /// Adds the claim of a session, replacing an older one.
    pub fn insert(&self, claim: LocalClaim) {
        let mut entries = self.lock();
        let known = entries.get(&claim.owner.session);
        if known.is_none_or(|known| known.claim.owner.fence <= claim.owner.fence) {
            entries.insert(
                claim.owner.session.clone(),
                Box::new(ClaimEntry { claim, expiry: None, notes: ClientNotes::NONE_YET }),
            );
        }
    }

    /// Changes this claim, if it is still the newest of its session.
    pub fn change(&self, owner: &Owner, change: impl FnOnce(&mut LocalClaim)) {
        if let Some(entry) = current(&mut self.lock(), owner) {
            change(&mut entry.claim);
        }
    }

    /// Forgets a room of a session, from which a moderator has removed it.
    pub fn forget_room(&self, session: &SessionId, room: &RoomKey) {
        if let Some(entry) = self.lock().get_mut(session) {
            entry.claim.rooms.retain(|held| held.key() != room);
        }
    }

    /// Notes the client of a session. Returns what `verdict` says of it.
    pub fn note_client(
        &self,
        owner: &Owner,
        notes: ClientNotes,
        verdict: impl FnOnce(&SanctionedClient<'_>) -> Option<CloseCode>,
    ) -> Option<CloseCode> {
        let mut entries = self.lock();
        let entry = current(&mut entries, owner)?;
        entry.notes = notes;
        verdict(&entry.client())
    }

    /// Returns the sessions that are to end by a verdict, with their codes.
    pub fn verdicts(
        &self,
        verdict: impl Fn(&SanctionedClient<'_>) -> Option<CloseCode>,
    ) -> Vec<(SessionId, CloseCode)> {
        let entries = self.lock();
        entries.iter().filter_map(|(session, entry)| Some((session.clone(), verdict(&entry.client())?))).collect()
    }

    /// Returns the sessions with a connection that are not admitted by their key, or as a guest without one.
    #[must_use]
    pub fn not_admitted(&self, admits: impl Fn(Option<KeyFingerprint>) -> bool) -> Vec<SessionId> {
        let entries = self.lock();
        // The key of a user is noted a moment after its claim, and compared then.
        let is_noted = |entry: &ClaimEntry| entry.notes.key.is_some() || entry.claim.user.is_none();
        let is_refused = |entry: &ClaimEntry| !entry.claim.detached && is_noted(entry) && !admits(entry.notes.key);
        entries.iter().filter(|(_, entry)| is_refused(entry)).map(|(session, _)| session.clone()).collect()
    }

    /// Marks the session as detached: it expires at `due`, unless it is resumed before; at once, if it was ordered to
    /// expire.
    pub fn detach(&self, owner: &Owner, due: Instant, reason: OfflineReason) {
        if let Some(entry) = current(&mut self.lock(), owner) {
            if entry.claim.detached || entry.expiry.is_none() {
                entry.expiry = Some(Box::new((due, reason)));
            }
            entry.claim.detached = true;
            self.detached.notify_one();
        }
    }

    /// Makes a detached session expire now, and an attached one when it detaches: the order to close its connection may
    /// find that it is gone already.
    pub fn expire_now(&self, session: &SessionId, reason: OfflineReason) {
        let mut entries = self.lock();
        let is_expiring = |entry: &ClaimEntry| entry.claim.detached && entry.expiry.is_none();
        if let Some(entry) = entries.get_mut(session).filter(|entry| !is_expiring(entry)) {
            entry.expiry = Some(Box::new((Instant::now(), reason)));
            self.detached.notify_one();
        }
    }

    /// Drops a claim that was released in the registry or is lost.
    pub fn release(&self, owner: &Owner) {
        let mut entries = self.lock();
        if current(&mut entries, owner).is_some() {
            entries.remove(&owner.session);
        }
    }

    /// Drops this claim of a session that was taken over, or an older one.
    pub fn drop_taken_over(&self, session: &SessionId, fence: Fence) {
        let mut entries = self.lock();
        if entries.get(session).is_some_and(|entry| entry.claim.owner.fence <= fence) {
            entries.remove(session);
        }
    }

    /// Drops every claim of an incarnation whose lease is lost.
    pub fn drop_incarnation(&self, incarnation: &Incarnation) {
        self.lock().retain(|_, entry| entry.claim.owner.incarnation != *incarnation);
    }

    /// Returns every claim.
    #[must_use]
    pub fn all(&self) -> Vec<LocalClaim> {
        self.lock().values().map(|entry| entry.claim.clone()).collect()
    }

    /// Counts detached sessions.
    #[must_use]
    pub fn count_detached(&self) -> usize {
        self.lock().values().filter(|entry| entry.claim.detached).count()
    }

    /// Waits until sessions are due to leave, and returns them. Each is returned once, and its claim stays until it is
    /// released. Dropping the future loses nothing. Only one task may wait: the expiry.
    pub async fn due(&self) -> Vec<(LocalClaim, OfflineReason)> {
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

    fn take_due(&self, now: Instant) -> (Vec<(LocalClaim, OfflineReason)>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for entry in self.lock().values_mut().filter(|entry| entry.claim.detached) {
            match entry.expiry.as_deref() {
                Some(&(at, reason)) if at <= now => {
                    entry.expiry = None;
                    due.push((entry.claim.clone(), reason));
                }
                Some(&(at, _)) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        (due, next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Box<ClaimEntry>>> {
        // Every method leaves the map consistent, so a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the entry of a session, if this is its newest claim.
fn current<'a>(entries: &'a mut HashMap<SessionId, Box<ClaimEntry>>, owner: &Owner) -> Option<&'a mut Box<ClaimEntry>> {
    entries.get_mut(&owner.session).filter(|entry| entry.claim.owner == *owner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use presence::model::{Nick, Status, TokenHash, UserId};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn owner(fence: u64) -> Owner {
        let (incarnation, session) = (Incarnation::from_store("i"), SessionId::from_store("s"));
        Owner { incarnation, session, fence: Fence(fence) }
    }

    fn claim(fence: u64) -> LocalClaim {
        let (nick, token) = (Nick::parse("ann").unwrap(), TokenHash::of(b"secret"));
        LocalClaim {
            nick,
            owner: owner(fence),
            user: None,
            status: Status::default(),
            rooms: Vec::new(),
            token,
            detached: false,
        }
    }

    fn fences(claims: &LocalClaims) -> Vec<u64> {
        claims.all().into_iter().map(|claim| claim.owner.fence.0).collect()
    }

    #[test]
    fn claim_of_attached_guest_stays_small() {
        // A size class of the allocator; the next one has 32 bytes more.
        assert!(size_of::<ClaimEntry>() <= 224, "{} bytes", size_of::<ClaimEntry>());
    }

    #[test]
    fn ending_driver_does_not_touch_the_newer_claim() {
        let (claims, now) = (LocalClaims::default(), Instant::now());
        claims.insert(claim(1));
        claims.insert(claim(2));
        claims.detach(&owner(1), now, OfflineReason::Closed);
        claims.change(&owner(1), |claim| claim.detached = true);
        claims.release(&owner(1));
        claims.drop_taken_over(&owner(1).session, Fence(1));
        claims.insert(claim(1));
        assert_eq!((fences(&claims), claims.count_detached()), (vec![2], 0));
        assert!(claims.take_due(now + SECOND).0.is_empty());
        claims.drop_taken_over(&owner(1).session, Fence(2));
        assert_eq!(fences(&claims), [] as [u64; 0]);
    }

    #[test]
    fn detached_session_expires_once_unless_resumed() {
        let (claims, now) = (LocalClaims::default(), Instant::now());
        claims.insert(claim(1));
        claims.detach(&owner(1), now + SECOND * 5, OfflineReason::Timeout);
        assert_eq!(claims.take_due(now + SECOND * 4).1, Some(now + SECOND * 5));
        let (due, next) = claims.take_due(now + SECOND * 5);
        assert_eq!((due.len(), due[0].1, next), (1, OfflineReason::Timeout, None));
        assert!(claims.take_due(now + SECOND * 6).0.is_empty(), "returned once");
        assert_eq!(fences(&claims), [1], "the claim stays until it is released");

        claims.detach(&owner(1), now + SECOND * 5, OfflineReason::Timeout);
        claims.insert(claim(2));
        assert!(claims.take_due(now + SECOND * 6).0.is_empty(), "the session was resumed");
    }

    #[test]
    fn expire_now_waits_for_session_to_detach() {
        let (claims, now) = (LocalClaims::default(), Instant::now());
        let expired = || claims.take_due(Instant::now()).0.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>();
        claims.insert(claim(1));
        claims.expire_now(&owner(1).session, OfflineReason::Kicked);
        assert_eq!(expired(), [], "the session is attached");
        claims.detach(&owner(1), now + SECOND * 60, OfflineReason::Timeout);
        assert_eq!(expired(), [OfflineReason::Kicked], "the order came while the connection ended");

        claims.insert(claim(2));
        claims.detach(&owner(2), now + SECOND * 60, OfflineReason::Timeout);
        assert_eq!(expired(), []);
        claims.expire_now(&owner(2).session, OfflineReason::Banned);
        assert_eq!(expired(), [OfflineReason::Banned]);

        claims.expire_now(&owner(2).session, OfflineReason::Kicked);
        claims.insert(claim(3));
        claims.detach(&owner(3), now + SECOND * 60, OfflineReason::Timeout);
        assert_eq!(expired(), [], "the session was resumed");
    }

    #[test]
    fn verdict_sees_the_noted_client() {
        let claims = LocalClaims::default();
        claims.insert(LocalClaim { user: UserId::parse("user:1").map(Box::new), ..claim(1) });
        let issued = |client: &SanctionedClient<'_>| client.user.map(|(_, issued)| issued);
        let revoked =
            |before| claims.verdicts(|client| (issued(client)? < before).then_some(CloseCode::TokenExpired)).len();
        assert_eq!(revoked(u64::MAX), 0, "a client that is not noted yet is spared");
        let notes = ClientNotes { key: None, issued: 5, address: None };
        let noted =
            claims.note_client(&owner(1), notes, |client| (issued(client) == Some(5)).then_some(CloseCode::Banned));
        assert_eq!(noted, Some(CloseCode::Banned));
        assert_eq!((revoked(5), revoked(6)), (0, 1));
        assert_eq!(claims.note_client(&owner(2), notes, |_| Some(CloseCode::Banned)), None, "another claim");
    }

    #[test]
    fn only_refused_keys_and_guests_are_not_admitted() {
        let claims = LocalClaims::default();
        claims.insert(claim(1));
        let guest = vec![owner(1).session];
        assert_eq!(claims.not_admitted(|key| key.is_some()), guest);
        assert_eq!(claims.not_admitted(|key| key.is_none()), []);
        claims.insert(LocalClaim { user: UserId::parse("user:1").map(Box::new), ..claim(2) });
        assert_eq!(claims.not_admitted(|_| false), [], "a user whose key is not noted yet is spared");
        claims.insert(claim(3));
        claims.change(&owner(3), |claim| claim.detached = true);
        assert_eq!(claims.not_admitted(|_| false), [], "without a connection there is nothing to end");
    }

    #[test]
    fn drop_incarnation_keeps_other_claims() {
        let claims = LocalClaims::default();
        claims.insert(claim(1));
        claims.drop_incarnation(&Incarnation::from_store("another"));
        assert_eq!(fences(&claims), [1]);
        claims.drop_incarnation(&owner(1).incarnation);
        assert_eq!(fences(&claims), [] as [u64; 0]);
    }
}
