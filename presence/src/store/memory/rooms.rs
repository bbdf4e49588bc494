//! Rooms in memory: their meta, their members, and what is announced when these change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use serde_json::json;

use super::log::MemoryStream;
use super::{Leftover, State, now};
use crate::model::{
    LeftReason, MemberInfo, MemberLeft, Nick, NickKey, Owner, PresenceDelta, Rename, RoomKey, RoomName, Status,
};
use crate::registry::{Entry, Joined, Leaving, PAGE_LIMIT, Page, RegistryError, Room};

/// The rooms and their indexes.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: HashMap<RoomKey, RoomState>,
    /// Those with members.
    listed: BTreeSet<RoomKey>,
    of_nicks: HashMap<NickKey, BTreeSet<RoomKey>>,
}

#[derive(Debug)]
pub(super) struct RoomState {
    name: RoomName,
    pub(super) log: MemoryStream,
    version: u64,
    members: BTreeMap<NickKey, Member>,
    emptied: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) owner: Owner,
    info: MemberInfo,
}

impl Rooms {
    pub(super) fn get(&self, room: &RoomKey) -> Option<&RoomState> {
        self.rooms.get(room)
    }

    pub(super) fn get_mut(&mut self, room: &RoomKey) -> Option<&mut RoomState> {
        self.rooms.get_mut(room)
    }

    /// A room as it is shown, its epoch and its newest message.
    pub(super) fn position(&self, room: &RoomKey) -> Option<(RoomName, String, u64)> {
        self.rooms.get(room).map(|room| (room.name.clone(), room.log.epoch().to_owned(), room.log.seq()))
    }

    pub(super) fn listed(&self) -> u64 {
        self.listed.len() as u64
    }

    pub(super) fn member(&self, room: &RoomKey, nick: &NickKey) -> Option<&Member> {
        self.rooms.get(room)?.members.get(nick)
    }

    /// The rooms, as they are shown, that this owner of the nick is in.
    pub(super) fn of(&self, nick: &NickKey, owner: &Owner) -> Vec<String> {
        let rooms = self.of_nicks.get(nick).into_iter().flatten();
        let own = rooms.filter(|room| self.member(room, nick).is_some_and(|member| member.owner == *owner));
        own.filter_map(|room| Some(self.rooms.get(room)?.name.as_str().to_owned())).collect()
    }

    /// Changes how a member is shown, if it is this owner's. Returns whether that changed anything.
    pub(super) fn update_member(&mut self, room: &RoomKey, nick: &NickKey, owner: &Owner, info: &MemberInfo) -> bool {
        let Some(member) = self.rooms.get_mut(room).and_then(|room| room.members.get_mut(nick)) else { return false };
        if member.owner != *owner || member.info == *info {
            return false;
        }
        member.info = info.clone();
        true
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.listed.is_empty() && self.of_nicks.is_empty()
    }

    /// Forgets a room that was empty then and has been since.
    pub(super) fn forget(&mut self, room: &RoomKey, emptied: u64) {
        if self.rooms.get(room).is_some_and(|room| room.members.is_empty() && room.emptied <= emptied) {
            self.rooms.remove(room);
        }
    }
}

impl State {
    pub(crate) fn join(
        &mut self,
        name: &RoomName,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        entry: Entry<'_>,
    ) -> Result<Joined, RegistryError> {
        if !self.leases.serves(&owner.incarnation) {
            return Err(RegistryError::Fenced);
        }
        if self.nicks.owner(nick.key()) != Some(owner) {
            return Err(RegistryError::Unavailable("the nickname is not the owner's any more".to_owned()));
        }
        let key = name.key();
        let replaced = match entry {
            Entry::New => None,
            Entry::Renamed(old, old_owner) => {
                let member = self.rooms.member(key, old.key()).filter(|member| old_owner.succeeds(&member.owner));
                member.map(|member| (old.key().clone(), member.info.nick.clone()))
            }
        };
        let before = self.rooms.member(key, nick.key()).map(|member| (member.owner.clone(), member.info.clone()));

        self.rooms.rooms.entry(key.clone()).or_insert_with(|| RoomState {
            name: name.clone(),
            log: MemoryStream::default(),
            version: 0,
            members: BTreeMap::new(),
            emptied: 0,
        });
        self.sessions.joined(&owner.session, key);
        let info = MemberInfo { nick: nick.as_str().to_owned(), status: status.clone() };
        let from = replaced.as_ref().map(|(_, from)| from).filter(|from| **from != info.nick).cloned();
        // What the same owner wrote before stands, unless it is shown in another spelling now.
        if before.as_ref().is_none_or(|(before, _)| before != owner) || from.is_some() {
            if let Some((old, _)) = &replaced {
                self.unlink_member(key, old);
            }
            let same = before.filter(|(before, _)| before.session == owner.session);
            if same.is_some() {
                self.unlink_member(key, nick.key());
            } else if let Some(lost) =
                self.rooms.member(key, nick.key()).map(|member| self.leases.lost(&member.owner.incarnation))
            {
                self.drop_member(key, nick.key(), lost);
            }
            self.add_member(key, nick, owner, status);
            self.announce_entry(key, info, from, same.map(|(_, info)| info));
        }
        let room = &self.rooms.rooms[key];
        Ok(Joined {
            room: room.name.clone(),
            epoch: room.log.epoch().to_owned(),
            seq: room.log.seq(),
            member_count: room.members.len() as u64,
            forks: Vec::new(),
        })
    }

    /// Tells a room who came: a new member, a session under another name, or one that is where it was.
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
                let shown = self.rooms.rooms[room].name.as_str();
                self.events.add(now(), "join", json!({ "room": shown, "nick": nick }));
            }
        }
    }

    pub(crate) fn leave(
        &mut self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        reason: LeftReason,
        leaving: Leaving,
    ) -> bool {
        let member = self.rooms.member(room.key(), nick.key());
        let resumed = self.nicks.owner(nick.key()).is_some_and(|newer| newer != owner && newer.succeeds(owner));
        if resumed || !member.is_some_and(|member| owner.succeeds(&member.owner)) {
            return false;
        }
        let left = self.drop_member(room.key(), nick.key(), reason).into_iter().collect();
        self.announce(room.key(), &PresenceDelta { left, ..Default::default() });
        if leaving == Leaving::ForGood {
            self.sessions.left_for_good(&owner.session, room.key());
        }
        true
    }

    pub(crate) fn room(&self, room: &RoomKey) -> Option<Room> {
        let state = self.rooms.get(room)?;
        Some(Room {
            room: state.name.as_str().to_owned(),
            member_count: state.members.len() as u64,
            seq: state.log.seq(),
        })
    }

    pub(crate) fn rooms(&self, cursor: Option<&str>, limit: usize) -> Page<Room> {
        let (keys, next_cursor) = page(&self.rooms.listed, cursor.map(RoomKey::from_store), limit);
        let items = keys.into_iter().filter_map(|room| self.room(room)).collect();
        Page { items, next_cursor: next_cursor.map(|room| room.as_str().to_owned()) }
    }

    pub(crate) fn members(&self, room: &RoomKey, cursor: Option<&str>, limit: usize) -> Page<MemberInfo> {
        let Some(state) = self.rooms.get(room) else { return Page { items: Vec::new(), next_cursor: None } };
        let limit = limit.clamp(1, PAGE_LIMIT);
        let from = cursor.map_or(Bound::Unbounded, |cursor| Bound::Excluded(NickKey::from_store(cursor)));
        let mut rows = state.members.range((from, Bound::Unbounded));
        let page: Vec<(&NickKey, &Member)> = rows.by_ref().take(limit).collect();
        let next_cursor = rows.next().and(page.last()).map(|(nick, _)| nick.as_str().to_owned());
        let live = page.into_iter().filter(|(_, member)| self.leases.shows(&member.owner.incarnation));
        Page { items: live.map(|(_, member)| member.info.clone()).collect(), next_cursor }
    }

    /// Gives a member record to a newer claim of its session, which is about to join again itself.
    pub(super) fn hand_over(&mut self, room: &RoomKey, nick: &NickKey, newer: Owner) {
        let Some(member) = self.rooms.get_mut(room).and_then(|room| room.members.get_mut(nick)) else { return };
        if let Some(row) = self.leases.row(&newer.incarnation) {
            row.members.insert((room.clone(), nick.clone()));
        }
        member.owner = newer;
    }

    /// Deletes a member record, whoever owns it: the caller has compared. Logs the leave and returns what to announce.
    pub(super) fn drop_member(&mut self, room: &RoomKey, nick: &NickKey, reason: LeftReason) -> Option<MemberLeft> {
        let member = self.unlink_member(room, nick)?;
        let shown = self.rooms.get(room).map_or(room.as_str(), |room| room.name.as_str());
        let data = json!({ "room": shown, "nick": member.info.nick, "reason": reason.as_str() });
        self.events.add(now(), "leave", data);
        Some(MemberLeft { nick: member.info.nick, reason })
    }

    /// Tells a room one change of its members, under the next version.
    pub(super) fn announce(&mut self, room: &RoomKey, delta: &PresenceDelta) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        state.version += 1;
        let delta = serde_json::to_string(delta).expect("a delta is always JSON");
        let text = format!("P {} {}\n{delta}", state.version, delta.len());
        self.channels.publish(&self.keys.room_channel(room), text.as_bytes());
    }

    fn add_member(&mut self, room: &RoomKey, nick: &Nick, owner: &Owner, status: &Status) {
        let Some(state) = self.rooms.get_mut(room) else { return };
        let info = MemberInfo { nick: nick.as_str().to_owned(), status: status.clone() };
        state.members.insert(nick.key().clone(), Member { owner: owner.clone(), info });
        self.rooms.listed.insert(room.clone());
        self.rooms.of_nicks.entry(nick.key().clone()).or_default().insert(room.clone());
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.members.insert((room.clone(), nick.key().clone()));
        }
    }

    /// Takes a member record out of the room and every index.
    fn unlink_member(&mut self, room: &RoomKey, nick: &NickKey) -> Option<Member> {
        let state = self.rooms.get_mut(room)?;
        let member = state.members.remove(nick)?;
        if state.members.is_empty() {
            state.emptied = now();
            self.rooms.listed.remove(room);
            self.retire(Leftover::Room(room.clone()));
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

/// One page of a set, and its last key when there is more behind it.
pub(super) fn page<K: Ord>(set: &BTreeSet<K>, after: Option<K>, limit: usize) -> (Vec<&K>, Option<&K>) {
    let limit = limit.clamp(1, PAGE_LIMIT);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut keys = set.range((from, Bound::Unbounded));
    let page: Vec<&K> = keys.by_ref().take(limit).collect();
    let next = keys.next().and(page.last().copied());
    (page, next)
}
