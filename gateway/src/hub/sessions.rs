//! The sessions with a connection on this node.
//!
//! [`LocalSessions`] finds the connection of a session and closes it. Invariant: a session has one connection here,
//! that of its newest claim. Knows nothing of streams; called under the hub's lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use presence::model::codes::CloseCode;
use presence::model::{Fence, Incarnation, Owner, SessionId};

use crate::outbound::outbox::Outbox;

#[derive(Debug, Default)]
pub(super) struct LocalSessions(HashMap<SessionId, LocalSession>);

#[derive(Debug)]
struct LocalSession {
    owner: Owner,
    outbox: Outbox,
    /// The tags of its token; `None` without any.
    tags: Option<Arc<[Box<str>]>>,
}

impl LocalSessions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a session and closes its older connection.
    pub(super) fn register(&mut self, owner: &Owner, outbox: &Outbox) {
        let session = LocalSession { owner: owner.clone(), outbox: outbox.clone(), tags: None };
        if let Some(older) = self.0.insert(owner.session.clone(), session) {
            older.outbox.close(CloseCode::TakenOver);
        }
    }

    /// Replaces the claim of a session.
    pub(super) fn update_claim(&mut self, owner: &Owner) {
        if let Some(session) = self.0.get_mut(&owner.session) {
            session.owner = owner.clone();
        }
    }

    /// Sets the tags of this claim.
    pub(super) fn tag(&mut self, owner: &Owner, tags: &Arc<[Box<str>]>) {
        if let Some(session) = self.0.get_mut(&owner.session).filter(|session| session.owner == *owner) {
            session.tags = Some(Arc::clone(tags)).filter(|tags| !tags.is_empty());
        }
    }

    /// Returns true if a session has one of these tags.
    pub(super) fn has_tag(&self, session: &SessionId, tags: &[String]) -> bool {
        let own = self.0.get(session).and_then(|session| session.tags.as_deref()).unwrap_or_default();
        own.iter().any(|own| tags.iter().any(|tag| **tag == **own))
    }

    /// Removes a session and returns its outbox, unless a newer claim holds it.
    pub(super) fn unregister(&mut self, owner: &Owner) -> Option<Outbox> {
        if let Entry::Occupied(session) = self.0.entry(owner.session.clone())
            && owner.succeeds(&session.get().owner)
        {
            return Some(session.remove().outbox);
        }
        None
    }

    /// Returns the outbox of a session with a connection.
    pub(super) fn outbox(&self, session: &SessionId) -> Option<Outbox> {
        self.0.get(session).map(|session| session.outbox.clone())
    }

    pub(super) fn close(&self, session: &SessionId, code: CloseCode) {
        if let Some(session) = self.0.get(session) {
            session.outbox.close(code);
        }
    }

    pub(super) fn close_claim(&self, session: &SessionId, fence: Fence, code: CloseCode) {
        if let Some(session) = self.0.get(session).filter(|session| session.owner.fence == fence) {
            session.outbox.close(code);
        }
    }

    pub(super) fn close_incarnation(&self, incarnation: &Incarnation, code: CloseCode) {
        let claimed = self.0.values().filter(|session| session.owner.incarnation == *incarnation);
        claimed.for_each(|session| session.outbox.close(code));
    }
}
