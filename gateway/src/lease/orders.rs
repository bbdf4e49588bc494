//! Orders for sessions of this gateway: to end them, to begin or end a membership, and announcements.
//!
//! An order may arrive twice: immediately over the channel, and again through the mailbox, which cannot lose it. Both
//! have the same effect, which is idempotent: the connection is closed and the local claim expires or is dropped. It
//! writes nothing to the registry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use presence::model::codes::CloseCode;
use presence::model::moderation::RoomRemoval;
use presence::model::{AnnouncementOrder, Fence, Incarnation, OfflineReason, Owner, RoomEntryOrder, SessionId};

use crate::hub::Hub;

use super::local_claims::LocalClaims;

/// Ends sessions of this gateway, attached or detached.
#[derive(Debug, Clone)]
pub struct SessionOrders {
    hub: Arc<Hub>,
    claims: Arc<LocalClaims>,
    recent_removals: RecentOrders<RoomRemoval>,
    recent_entries: RecentOrders<RoomEntryOrder>,
    /// Entries of sessions that are not connected yet, and the number of beats for which they still wait.
    early_entries: Arc<Mutex<VecDeque<(RoomEntryOrder, u32)>>>,
    /// The ids of announcements.
    recent_announcements: RecentOrders<String>,
}

/// Maximum number of orders of a kind that are remembered, so that the second way of an order does nothing.
const RECENT_MAX: usize = 1024;
/// Number of beats for which an entry waits for its session.
const EARLY_BEATS: u32 = 5;

/// The newest orders of a kind. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
struct RecentOrders<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Default for RecentOrders<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: PartialEq + Clone> RecentOrders<T> {
    /// Remembers an order. Returns true if it is new.
    fn adds(&self, order: &T) -> bool {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.contains(order) {
            return false;
        }
        recent.truncate(RECENT_MAX - 1);
        recent.push_front(order.clone());
        true
    }
}

impl SessionOrders {
    /// Creates the orders for the sessions of one gateway.
    #[must_use]
    pub fn new(hub: Arc<Hub>, claims: Arc<LocalClaims>) -> Self {
        Self {
            hub,
            claims,
            recent_removals: RecentOrders::default(),
            recent_entries: RecentOrders::default(),
            early_entries: Arc::default(),
            recent_announcements: RecentOrders::default(),
        }
    }

    /// Ends a kicked session: its connection is closed, or it expires now if it is detached.
    pub fn kick(&self, session: &SessionId) {
        self.end(session, CloseCode::Kicked);
    }

    /// Ends a session by order of a moderator. With [`CloseCode::TokenExpired`] it may be resumed with a newer token.
    pub fn end(&self, session: &SessionId, code: CloseCode) {
        self.hub.close_session(session, code);
        if let Some(reason) = final_reason(code) {
            self.claims.expire_now(session, reason);
        }
    }

    /// Ends the membership of a session in a room, by order of a moderator: the hub delivers the room no more, and the
    /// connection, if there is one, forgets it. The same order does nothing a second time: its mailbox copy may arrive
    /// after the session has joined again.
    pub fn remove(&self, removal: &RoomRemoval) {
        if self.recent_removals.adds(removal) {
            self.claims.forget_room(&removal.session, &removal.room);
            self.hub.remove_member(removal);
        }
    }

    /// Lets a session enter a room, by order of an application. The same order does nothing a second time: its mailbox
    /// copy may arrive after the session has left again. The store knows a session before the hub does, so an order may
    /// be early: then it waits for [`SessionOrders::repeat_entries`].
    pub fn enter(&self, entry: &RoomEntryOrder) {
        if self.recent_entries.adds(entry) && !self.hub.enter_room(entry) {
            let mut early = self.early_entries.lock().unwrap_or_else(PoisonError::into_inner);
            early.truncate(RECENT_MAX - 1);
            early.push_front((entry.clone(), EARLY_BEATS));
        }
    }

    /// Tries the early entries again. To be called with each beat.
    pub fn repeat_entries(&self) {
        let mut early = self.early_entries.lock().unwrap_or_else(PoisonError::into_inner);
        early.retain_mut(|(entry, beats)| {
            *beats -= 1;
            !self.hub.enter_room(entry) && *beats > 0
        });
    }

    /// Sends an announcement to the sessions of this gateway that it is for, the first time that it arrives.
    pub fn announce(&self, announcement: &AnnouncementOrder) {
        if self.recent_announcements.adds(&announcement.id) {
            self.hub.announce(announcement);
        }
    }

    /// Ends the local connection of claim `fence`, whose session was resumed elsewhere. A newer claim is not touched.
    pub fn take_over(&self, session: &SessionId, fence: Fence) {
        self.hub.close_taken_over(session, fence);
        self.claims.drop_taken_over(session, fence);
    }

    /// Ends a session whose claim lost against a later one when it was reasserted.
    pub fn end_superseded(&self, owner: &Owner) {
        self.hub.close_claim(&owner.session, owner.fence, CloseCode::Restart);
        self.claims.release(owner);
    }

    /// Ends every session of an incarnation whose lease is lost.
    pub fn end_incarnation(&self, incarnation: &Incarnation) {
        self.hub.close_incarnation(incarnation, CloseCode::Restart);
        self.claims.drop_incarnation(incarnation);
    }
}

/// Returns the reason for going offline of a session that is closed with this code and not to be resumed.
fn final_reason(code: CloseCode) -> Option<OfflineReason> {
    match code {
        CloseCode::Kicked => Some(OfflineReason::Kicked),
        CloseCode::Banned => Some(OfflineReason::Banned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use presence::model::stream::{StreamEnd, StreamId};
    use presence::model::{Nick, RoomName, Status, TokenHash};
    use presence::registry::LocalClaim;

    use super::*;
    use crate::hub::FeedJoin;
    use crate::metrics::Metrics;
    use crate::outbound::Outbox;
    use crate::wire::Dialect;

    fn claim(nick: &str, fence: u64) -> LocalClaim {
        let (incarnation, session) = (Incarnation::from_store("i"), SessionId::from_store(nick));
        LocalClaim {
            nick: Nick::parse(nick).unwrap(),
            owner: Owner { incarnation, session, fence: Fence(fence) },
            user: None,
            status: Status::default(),
            rooms: Vec::new(),
            token: TokenHash::of(b"secret"),
            detached: false,
        }
    }

    fn orders() -> (SessionOrders, Arc<Hub>, Arc<LocalClaims>) {
        let (hub, claims) = (Arc::new(Hub::new(Metrics::new().counts)), Arc::<LocalClaims>::default());
        (SessionOrders::new(Arc::clone(&hub), Arc::clone(&claims)), hub, claims)
    }

    fn attach(hub: &Hub, claims: &LocalClaims, claim: LocalClaim) -> Outbox {
        let outbox = Outbox::new(Dialect::Json);
        hub.register_session(&claim.owner, &claim.nick, &outbox);
        claims.insert(claim);
        outbox
    }

    #[tokio::test]
    async fn kick_ends_attached_and_detached_sessions() {
        let (orders, hub, claims) = orders();
        let (ann, bob) = (claim("ann", 1), claim("bob", 1));
        let outbox = attach(&hub, &claims, ann.clone());
        claims.insert(bob.clone());
        claims.detach(&bob.owner, Instant::now() + std::time::Duration::from_secs(60), OfflineReason::Timeout);
        for _ in 0..2 {
            orders.kick(&ann.owner.session);
            orders.kick(&bob.owner.session);
        }
        assert_eq!(outbox.close_code(), Some(CloseCode::Kicked));
        let due = claims.due().await;
        assert_eq!(due.len(), 1, "an attached session does not expire");
        assert_eq!((&due[0].0.owner, due[0].1), (&bob.owner, OfflineReason::Kicked));
    }

    #[tokio::test]
    async fn second_way_of_an_announcement_delivers_nothing() {
        let (orders, hub, claims) = orders();
        let ann = claim("ann", 1);
        let outbox = attach(&hub, &claims, ann.clone());
        let end = StreamEnd { epoch: "e".to_owned(), seq: 0, forks: Vec::new() };
        let (inbox, session) = (StreamId::Inbox(ann.owner.session.clone()), &ann.owner.session);
        hub.observe_end(&inbox, &end);
        hub.complete_join(&inbox, &FeedJoin { display: "ann", session, outbox: &outbox, epoch: "e", after: 0 });
        let announcement =
            |id: &str| AnnouncementOrder { id: id.to_owned(), tags: Vec::new(), body: Box::default(), time: 7 };
        for id in ["a1", "a1", "a2", "a1"] {
            orders.announce(&announcement(id));
        }
        while hub.fan_out_portion(Instant::now) {}
        assert_eq!(outbox.take().unwrap().items.len(), 2);
    }

    #[test]
    fn second_way_of_an_entry_does_nothing() {
        let (orders, hub, claims) = orders();
        let outbox = attach(&hub, &claims, claim("ann", 1));
        let entry = |session: &str, number: &str| RoomEntryOrder {
            session: SessionId::from_store(session),
            room: RoomName::parse("#tea").unwrap(),
            number: number.to_owned(),
        };
        for number in ["1", "1", "2", "1"] {
            orders.enter(&entry("ann", number));
        }
        orders.enter(&entry("elsewhere", "3"));
        assert_eq!(outbox.take_orders().len(), 2);
    }

    #[test]
    fn entry_waits_for_a_session_that_registers() {
        let (orders, hub, claims) = orders();
        let entry = |session: &str, number: &str| RoomEntryOrder {
            session: SessionId::from_store(session),
            room: RoomName::parse("#tea").unwrap(),
            number: number.to_owned(),
        };
        for way in 0..2 {
            orders.enter(&entry("ann", "1"));
            orders.enter(&entry("bob", &format!("{way}")));
        }
        orders.repeat_entries();
        let outbox = attach(&hub, &claims, claim("ann", 1));
        orders.repeat_entries();
        orders.repeat_entries();
        assert_eq!(outbox.take_orders().len(), 1);
        (3..EARLY_BEATS).for_each(|_| orders.repeat_entries());
        let late = attach(&hub, &claims, claim("bob", 2));
        orders.repeat_entries();
        assert!(late.take_orders().is_empty(), "its session did not come in time");
    }

    #[test]
    fn take_over_spares_the_newer_claim() {
        let (orders, hub, claims) = orders();
        let outbox = attach(&hub, &claims, claim("ann", 2));
        let session = claim("ann", 2).owner.session;
        orders.take_over(&session, Fence(1));
        assert_eq!((outbox.close_code(), claims.all().len()), (None, 1));
        orders.take_over(&session, Fence(2));
        assert_eq!((outbox.close_code(), claims.all().len()), (Some(CloseCode::TakenOver), 0));
    }
}
