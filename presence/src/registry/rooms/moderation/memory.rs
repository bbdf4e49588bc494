//! Moderation of rooms in memory: the rules of `moderate.lua` and `roles.lua`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::model::moderation::{
    Moderation, ModerationAction, ModerationOrder, ModerationTarget, RemovalReason, RoomRemoval, RoomRole, RoomTopic,
};
use crate::model::{Identity, LeftReason, NickKey, Owner, PresenceDelta, RoomKey, SendRight};
use crate::registry::{MailboxOrder, MemoryRegistry, RegistryError};
use crate::store::memory::{ModerationRecord, StoreState, now};

use super::{ModerationCaller, ModerationError, ModerationRequest, RoomModeration};

/// Maximum number of entries of each list of a room.
const ENTRIES_MAX: usize = 1000;

/// Ranks of those who give orders.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum ModerationRank {
    Member,
    Moderator,
    Owner,
}

/// The person that an order is about.
struct OrderedPerson {
    identity: Identity,
    /// Its nickname as shown, if the order named one.
    nick: Option<String>,
    /// The same without the spelling.
    key: Option<NickKey>,
}

impl RoomModeration for MemoryRegistry {
    async fn moderate(&self, request: ModerationRequest<'_>) -> Result<Moderation, ModerationError> {
        self.store.lock().moderate(request)
    }
}

/// Returns true if a time has come; 0 never comes.
fn is_over(end: u64, now: u64) -> bool {
    end != 0 && end <= now
}

fn lifts(action: ModerationAction) -> bool {
    matches!(action, ModerationAction::Unban | ModerationAction::Unmute | ModerationAction::Deop)
}

impl StoreState {
    /// Returns the role of a person; `None` for a plain member, also after a mute has ended.
    pub(crate) fn role_of(&self, room: &RoomKey, identity: &Identity, now: u64) -> Option<RoomRole> {
        let (role, end) = self.rooms.get(room)?.moderation.as_ref()?.roles.get(identity)?;
        (!is_over(*end, now)).then_some(*role)
    }

    /// Returns true for a person whose ban has not ended.
    pub(crate) fn is_banned(&self, room: &RoomKey, identity: &Identity, now: u64) -> bool {
        let moderation = self.rooms.get(room).and_then(|room| room.moderation.as_ref());
        moderation.and_then(|moderation| moderation.bans.get(identity)).is_some_and(|end| !is_over(*end, now))
    }

    /// Returns the end of a member's mute, 0 for one that does not end; `None` for a member that is not muted.
    pub(crate) fn mute_of(&self, room: &RoomKey, nick: &NickKey, now: u64) -> Option<u64> {
        let room = self.rooms.get(room)?;
        let roles = &room.moderation.as_ref()?.roles;
        let member = room.members.get(nick)?;
        let (role, end) = roles.get(&Identity::of(member.info.user.as_ref(), nick))?;
        (*role == RoomRole::Muted && !is_over(*end, now)).then_some(*end)
    }

    pub(crate) fn moderate(&mut self, request: ModerationRequest<'_>) -> Result<Moderation, ModerationError> {
        let ModerationRequest { room, caller, order } = request;
        let room = room.key();
        let Some(state) = self.rooms.get(room) else {
            return Err(match caller {
                ModerationCaller::Api(_) => RegistryError::NoSuchRoom.into(),
                ModerationCaller::Member { .. } => ModerationError::NotInRoom,
            });
        };
        let has_roles = state.moderation.as_ref().is_some_and(|moderation| !moderation.roles.is_empty());
        let is_open =
            order.action == ModerationAction::Topic && !has_roles && self.rules_of(room).send != SendRight::Moderators;
        let (rank, by) = self.rank_of_caller(room, caller, is_open)?;
        if rank == ModerationRank::Member {
            return Err(ModerationError::NotModerator);
        }
        let person = match &order.target {
            Some(target) => Some(self.person(room, order.action, target)?),
            None => None,
        };
        let mut removed = BTreeSet::new();
        if let Some(person) = &person {
            self.check(room, &rank, (order, person))?;
            removed = self.removed_nicks(room, order, person)?;
        }
        let notice = self.carry_out(room, (order, person), by);
        self.log_moderation(room, &notice);
        self.announce_moderation(room, notice.clone(), &removed);
        Ok(notice)
    }

    fn rank_of_caller(
        &self,
        room: &RoomKey,
        caller: ModerationCaller<'_>,
        is_open: bool,
    ) -> Result<(ModerationRank, String), ModerationError> {
        let ModerationCaller::Member { nick, owner, may_moderate } = caller else {
            let ModerationCaller::Api(name) = caller else { return Err(ModerationError::NotInRoom) };
            return Ok((ModerationRank::Owner, name.to_owned()));
        };
        if !self.leases.serves(&owner.incarnation) {
            return Err(RegistryError::Fenced.into());
        }
        let member = self.rooms.member(room, nick.key()).filter(|member| member.owner == *owner);
        let member = member.ok_or(ModerationError::NotInRoom)?;
        let identity = Identity::of(member.info.user.as_ref(), nick.key());
        let rank = match self.role_of(room, &identity, now()) {
            Some(RoomRole::Owner) => ModerationRank::Owner,
            Some(RoomRole::Moderator) => ModerationRank::Moderator,
            _ if may_moderate || is_open => ModerationRank::Moderator,
            _ => ModerationRank::Member,
        };
        Ok((rank, member.info.nick.clone()))
    }

    /// Returns the person that an order names.
    fn person(
        &self,
        room: &RoomKey,
        action: ModerationAction,
        target: &ModerationTarget,
    ) -> Result<OrderedPerson, ModerationError> {
        let nick = match target {
            ModerationTarget::User(user) => {
                return Ok(OrderedPerson { identity: Identity::of_user(user), nick: None, key: None });
            }
            ModerationTarget::Nick(nick) => nick,
        };
        let as_guest = Identity::of_guest(nick.key());
        let is_named = lifts(action) && self.is_listed(room, action, &as_guest);
        let is_named = is_named || self.rooms.member(room, nick.key()).is_some();
        let key = if is_named { nick.key() } else { self.present_nick(nick.key()) };
        let as_guest = Identity::of_guest(key);
        let member = self.rooms.member(room, key).map(|member| (member.info.user.as_ref(), member.info.nick.as_str()));
        let known = member.or_else(|| self.nicks.display(key).map(|display| (self.nicks.user(key), display)));
        let shown = known.map_or(nick.as_str(), |(_, shown)| shown).to_owned();
        let mut identity = known.map(|(user, _)| Identity::of(user, key));
        // An entry from when the nick was a guest's can still be lifted.
        if lifts(action)
            && !identity.as_ref().is_some_and(|identity| self.is_listed(room, action, identity))
            && self.is_listed(room, action, &as_guest)
        {
            identity = Some(as_guest);
        }
        let unknown = if lifts(action) { ModerationError::NothingToLift } else { ModerationError::NoSuchUser };
        Ok(OrderedPerson { identity: identity.ok_or(unknown)?, nick: Some(shown), key: Some(key.clone()) })
    }

    /// Returns true if the list that an action changes has a person.
    fn is_listed(&self, room: &RoomKey, action: ModerationAction, identity: &Identity) -> bool {
        let Some(lists) = self.rooms.get(room).and_then(|room| room.moderation.as_ref()) else { return false };
        match action {
            ModerationAction::Ban | ModerationAction::Unban => lists.bans.contains_key(identity),
            ModerationAction::Invite => lists.invites.contains_key(identity),
            _ => lists.roles.contains_key(identity),
        }
    }

    fn check(
        &mut self,
        room: &RoomKey,
        rank: &ModerationRank,
        (order, person): (&ModerationOrder, &OrderedPerson),
    ) -> Result<(), ModerationError> {
        use ModerationAction::{Ban, Deop, Invite, Kick, Mute, Op, Unban, Unmute};
        let identity = &person.identity;
        let mut none = ModerationRecord::default();
        let lists = self.rooms.get_mut(room).and_then(|room| room.moderation.as_deref_mut()).unwrap_or(&mut none);
        let role = lists.roles.get(identity).map(|(role, _)| *role);
        let is_owner = role == Some(RoomRole::Owner);
        let makes_owner = order.action == Op && order.role == RoomRole::Owner;
        if (is_owner || makes_owner) && *rank < ModerationRank::Owner && order.action != Invite {
            return Err(ModerationError::OwnersOnly);
        }
        let owners = lists.roles.values().filter(|(role, _)| *role == RoomRole::Owner).count();
        let ends_role = matches!(order.action, Ban | Mute | Deop) || order.action == Op && !makes_owner;
        if is_owner && ends_role && owners < 2 {
            return Err(ModerationError::LastOwner);
        }
        let is_muted = role == Some(RoomRole::Muted);
        let is_nothing = match order.action {
            Unmute => !is_muted,
            Deop => role.is_none() || is_muted,
            Unban => !lists.bans.contains_key(identity),
            _ => false,
        };
        if is_nothing {
            return Err(ModerationError::NothingToLift);
        }
        let ModerationRecord { roles, bans, invites, .. } = lists;
        let is_full = match order.action {
            Ban if !bans.contains_key(identity) && bans.len() >= ENTRIES_MAX => {
                bans.retain(|_, end| !is_over(*end, now()));
                bans.len() >= ENTRIES_MAX
            }
            Mute | Op if role.is_none() && roles.len() >= ENTRIES_MAX => {
                roles.retain(|_, (_, end)| !is_over(*end, now()));
                roles.len() >= ENTRIES_MAX
            }
            Invite => !invites.contains_key(identity) && invites.len() >= ENTRIES_MAX,
            Kick | Ban | Mute | Op | Unban | Unmute | Deop | ModerationAction::Topic => false,
        };
        if is_full { Err(ModerationError::Full) } else { Ok(()) }
    }

    /// Returns the nicks whose memberships an order ends.
    fn removed_nicks(
        &self,
        room: &RoomKey,
        order: &ModerationOrder,
        person: &OrderedPerson,
    ) -> Result<BTreeSet<NickKey>, ModerationError> {
        let named = person.key.clone();
        let is_member = |nick: &NickKey| self.rooms.member(room, nick).is_some();
        match order.action {
            ModerationAction::Kick => {
                let named = named.filter(is_member).ok_or(ModerationError::NoSuchUser)?;
                Ok(BTreeSet::from([named]))
            }
            ModerationAction::Ban => {
                let members = self.rooms.get(room).into_iter().flat_map(|room| &room.members);
                let is_person = |nick: &NickKey, user: Option<_>| Identity::of(user, nick) == person.identity;
                let of_person = members.filter(|(nick, member)| is_person(nick, member.info.user.as_ref()));
                Ok(of_person.map(|(nick, _)| nick.clone()).chain(named.filter(is_member)).collect())
            }
            _ => Ok(BTreeSet::new()),
        }
    }

    /// Changes the lists, and returns the notice for the room.
    fn carry_out(
        &mut self,
        room: &RoomKey,
        (order, person): (&ModerationOrder, Option<OrderedPerson>),
        by: String,
    ) -> Moderation {
        let ModerationOrder { action, target, seconds, text, role } = order;
        let now = now();
        let has_end = matches!(action, ModerationAction::Ban | ModerationAction::Mute);
        let until = seconds.filter(|seconds| has_end && *seconds > 0).map(|seconds| now + seconds * 1000);
        let is_topic = *action == ModerationAction::Topic;
        if let Some(state) = self.rooms.get_mut(room) {
            let lists = state.moderation.get_or_insert_default();
            let end = until.unwrap_or_default();
            if is_topic {
                let topic = RoomTopic { text: text.clone(), by: by.clone(), time: now };
                lists.topic = Some(topic).filter(|topic| !topic.text.is_empty());
            }
            if let Some(identity) = person.as_ref().map(|person| person.identity.clone()) {
                match action {
                    ModerationAction::Ban => {
                        lists.roles.remove(&identity);
                        lists.invites.remove(&identity);
                        lists.bans.insert(identity, end);
                    }
                    ModerationAction::Unban => drop(lists.bans.remove(&identity)),
                    ModerationAction::Mute => drop(lists.roles.insert(identity, (RoomRole::Muted, end))),
                    ModerationAction::Op => drop(lists.roles.insert(identity, (*role, 0))),
                    ModerationAction::Unmute | ModerationAction::Deop => drop(lists.roles.remove(&identity)),
                    ModerationAction::Invite => drop(lists.invites.insert(identity, now)),
                    ModerationAction::Kick | ModerationAction::Topic => {}
                }
            }
        }
        let user = match target {
            Some(ModerationTarget::User(user)) => Some(user.clone()),
            _ => None,
        };
        Moderation {
            action: *action,
            nick: person.and_then(|person| person.nick),
            user,
            by: Some(by),
            reason: (!is_topic && !text.is_empty()).then(|| text.clone()),
            until,
            role: (*action == ModerationAction::Op).then_some(*role),
            text: is_topic.then(|| text.clone()),
            time: now,
        }
    }

    fn log_moderation(&mut self, room: &RoomKey, notice: &Moderation) {
        let shown = self.rooms.get(room).map_or(room.as_str(), |room| room.name.as_str());
        let mut data = json!(notice);
        data["room"] = json!(shown);
        // The log adds its own.
        data.as_object_mut().map(|fields| fields.remove("time"));
        self.log_event("moderation", &data);
    }

    fn announce_moderation(&mut self, room: &RoomKey, notice: Moderation, removed: &BTreeSet<NickKey>) {
        let reason = match notice.action {
            ModerationAction::Ban => RemovalReason::Banned,
            _ => RemovalReason::Kicked,
        };
        let (by, text) = (notice.by.clone(), notice.reason.clone());
        let mut delta = PresenceDelta { moderation: vec![notice], ..Default::default() };
        let mut owners = Vec::new();
        for nick in removed {
            owners.extend(self.rooms.member(room, nick).map(|member| member.owner.clone()));
            delta.left.extend(self.drop_member(room, nick, LeftReason::Kicked));
        }
        self.announce(room, &delta);
        for owner in &owners {
            self.order_removal(room, owner, (reason, by.clone(), text.clone()));
        }
        if !removed.is_empty() {
            self.end_room(room);
        }
    }

    pub(crate) fn order_removal(
        &mut self,
        room: &RoomKey,
        owner: &Owner,
        (reason, by, text): (RemovalReason, Option<String>, Option<String>),
    ) {
        self.sessions.forget_room(&owner.session, room);
        if !self.leases.serves(&owner.incarnation) {
            return;
        }
        let version = self.rooms.get(room).map_or(0, |room| room.version);
        let number = format!("{}-{version}", now());
        let removal = RoomRemoval { session: owner.session.clone(), room: room.clone(), reason, by, text, number };
        let json = serde_json::to_string(&removal).expect("a removal is always JSON");
        let frame = format!("R {} {}\n{json}", removal.session, json.len());
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.mailbox.push(MailboxOrder::Remove(removal));
        }
        self.channels.publish(&self.keys.node(&owner.incarnation).channel(), frame.as_bytes());
    }
}
