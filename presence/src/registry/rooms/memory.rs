//! Rooms in memory: the rules of `join.lua`, `leave.lua`, `drop_member.lua` and `end_room.lua`.

use serde::Serialize;

use crate::model::{
    Identity, LeftReason, MemberInfo, MemberLeft, NickKey, Owner, PresenceDelta, Rename, RoomKey, RoomName, RoomRules,
};
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{Leftover, MemberRecord, StoreState, now};

use super::{JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, Rooms, RuledRoom};

/// The fields of `join` and `leave` in the event log, in the order of the twins.
#[derive(Serialize)]
struct MembershipFields<'a> {
    room: &'a str,
    nick: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The seq from which a room is not quiet.
const BUSY_SEQ: u64 = 3;

impl Rooms for MemoryRegistry {
    async fn join(&self, request: JoinRequest<'_>) -> Result<JoinedAt, RegistryError> {
        self.store.lock().join(request)
    }

    async fn leave(&self, request: LeaveRequest<'_>) -> Result<bool, RegistryError> {
        Ok(self.store.lock().leave(request))
    }

    async fn set_room_rules(&self, room: &RoomName, rules: &RoomRules) -> Result<RuledRoom, RegistryError> {
        Ok(self.store.lock().set_room_rules(room, rules))
    }

    async fn end_room(&self, room: &RoomName) -> Result<bool, RegistryError> {
        Ok(self.store.lock().delete_room(room.key()))
    }
}

impl StoreState {
    pub(crate) fn join(&mut self, request: JoinRequest<'_>) -> Result<JoinedAt, RegistryError> {
        let JoinRequest { room: name, nick, owner, user, status, entry, .. } = request;
        if !self.leases.serves(&owner.incarnation) {
            return Err(RegistryError::Fenced);
        }
        if self.nicks.owner(nick.key()) != Some(owner) {
            return Err(RegistryError::Unavailable("the nickname is not the owner's any more".to_owned()));
        }
        let key = name.key();
        if entry == JoinEntry::Existing && !self.rooms.rooms.contains_key(key) {
            return Err(RegistryError::NoSuchRoom);
        }
        let replaced = match entry {
            JoinEntry::New | JoinEntry::Existing | JoinEntry::Ordered => None,
            JoinEntry::Renamed(old, old_owner) => {
                let member = self.rooms.member(key, old.key()).filter(|member| old_owner.succeeds(&member.owner));
                member.map(|member| (old.key().clone(), member.info.nick.clone()))
            }
        };
        let before = self.rooms.member(key, nick.key()).map(|member| (member.owner.clone(), member.info.clone()));
        let is_member = replaced.is_some() || before.as_ref().is_some_and(|(before, _)| owner.succeeds(before));
        if !is_member && let Err(refusal) = self.admit(&request, before.is_some()) {
            self.sessions.forget_room(&owner.session, key);
            return Err(refusal);
        }

        self.create_room(&request);
        let identity = Identity::of(user, nick.key());
        self.sessions.joined(&owner.session, key);
        let info = MemberInfo { nick: nick.as_str().to_owned(), user: user.cloned(), status: status.clone() };
        let from = replaced.as_ref().map(|(_, from)| from).filter(|from| **from != info.nick).cloned();
        // A record of the same owner stays, unless its shown spelling changes.
        if before.as_ref().is_none_or(|(before, _)| before != owner) || from.is_some() {
            if let Some((old, _)) = &replaced {
                self.unlink_member(key, old);
            }
            let same = before.filter(|(before, _)| before.session == owner.session);
            if same.is_some() {
                self.unlink_member(key, nick.key());
            } else if let Some(lost) = self
                .rooms
                .member(key, nick.key())
                .map(|member| self.leases.offline_reason(&member.owner.incarnation).left())
            {
                self.drop_member(key, nick.key(), lost);
            }
            self.add_member(key, nick.key(), owner, info.clone());
            self.announce_entry(key, info, from, same.map(|(_, info)| info));
        }
        let room = &self.rooms.rooms[key];
        Ok(JoinedAt {
            room: room.name.clone(),
            epoch: room.log.epoch().to_owned(),
            seq: room.log.seq(),
            member_count: room.members.len() as u64,
            forks: Vec::new(),
            topic: room.moderation.as_ref().and_then(|moderation| moderation.topic.clone()),
            role: self.role_of(key, &identity, now()),
        })
    }

    /// Announces an entry: a new member, a renamed session, or a changed status of one that was a member already.
    fn announce_entry(&mut self, room: &RoomKey, info: MemberInfo, from: Option<String>, same: Option<MemberInfo>) {
        let from = from.or_else(|| same.as_ref().map(|same| same.nick.clone()).filter(|from| *from != info.nick));
        if let Some(from) = from {
            let renamed = vec![Rename { from, to: info.nick }];
            return self.announce(room, &PresenceDelta { renamed, ..Default::default() });
        }
        match same {
            Some(same) if same == info => {}
            Some(_) => self.announce(room, &PresenceDelta { status: vec![info], ..Default::default() }),
            None => {
                let nick = info.nick.clone();
                self.announce(room, &PresenceDelta { joined: vec![info], ..Default::default() });
                let shown = self.rooms.rooms[room].name.as_str().to_owned();
                self.log_event("join", &MembershipFields { room: &shown, nick: &nick, reason: None });
            }
        }
    }

    pub(crate) fn leave(&mut self, request: LeaveRequest<'_>) -> bool {
        let LeaveRequest { room, nick, owner, reason, intent } = request;
        let member = self.rooms.member(room.key(), nick.key());
        let resumed = self.nicks.owner(nick.key()).is_some_and(|newer| newer != owner && newer.succeeds(owner));
        if resumed || !member.is_some_and(|member| owner.succeeds(&member.owner)) {
            return false;
        }
        let left = self.drop_member(room.key(), nick.key(), reason).into_iter().collect();
        self.announce(room.key(), &PresenceDelta { left, ..Default::default() });
        self.end_room(room.key());
        if intent == LeaveIntent::ForGood {
            self.sessions.forget_room(&owner.session, room.key());
        }
        true
    }

    /// Moves a member record to a newer claim of its session, which is about to join again itself.
    pub(crate) fn hand_over(&mut self, room: &RoomKey, nick: &NickKey, newer: Owner) {
        let Some(member) = self.rooms.get_mut(room).and_then(|room| room.members.get_mut(nick)) else { return };
        if let Some(row) = self.leases.row(&newer.incarnation) {
            row.members.insert((room.clone(), nick.clone()));
        }
        member.owner = newer;
    }

    /// Deletes a member record and logs the leave. The caller has compared the owner. Returns the leave to announce.
    pub(crate) fn drop_member(&mut self, room: &RoomKey, nick: &NickKey, reason: LeftReason) -> Option<MemberLeft> {
        let member = self.unlink_member(room, nick)?;
        let shown = self.rooms.get(room).map_or(room.as_str(), |room| room.name.as_str()).to_owned();
        let fields = MembershipFields { room: &shown, nick: &member.info.nick, reason: Some(reason.as_str()) };
        self.log_event("leave", &fields);
        Some(MemberLeft { nick: member.info.nick, reason })
    }

    /// Publishes a change of a room's members under the next version.
    pub(crate) fn announce(&mut self, room: &RoomKey, delta: &PresenceDelta) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        state.version += 1;
        let delta = serde_json::to_string(delta).expect("a delta is always JSON");
        let text = format!("P {} {}\n{delta}", state.version, delta.len());
        self.channels.publish(&self.keys.room(room).channel(), text.as_bytes());
    }

    /// Ends a room without members, otherwise does nothing: the rule of `end_room.lua`.
    pub(crate) fn end_room(&mut self, room: &RoomKey) {
        match self.rooms.spoken_in_empty(room) {
            None => {}
            Some(_) if self.rooms.is_moderated(room) => self.retire(Leftover::Room(room.clone())),
            Some(0) => self.rooms.forget(room),
            Some(seq) if seq < BUSY_SEQ => self.quiet_rooms.push(now(), room.clone()),
            Some(_) => self.retire(Leftover::Room(room.clone())),
        }
    }

    /// Returns the time since which a quiet room has been empty.
    pub(crate) fn quiet_since(&self, room: &RoomKey) -> Option<u64> {
        let is_quiet = |seq: &u64| *seq < BUSY_SEQ && !self.rooms.is_moderated(room);
        self.rooms.spoken_in_empty(room).filter(is_quiet).and_then(|_| self.rooms.emptied_at(room))
    }

    fn add_member(&mut self, room: &RoomKey, nick: &NickKey, owner: &Owner, info: MemberInfo) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        state.listed.insert((owner.session.list_score(), nick.clone()));
        state.members.insert(nick.clone(), MemberRecord { owner: owner.clone(), info });
        self.rooms.listed.insert(room.clone());
        self.rooms.of_nicks.entry(nick.clone()).or_default().insert(room.clone());
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.members.insert((room.clone(), nick.clone()));
        }
    }

    /// Removes a member record from the room and every index.
    fn unlink_member(&mut self, room: &RoomKey, nick: &NickKey) -> Option<MemberRecord> {
        let state = self.rooms.get_mut(room)?;
        let member = state.members.remove(nick)?;
        state.listed.remove(&(member.owner.session.list_score(), nick.clone()));
        if state.members.is_empty() {
            state.emptied = now();
            self.rooms.listed.remove(room);
        }
        if let Some(rooms) = self.rooms.of_nicks.get_mut(nick) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.rooms.of_nicks.remove(nick);
            }
        }
        if let Some(row) = self.leases.row(&member.owner.incarnation) {
            row.members.remove(&(room.clone(), nick.clone()));
        }
        Some(member)
    }
}
