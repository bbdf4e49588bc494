//! The rooms and member records in memory. The rules on them are in `registry/rooms/memory.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::moderation::{RoomRole, RoomTopic};
use crate::model::{Identity, MemberInfo, NickKey, Owner, RoomKey, RoomName, RoomRules};

use super::streams::MemoryStream;

/// The rooms and their indexes.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    pub(crate) rooms: HashMap<RoomKey, RoomState>,
    /// Those with members.
    pub(crate) listed: BTreeSet<RoomKey>,
    pub(crate) of_nicks: HashMap<NickKey, BTreeSet<RoomKey>>,
}

#[derive(Debug)]
pub(crate) struct RoomState {
    pub(crate) name: RoomName,
    pub(crate) log: MemoryStream,
    pub(crate) version: u64,
    pub(crate) members: BTreeMap<NickKey, MemberRecord>,
    /// The members by the list score of their session.
    pub(crate) listed: BTreeSet<(u64, NickKey)>,
    /// Unix ms when the last member left.
    pub(crate) emptied: u64,
    /// Set once the room has had a topic, role, ban or invite.
    pub(crate) moderation: Option<Box<ModerationRecord>>,
    /// The rules that the API has written.
    pub(crate) rules: Option<RoomRules>,
    /// Unix ms of the last messages of members that the slow mode makes wait.
    pub(crate) slow: HashMap<Identity, u64>,
}

/// The topic, roles, bans and invites of a room. Times are Unix ms; an end of 0 never comes.
#[derive(Debug, Default)]
pub(crate) struct ModerationRecord {
    pub(crate) topic: Option<RoomTopic>,
    /// Roles, with the end of a mute.
    pub(crate) roles: HashMap<Identity, (RoomRole, u64)>,
    /// Ends of bans.
    pub(crate) bans: HashMap<Identity, u64>,
    pub(crate) invites: HashMap<Identity, u64>,
}

#[derive(Debug)]
pub(crate) struct MemberRecord {
    pub(crate) owner: Owner,
    pub(crate) info: MemberInfo,
}

impl RoomState {
    /// An empty room.
    pub(crate) fn new(name: &RoomName) -> Self {
        Self {
            name: name.clone(),
            log: MemoryStream::default(),
            version: 0,
            members: BTreeMap::new(),
            listed: BTreeSet::new(),
            emptied: 0,
            moderation: None,
            rules: None,
            slow: HashMap::new(),
        }
    }
}

impl Rooms {
    pub(crate) fn get(&self, room: &RoomKey) -> Option<&RoomState> {
        self.rooms.get(room)
    }

    pub(crate) fn get_mut(&mut self, room: &RoomKey) -> Option<&mut RoomState> {
        self.rooms.get_mut(room)
    }

    /// Returns a room's shown name, its epoch and its newest message.
    pub(crate) fn position(&self, room: &RoomKey) -> Option<(RoomName, String, u64)> {
        self.rooms.get(room).map(|room| (room.name.clone(), room.log.epoch().to_owned(), room.log.seq()))
    }

    pub(crate) fn listed(&self) -> u64 {
        self.listed.len() as u64
    }

    pub(crate) fn member(&self, room: &RoomKey, nick: &NickKey) -> Option<&MemberRecord> {
        self.rooms.get(room)?.members.get(nick)
    }

    /// Returns the shown names of the rooms that this owner of the nick is in.
    pub(crate) fn of(&self, nick: &NickKey, owner: &Owner) -> Vec<String> {
        let rooms = self.of_nicks.get(nick).into_iter().flatten();
        let own = rooms.filter(|room| self.member(room, nick).is_some_and(|member| member.owner == *owner));
        own.filter_map(|room| Some(self.rooms.get(room)?.name.as_str().to_owned())).collect()
    }

    /// Updates a member's info if it is this owner's. Returns true if anything changed.
    pub(crate) fn update_member(&mut self, room: &RoomKey, nick: &NickKey, owner: &Owner, info: &MemberInfo) -> bool {
        let Some(member) = self.rooms.get_mut(room).and_then(|room| room.members.get_mut(nick)) else { return false };
        if member.owner != *owner || member.info == *info {
            return false;
        }
        member.info = info.clone();
        true
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.listed.is_empty() && self.of_nicks.is_empty()
    }

    /// Returns the time at which the last member of an empty room left.
    pub(crate) fn emptied_at(&self, room: &RoomKey) -> Option<u64> {
        self.rooms.get(room).filter(|room| room.members.is_empty()).map(|room| room.emptied)
    }

    /// Forgets a room without members. One that the API has created stays, without its messages.
    pub(crate) fn forget(&mut self, room: &RoomKey) {
        match self.rooms.get_mut(room) {
            Some(kept) if kept.rules.is_some() => {
                kept.log.clear();
            }
            _ => drop(self.rooms.remove(room)),
        }
    }

    /// Returns true for a room that has had a topic, role, ban or invite.
    pub(crate) fn is_moderated(&self, room: &RoomKey) -> bool {
        self.rooms.get(room).is_some_and(|room| room.moderation.is_some())
    }

    /// Returns the seq of the newest message of a room without members.
    pub(crate) fn spoken_in_empty(&self, room: &RoomKey) -> Option<u64> {
        self.rooms.get(room).filter(|room| room.members.is_empty()).map(|room| room.log.seq())
    }
}
