//! The rules of rooms in memory: those of `rules.lua`, of `join.lua` about new members, of `senders.lua`, and of
//! `room_typing.lua` in the gateway's backplane.

use std::time::Duration;

use crate::model::moderation::{RemovalReason, RoomRole};
use crate::model::{
    Identity, LeftReason, NickKey, Owner, PresenceDelta, RoomCreation, RoomKey, RoomName, RoomRules, SendRight,
};
use crate::registry::RegistryError;
use crate::store::memory::{AppendError, RoomState, StoreState, now};

use super::{JoinEntry, JoinRequest, RuledRoom};

impl StoreState {
    /// Returns the rules of a room: those of the API, or else those of the configuration.
    pub(crate) fn rules_of(&self, room: &RoomKey) -> RoomRules {
        let stored = self.rooms.get(room).and_then(|room| room.rules.clone());
        stored.or_else(|| self.room_policies.get().of(room).map(|policy| policy.rules().clone())).unwrap_or_default()
    }

    pub(crate) fn set_room_rules(&mut self, room: &RoomName, rules: &RoomRules) -> RuledRoom {
        let is_new = self.rooms.get(room.key()).is_none();
        let state = self.rooms.rooms.entry(room.key().clone()).or_insert_with(|| RoomState::new(room));
        state.rules = Some(rules.clone());
        RuledRoom { room: state.name.clone(), is_new }
    }

    pub(super) fn delete_room(&mut self, room: &RoomKey) -> bool {
        let Some(state) = self.rooms.get(room) else { return false };
        let members = state.members.iter().map(|(nick, member)| (nick.clone(), member.owner.clone()));
        let members: Vec<(NickKey, Owner)> = members.collect();
        let mut left = Vec::new();
        for (nick, _) in &members {
            left.extend(self.drop_member(room, nick, LeftReason::Kicked));
        }
        if !left.is_empty() {
            self.announce(room, &PresenceDelta { left, ..Default::default() });
        }
        for (_, owner) in &members {
            self.order_removal(room, owner, (RemovalReason::Kicked, None, None));
        }
        self.rooms.rooms.remove(room);
        true
    }

    /// Decides about a new member, which may replace one under its nickname. A session that returns has kept its place.
    pub(super) fn admit(&self, request: &JoinRequest<'_>, replaces_member: bool) -> Result<(), RegistryError> {
        let (key, rules) = (request.room.key(), self.rules_of(request.room.key()));
        let identity = Identity::of(request.user, request.nick.key());
        let is_ordered = request.entry == JoinEntry::Ordered;
        let Some(room) = self.rooms.get(key) else {
            let may_create = match rules.create {
                RoomCreation::Anyone => true,
                RoomCreation::Token => is_ordered || request.user.is_some(),
                RoomCreation::Api => is_ordered,
            };
            return if may_create { Ok(()) } else { Err(RegistryError::NotAllowed) };
        };
        if self.is_banned(key, &identity, now()) {
            return Err(RegistryError::Banned);
        }
        if self.sessions.has_room(&request.owner.session, key) {
            return Ok(());
        }
        let is_invited = || {
            let is_listed = room.moderation.as_ref().is_some_and(|lists| lists.invites.contains_key(&identity));
            is_listed || is_ordered || request.moderates || moderates(self.role_of(key, &identity, now()))
        };
        if rules.invite_only && !is_invited() {
            return Err(RegistryError::InviteOnly);
        }
        let members = room.members.len() as u64;
        if !replaces_member && rules.members_max.is_some_and(|most| members >= most) {
            return Err(RegistryError::RoomFull);
        }
        Ok(())
    }

    /// Creates the room of an admitted member if there is none.
    pub(super) fn create_room(&mut self, request: &JoinRequest<'_>) {
        let key = request.room.key();
        if self.rooms.get(key).is_some() {
            return;
        }
        let mut room = RoomState::new(request.room);
        if self.rules_of(key).roles && request.entry != JoinEntry::Ordered {
            let owner = Identity::of(request.user, request.nick.key());
            room.moderation.get_or_insert_default().roles.insert(owner, (RoomRole::Owner, 0));
        }
        self.rooms.rooms.insert(key.clone(), room);
    }

    /// Decides about a message of a member, which `by_token` may moderate the room. A member that the slow mode makes
    /// wait is to be noted once it is appended.
    pub(crate) fn check_sender(
        &self,
        room: &RoomKey,
        nick: &NickKey,
        by_token: bool,
    ) -> Result<Option<Identity>, AppendError> {
        let Some(state) = self.rooms.get(room) else { return Ok(None) };
        let identity = Identity::of(state.members.get(nick).and_then(|member| member.info.user.as_ref()), nick);
        if let Some(end) = self.mute_of(room, nick, now()) {
            let retry_after = (end > 0).then(|| Duration::from_millis(end.saturating_sub(now())));
            return Err(AppendError::Muted { retry_after });
        }
        let (role, rules) = (self.role_of(room, &identity, now()), self.rules_of(room));
        if by_token || moderates(role) {
            return Ok(None);
        }
        if rules.send == SendRight::Moderators {
            return Err(AppendError::NotAllowed);
        }
        let Some(pause) = rules.slow_mode_seconds.map(|seconds| seconds * 1000) else { return Ok(None) };
        let wait = state.slow.get(&identity).map_or(0, |last| (last + pause).saturating_sub(now()).min(pause));
        if wait > 0 {
            return Err(AppendError::SlowMode { retry_after: Duration::from_millis(wait) });
        }
        Ok(Some(identity))
    }

    /// Notes a message of a member that the slow mode makes wait.
    pub(crate) fn note_sender(&mut self, room: &RoomKey, identity: Identity) {
        let pause = self.rules_of(room).slow_mode_seconds.unwrap_or_default() * 1000;
        if let Some(state) = self.rooms.get_mut(room) {
            state.slow.retain(|_, last| *last + pause > now());
            state.slow.insert(identity, now());
        }
    }
}

fn moderates(role: Option<RoomRole>) -> bool {
    matches!(role, Some(RoomRole::Owner | RoomRole::Moderator))
}
