//! What this node holds in the store: for each session that has a nickname, everything that the store knows of it.
//!
//! Drivers write it as they are answered; read by the lease, which says it again to a store that has lost something and
//! compares it with the store once a minute. What is about to be given back is out of here before the store is asked to
//! take it, so that it is not put back. A session without a connection costs one entry. Knows no store and no socket.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use presence::model::{Fence, Nick, Owner, RoomKey, RoomName, SessionId, Status, TokenHash};
use presence::registry::Holding;

/// The holdings of one node.
#[derive(Debug, Default)]
pub struct Holdings {
    sessions: Mutex<HashMap<SessionId, Holding>>,
}

impl Holdings {
    /// A claim was granted: to a new session, or to one that comes back with a later claim. Its rooms have to be joined.
    pub fn begin(&self, owner: Owner, nick: Nick, token: TokenHash) {
        let session = owner.session.clone();
        let status = Status::default();
        let holding = Holding { nick, owner, status, rooms: Vec::new(), token, detached: false };
        self.lock().insert(session, holding);
    }

    /// The session has another nickname, by this claim.
    pub fn renamed(&self, owner: &Owner, nick: &Nick) {
        self.change(&owner.session, |holding| {
            holding.owner = owner.clone();
            holding.nick = nick.clone();
        });
    }

    /// The session is in a room.
    pub fn joined(&self, session: &SessionId, room: &RoomName) {
        self.change(session, |holding| {
            holding.rooms.retain(|known| known.key() != room.key());
            holding.rooms.push(room.clone());
        });
    }

    /// The session leaves a room.
    pub fn left(&self, session: &SessionId, room: &RoomKey) {
        self.change(session, |holding| holding.rooms.retain(|known| known.key() != room));
    }

    /// What the user says about themselves.
    pub fn status(&self, session: &SessionId, status: &Status) {
        self.change(session, |holding| holding.status = status.clone());
    }

    /// The session has no connection any more.
    pub fn detached(&self, session: &SessionId) {
        self.change(session, |holding| holding.detached = true);
    }

    /// The session is not ours any more, or not with this claim: a later one stays.
    pub fn ended(&self, session: &SessionId, fence: Fence) {
        let mut sessions = self.lock();
        if sessions.get(session).is_some_and(|holding| holding.owner.fence <= fence) {
            sessions.remove(session);
        }
    }

    /// Everything.
    #[must_use]
    pub fn all(&self) -> Vec<Holding> {
        self.lock().values().cloned().collect()
    }

    fn change(&self, session: &SessionId, change: impl FnOnce(&mut Holding)) {
        if let Some(holding) = self.lock().get_mut(session) {
            change(holding);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Holding>> {
        // Every method leaves the map whole, so a panic elsewhere does not spoil it.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::model::Incarnation;

    use super::*;

    fn owner(session: &SessionId, fence: u64) -> Owner {
        Owner { incarnation: Incarnation::random(), session: session.clone(), fence: Fence(fence) }
    }

    #[test]
    fn a_session_is_held_from_its_claim_to_its_end() {
        let (holdings, session) = (Holdings::default(), SessionId::random());
        let (first, later) = (owner(&session, 1), owner(&session, 2));
        let [ann, anna] = ["ann", "anna"].map(|nick| Nick::parse(nick).unwrap());
        let [lobby, kitchen] = ["#lobby", "#kitchen"].map(|room| RoomName::parse(room).unwrap());
        let away = Status { text: "tea".to_owned(), ..Status::default() };
        holdings.begin(first, ann, TokenHash::of(b"secret"));
        holdings.joined(&session, &lobby);
        holdings.joined(&session, &kitchen);
        holdings.joined(&session, &lobby);
        holdings.left(&session, kitchen.key());
        holdings.status(&session, &away);
        holdings.renamed(&later, &anna);
        holdings.detached(&session);
        let token = TokenHash::of(b"secret");
        let held = Holding { nick: anna, owner: later, status: away, rooms: vec![lobby], token, detached: true };
        assert_eq!(holdings.all(), [held]);

        holdings.ended(&session, Fence(1));
        assert_eq!(holdings.all().len(), 1, "the end of an earlier claim is not its end");
        holdings.ended(&session, Fence(2));
        assert!(holdings.all().is_empty());
    }
}
