//! Nicknames in memory: who has which, who had it last, and what looks like what.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;

use super::{Leftover, State, now, rooms};
use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, Owner, PresenceDelta, RoomKey, SessionId, Status,
};
use crate::registry::{ClaimError, Command, Page, RegistryError, User};

/// The nick records and their indexes.
#[derive(Debug, Default)]
pub(super) struct Nicks {
    records: HashMap<NickKey, Record>,
    online: BTreeSet<NickKey>,
    /// Skeleton -> the owned nicks that share it, and whether each is shown in plain ASCII.
    skeletons: HashMap<Box<str>, BTreeMap<NickKey, bool>>,
    /// The nick that a session goes by; after a rename the new one.
    sessions: HashMap<SessionId, NickKey>,
    fence: u64,
}

#[derive(Debug)]
struct Record {
    owner: Option<Owner>,
    /// Of the newest owner.
    session: SessionId,
    display: Box<str>,
    skeleton: Box<str>,
    since: u64,
    last_active: u64,
    freed: u64,
    status: Status,
}

impl Nicks {
    pub(super) fn owner(&self, nick: &NickKey) -> Option<&Owner> {
        self.records.get(nick)?.owner.as_ref()
    }

    /// The session that has the nick, or had it last.
    pub(super) fn session(&self, nick: &NickKey) -> Option<&SessionId> {
        Some(&self.records.get(nick)?.session)
    }

    /// The nick that a session goes by.
    pub(super) fn nick_of(&self, session: &SessionId) -> Option<&NickKey> {
        self.sessions.get(session)
    }

    pub(super) fn has_nick(&self, session: &SessionId) -> bool {
        self.sessions.contains_key(session)
    }

    /// Marks a nick as active now, if this gateway owns it.
    pub(super) fn stamp(&mut self, nick: &NickKey, incarnation: &Incarnation, now: u64) {
        let Some(record) = self.records.get_mut(nick) else { return };
        if record.owner.as_ref().is_some_and(|owner| owner.incarnation == *incarnation) {
            record.last_active = now;
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.online.is_empty() && self.skeletons.is_empty() && self.sessions.is_empty()
    }

    /// Forgets a nick that was freed then and not taken since.
    pub(super) fn forget(&mut self, nick: &NickKey, freed: u64) {
        if self.records.get(nick).is_some_and(|record| record.owner.is_none() && record.freed <= freed) {
            self.records.remove(nick);
        }
    }
}

impl State {
    pub(crate) fn claim(
        &mut self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
    ) -> Result<Fence, ClaimError> {
        if !self.leases.serves(incarnation) {
            return Err(RegistryError::Fenced.into());
        }
        let is_claimant = |owner: &Owner| owner.incarnation == *incarnation && owner.session == *session;
        if let Some(record) = self.nicks.records.get_mut(nick.key())
            && let Some(owner) = record.owner.as_ref()
        {
            if is_claimant(owner) {
                // The same nick in another spelling is the same claim.
                record.display = nick.as_str().into();
                let fence = owner.fence;
                self.note_skeleton(nick);
                return Ok(fence);
            }
            if self.leases.serves(&owner.incarnation) {
                return Err(ClaimError::InUse);
            }
        }
        // Two ASCII names never conflict by their skeletons; left-overs of dead owners do not count.
        let lookalikes = self.nicks.skeletons.get(nick.skeleton()).into_iter().flatten();
        for (other, ascii) in lookalikes {
            let conflicts = other != nick.key() && !(nick.is_ascii() && *ascii);
            let owner = self.nicks.owner(other).filter(|owner| conflicts && !is_claimant(owner));
            if owner.is_some_and(|owner| self.leases.serves(&owner.incarnation)) {
                return Err(ClaimError::Confusable);
            }
        }
        if self.nicks.owner(nick.key()).is_some() {
            self.free_nick(nick.key());
            self.log_offline(nick.key(), LeftReason::GatewayLost);
        }

        self.nicks.fence += 1;
        let fence = Fence(self.nicks.fence);
        let now = now();
        let record = Record {
            owner: Some(Owner { incarnation: incarnation.clone(), session: session.clone(), fence }),
            session: session.clone(),
            display: nick.as_str().into(),
            skeleton: nick.skeleton().into(),
            since: now,
            last_active: now,
            freed: 0,
            status: Status::default(),
        };
        self.nicks.records.insert(nick.key().clone(), record);
        self.nicks.online.insert(nick.key().clone());
        self.nicks.sessions.insert(session.clone(), nick.key().clone());
        self.note_skeleton(nick);
        if let Some(row) = self.leases.row(incarnation) {
            row.nicks.insert(nick.key().clone());
        }
        self.events.add(now, "online", json!({ "nick": nick.as_str() }));
        Ok(fence)
    }

    pub(crate) fn release(&mut self, nick: &Nick, owner: &Owner, renamed_to: Option<&Nick>) -> bool {
        if self.nicks.owner(nick.key()) != Some(owner) {
            return false;
        }
        // Another spelling of the same nick is still the same claim.
        if renamed_to.is_none_or(|new| new.key() != nick.key()) {
            self.free_nick(nick.key());
        }
        match renamed_to {
            Some(new) => self.events.add(now(), "rename", json!({ "from": nick.as_str(), "to": new.as_str() })),
            None => self.log_offline(nick.key(), LeftReason::Closed),
        }
        true
    }

    pub(crate) fn set_status(
        &mut self,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        if !self.leases.serves(&owner.incarnation) {
            return Err(RegistryError::Fenced);
        }
        let Some(record) = self.nicks.records.get_mut(nick.key()).filter(|record| record.owner.as_ref() == Some(owner))
        else {
            return Ok(false);
        };
        record.status = status.clone();
        let info = MemberInfo { nick: nick.as_str().to_owned(), status: status.clone() };
        for room in rooms {
            if self.rooms.update_member(room, nick.key(), owner, &info) {
                self.announce(room, &PresenceDelta { status: vec![info.clone()], ..Default::default() });
            }
        }
        Ok(true)
    }

    pub(crate) fn kick(&mut self, nick: &NickKey) -> bool {
        let Some(owner) = self.live_owner(nick).cloned() else { return false };
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.mailbox.push(Command::Kick(owner.session.clone()));
        }
        let channel = self.keys.gateway_channel(&owner.incarnation);
        self.channels.publish(&channel, format!("K {}", owner.session).as_bytes());
        true
    }

    pub(crate) fn user(&self, nick: &NickKey) -> Option<User> {
        let record = self.nicks.records.get(nick)?;
        let online = self.live_owner(nick);
        Some(User {
            nick: record.display.to_string(),
            online: online.is_some(),
            status: online.map(|_| record.status.clone()).unwrap_or_default(),
            online_since: online.map(|_| record.since),
            last_active: record.last_active,
            rooms: online.map(|owner| self.rooms.of(nick, owner)).unwrap_or_default(),
        })
    }

    pub(crate) fn users(&self, cursor: Option<&str>, limit: usize) -> Page<User> {
        let (keys, next_cursor) = rooms::page(&self.nicks.online, cursor.map(NickKey::from_store), limit);
        let items = keys.into_iter().filter_map(|nick| self.user(nick)).filter(|user| user.online).collect();
        Page { items, next_cursor: next_cursor.map(|nick| nick.as_str().to_owned()) }
    }

    /// The owner of a nick, when its lease is live.
    pub(super) fn live_owner(&self, nick: &NickKey) -> Option<&Owner> {
        self.nicks.owner(nick).filter(|owner| self.leases.serves(&owner.incarnation))
    }

    /// Frees a nick, whoever owns it: the caller has compared. What was shown of it stays for a while.
    pub(super) fn free_nick(&mut self, nick: &NickKey) {
        let Some(record) = self.nicks.records.get_mut(nick) else { return };
        let Some(owner) = record.owner.take() else { return };
        record.freed = now();
        record.status = Status::default();
        self.nicks.online.remove(nick);
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.nicks.remove(nick);
        }
        if let Some(sharing) = self.nicks.skeletons.get_mut(&record.skeleton) {
            sharing.remove(nick);
            if sharing.is_empty() {
                self.nicks.skeletons.remove(&record.skeleton);
            }
        }
        self.retire(Leftover::Nick(nick.clone()));
        // After a rename the session lives on under its other nick.
        if self.nicks.sessions.get(&owner.session) == Some(nick) {
            self.nicks.sessions.remove(&owner.session);
            self.retire(Leftover::Session(owner.session));
        }
    }

    pub(super) fn log_offline(&mut self, nick: &NickKey, reason: LeftReason) {
        let display = self.nicks.records.get(nick).map_or(nick.as_str(), |record| &record.display);
        self.events.add(now(), "offline", json!({ "nick": display, "reason": reason.as_str() }));
    }

    fn note_skeleton(&mut self, nick: &Nick) {
        let sharing = self.nicks.skeletons.entry(nick.skeleton().into()).or_default();
        sharing.insert(nick.key().clone(), nick.is_ascii());
    }
}
