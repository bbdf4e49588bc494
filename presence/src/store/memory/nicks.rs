//! The nick records in memory. The rules on them are in `registry/names/memory.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{Incarnation, LookalikePolicy, Nick, NickKey, NickSkeletons, Owner, SessionId, Status, UserId};

/// The nick records and their indexes.
#[derive(Debug, Default)]
pub(crate) struct Nicks {
    pub(crate) records: HashMap<NickKey, NickRecord>,
    /// The nicks online by the list score of their session.
    pub(crate) online: BTreeSet<(u64, NickKey)>,
    /// Skeleton -> the owned and held nicks that share it, and whether each is shown in plain ASCII.
    pub(crate) skeletons: HashMap<Box<str>, BTreeMap<NickKey, bool>>,
    /// The nicks that are bound to each user, in the order of their claims.
    pub(crate) of_users: HashMap<UserId, Vec<NickKey>>,
    pub(crate) lookalikes: LookalikePolicy,
    pub(crate) fence: u64,
}

#[derive(Debug)]
pub(crate) struct NickRecord {
    pub(crate) owner: Option<Owner>,
    /// The only user that may claim the nick.
    pub(crate) user: Option<UserId>,
    /// The newest owner's session.
    pub(crate) session: SessionId,
    /// True if the owner has no connection.
    pub(crate) detached: bool,
    /// The session that the nick is held for while it has no owner.
    pub(crate) held: Option<SessionId>,
    /// The end of the hold, also for an owner without a connection.
    pub(crate) held_until: u64,
    pub(crate) display: Box<str>,
    pub(crate) skeletons: NickSkeletons,
    pub(crate) since: u64,
    pub(crate) last_active: u64,
    pub(crate) freed: u64,
    pub(crate) status: Status,
}

impl Nicks {
    pub(crate) fn owner(&self, nick: &NickKey) -> Option<&Owner> {
        self.records.get(nick)?.owner.as_ref()
    }

    /// Returns the session that has the nick, or had it last.
    pub(crate) fn session(&self, nick: &NickKey) -> Option<&SessionId> {
        Some(&self.records.get(nick)?.session)
    }

    /// Returns true if its owner has no connection.
    pub(crate) fn is_detached(&self, nick: &NickKey) -> bool {
        self.records.get(nick).is_some_and(|record| record.detached)
    }

    pub(crate) fn display(&self, nick: &NickKey) -> Option<&str> {
        self.records.get(nick).map(|record| &*record.display)
    }

    pub(crate) fn status(&self, nick: &NickKey) -> Option<&Status> {
        self.records.get(nick).map(|record| &record.status)
    }

    pub(crate) fn set_status(&mut self, nick: &NickKey, status: Status) {
        if let Some(record) = self.records.get_mut(nick) {
            record.status = status;
        }
    }

    /// Ends the hold of a session that has another nick now, and the binding of the nick.
    pub(crate) fn end_hold(&mut self, nick: &NickKey, session: &SessionId) {
        let Some(record) = self.records.get_mut(nick) else { return };
        if record.owner.is_none() && record.held.as_ref() == Some(session) {
            (record.held, record.held_until) = (None, 0);
            self.drop_lookalike(nick);
            self.unbind(nick);
        }
    }

    pub(crate) fn drop_lookalike(&mut self, nick: &NickKey) {
        let Some(record) = self.records.get(nick) else { return };
        for skeleton in record.skeletons.iter() {
            if let Some(sharing) = self.skeletons.get_mut(skeleton) {
                sharing.remove(nick);
                if sharing.is_empty() {
                    self.skeletons.remove(skeleton);
                }
            }
        }
    }

    /// Indexes a nick as it is shown now, under its skeletons and no others.
    pub(crate) fn index_spelling(&mut self, nick: &Nick) {
        self.drop_lookalike(nick.key());
        if let Some(record) = self.records.get_mut(nick.key()) {
            (record.display, record.skeletons) = (nick.as_str().into(), nick.skeletons().clone());
        }
        for skeleton in nick.skeletons().iter() {
            self.skeletons.entry(skeleton.into()).or_default().insert(nick.key().clone(), nick.is_ascii());
        }
    }

    /// Returns the nicks that share a skeleton with `nick`, itself and stale ones included.
    pub(crate) fn lookalikes_of(&self, nick: &Nick) -> impl Iterator<Item = &NickKey> {
        let is_compared = move |ascii: bool| self.lookalikes.compares(nick.is_ascii(), ascii);
        let sharing = nick.skeletons().iter().filter_map(|skeleton| self.skeletons.get(skeleton)).flatten();
        sharing.filter(move |(_, ascii)| is_compared(**ascii)).map(|(other, _)| other)
    }

    /// Marks a nick as active now, if this gateway owns it.
    pub(crate) fn mark_active(&mut self, nick: &NickKey, incarnation: &Incarnation, now: u64) {
        let Some(record) = self.records.get_mut(nick) else { return };
        if record.owner.as_ref().is_some_and(|owner| owner.incarnation == *incarnation) {
            record.last_active = now;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.online.is_empty() && self.skeletons.is_empty() && self.of_users.is_empty()
    }

    /// Returns the time at which a nick without an owner was freed.
    pub(crate) fn freed_at(&self, nick: &NickKey) -> Option<u64> {
        self.records.get(nick).filter(|record| record.owner.is_none()).map(|record| record.freed)
    }

    pub(crate) fn forget(&mut self, nick: &NickKey) {
        self.drop_lookalike(nick);
        self.unbind(nick);
        self.records.remove(nick);
    }
}

/// The sessions that may claim a freed nick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreedFor {
    /// Any session may claim it.
    AnySession,
    /// It is held for its session.
    ItsSession,
}
