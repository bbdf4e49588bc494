//! Nicknames in memory: the rules of `claim.lua`, `assign_nick.lua`, `take_over.lua`, `release.lua`, `status.lua`,
//! `kick.lua`, `order_entry.lua`, `present_nick.lua`, `free_nick.lua` and `end_session.lua`.

use std::time::Duration;

use serde_json::json;

use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, OfflineReason, Owner, PresenceDelta, RoomEntryOrder,
    RoomKey, RoomName, SessionId, Status, UserId,
};
use crate::registry::redis::json as to_json;
use crate::registry::{MailboxOrder, MemoryRegistry, RegistryError};
use crate::store::memory::{FreedFor, Leftover, NickRecord, StoreState, now};

use super::{ClaimError, ClaimRequest, Names, ReleaseCause};

impl Names for MemoryRegistry {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<(Fence, StreamEnd), ClaimError> {
        self.store.lock().begin(request)
    }

    async fn release(&self, nick: &Nick, owner: &Owner, cause: ReleaseCause<'_>) -> Result<bool, RegistryError> {
        Ok(self.store.lock().release(nick, owner, cause))
    }

    async fn set_status(
        &self,
        nick: &NickKey,
        owner: &Owner,
        member: &MemberInfo,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        self.store.lock().set_status(nick, owner, member, rooms)
    }

    async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError> {
        Ok(self.store.lock().kick(nick))
    }

    async fn order_entry(&self, nick: &NickKey, room: &RoomName) -> Result<bool, RegistryError> {
        Ok(self.store.lock().order_entry(nick, room))
    }

    async fn renamed(&self, nick: &NickKey) -> Result<Option<Nick>, RegistryError> {
        let state = self.store.lock();
        let present = Some(state.present_nick(nick)).filter(|present| *present != nick);
        Ok(present.and_then(|present| Nick::parse(state.nicks.display(present)?).ok()))
    }
}

impl StoreState {
    pub(crate) fn begin(&mut self, request: ClaimRequest<'_>) -> Result<(Fence, StreamEnd), ClaimError> {
        Ok((self.claim(request)?, self.inboxes.end(request.session)))
    }

    pub(crate) fn claim(&mut self, request: ClaimRequest<'_>) -> Result<Fence, ClaimError> {
        let ClaimRequest { incarnation, session, nick, token, user } = request;
        if !self.leases.serves(incarnation) {
            return Err(RegistryError::Fenced.into());
        }
        if !self.sessions.may_claim(session, token) {
            return Err(RegistryError::Unavailable("the session was resumed since".to_owned()).into());
        }
        let is_claimant = |owner: &Owner| owner.incarnation == *incarnation && owner.session == *session;
        if let Some(fence) = self.nicks.owner(nick.key()).filter(|owner| is_claimant(owner)).map(|owner| owner.fence) {
            // The same nick in another spelling is the same claim, unless it looks like another nick in that spelling.
            if self.nicks.display(nick.key()) != Some(nick.as_str()) {
                self.check_available(nick, (session, user), is_claimant)?;
                self.nicks.index_spelling(nick);
            }
            return Ok(fence);
        }
        self.check_available(nick, (session, user), is_claimant)?;
        let (fence, stays) = self.assign(incarnation, session, (nick, user));
        if !stays {
            self.log_online(nick);
        }
        self.sessions.claimed(session, nick.key(), token);
        Ok(fence)
    }

    /// Checks that no other session keeps a nick or a look-alike of it, by the rule in `names/mod.rs`. A nick that is
    /// bound to a user is available to this user, and to no other one.
    pub(crate) fn check_available(
        &self,
        nick: &Nick,
        (session, user): (&SessionId, Option<&UserId>),
        is_own: impl Fn(&Owner) -> bool,
    ) -> Result<(), ClaimError> {
        let bound = self.nicks.user(nick.key());
        if bound.is_some_and(|bound| Some(bound) != user) {
            return Err(ClaimError::InUse { retry_after: None });
        }
        if bound.is_none()
            && let Some(retry_after) = self.hold_by_other(nick.key(), session, &is_own)
        {
            return Err(ClaimError::InUse { retry_after });
        }
        // Stale entries do not count.
        let mut lookalikes = self.nicks.lookalikes_of(nick);
        let conflicts = |other: &NickKey| other != nick.key() && self.hold_by_other(other, session, &is_own).is_some();
        if lookalikes.any(conflicts) { Err(ClaimError::Confusable) } else { Ok(()) }
    }

    /// Returns the remaining hold if another session keeps the nick; `Some(None)` without a remaining hold, for example
    /// while that session is connected; `None` if the nick is available.
    fn hold_by_other(
        &self,
        nick: &NickKey,
        session: &SessionId,
        is_own: &impl Fn(&Owner) -> bool,
    ) -> Option<Option<Duration>> {
        let record = self.nicks.records.get(nick)?;
        let left = record.held_until.checked_sub(now()).filter(|left| *left > 0).map(Duration::from_millis);
        match (&record.owner, &record.held) {
            (Some(owner), _) if is_own(owner) => None,
            (Some(owner), _) if self.leases.serves(&owner.incarnation) => Some(left.filter(|_| record.detached)),
            (Some(owner), _) if !self.leases.is_drained(&owner.incarnation) => None,
            (None, Some(held)) if held == session => None,
            (Some(_), _) | (None, Some(_)) => left.map(Some),
            (None, None) => None,
        }
    }

    /// Returns true if a session still owns its nick: the lease serves, or it is drained and the hold still runs.
    pub(crate) fn is_still_owned_by(&self, nick: &NickKey, session: &SessionId) -> bool {
        let Some(record) = self.nicks.records.get(nick) else { return false };
        let Some(owner) = record.owner.as_ref().filter(|owner| owner.session == *session) else { return false };
        let held = self.leases.is_drained(&owner.incarnation) && record.held_until > now();
        held || self.leases.serves(&owner.incarnation)
    }

    /// Assigns a nick to a session that did not have it. The caller has checked that no other session keeps it, or that
    /// it is bound to the user: then it is taken over. Returns the fence, and true if the nick stays online.
    pub(crate) fn assign(
        &mut self,
        incarnation: &Incarnation,
        session: &SessionId,
        (nick, user): (&Nick, Option<&UserId>),
    ) -> (Fence, bool) {
        let mut stays = false;
        if let Some(owner) = self.nicks.owner(nick.key()).cloned() {
            let reason = self.leases.offline_reason(&owner.incarnation);
            if self.nicks.user(nick.key()).is_some() {
                stays = self.leases.shows(&owner.incarnation);
                self.order_end(&owner);
                self.end_memberships(nick.key(), &owner, reason.left());
            }
            self.free_nick(nick.key(), FreedFor::AnySession);
            if !stays {
                self.log_offline(nick.key(), reason);
            }
        }
        // A nick that is bound is bound to this user.
        self.nicks.unbind(nick.key());
        self.nicks.fence += 1;
        let fence = Fence(self.nicks.fence);
        let now = now();
        let record = NickRecord {
            owner: Some(Owner { incarnation: incarnation.clone(), session: session.clone(), fence }),
            user: None,
            session: session.clone(),
            detached: false,
            held: None,
            held_until: 0,
            display: nick.as_str().into(),
            skeletons: nick.skeletons().clone(),
            since: now,
            last_active: now,
            freed: 0,
            status: Status::default(),
        };
        self.nicks.drop_lookalike(nick.key());
        self.nicks.records.insert(nick.key().clone(), record);
        self.nicks.online.insert((session.list_score(), nick.key().clone()));
        self.nicks.index_spelling(nick);
        if let Some(row) = self.leases.row(incarnation) {
            row.nicks.insert(nick.key().clone());
        }
        if let Some(user) = user {
            self.nicks.bind(nick.key(), user);
        }
        (fence, stays)
    }

    /// Orders the gateway of an older claim to end its connection: at once over its channel, and by its mailbox in case
    /// the channel message is lost.
    pub(crate) fn order_end(&mut self, Owner { incarnation, session, fence }: &Owner) {
        if !self.leases.serves(incarnation) {
            return;
        }
        if let Some(row) = self.leases.row(incarnation) {
            row.mailbox.push(MailboxOrder::Taken { session: session.clone(), fence: *fence });
        }
        let channel = self.keys.node(incarnation).channel();
        self.channels.publish(&channel, format!("T {session} {}", fence.0).as_bytes());
    }

    /// Ends the memberships that the session of an older claim has under a nick, and announces each.
    fn end_memberships(&mut self, nick: &NickKey, owner: &Owner, reason: LeftReason) {
        let rooms: Vec<RoomKey> = self.rooms.of_nicks.get(nick).into_iter().flatten().cloned().collect();
        for room in rooms {
            if self.rooms.member(&room, nick).is_some_and(|member| member.owner.session == owner.session) {
                let left = self.drop_member(&room, nick, reason).into_iter().collect();
                self.announce(&room, &PresenceDelta { left, ..Default::default() });
                self.end_room(&room);
            }
        }
    }

    /// Moves a nick to this gateway under a new claim of the session that has it. Announces nothing.
    pub(crate) fn reassign(&mut self, incarnation: &Incarnation, (nick, user): (&Nick, Option<&UserId>)) -> Fence {
        self.nicks.fence += 1;
        let fence = Fence(self.nicks.fence);
        if let Some(record) = self.nicks.records.get_mut(nick.key())
            && let Some(owner) = &mut record.owner
        {
            if let Some(row) = self.leases.row(&owner.incarnation) {
                row.nicks.remove(nick.key());
            }
            *owner = Owner { incarnation: incarnation.clone(), session: owner.session.clone(), fence };
            (record.detached, record.held_until) = (false, 0);
            record.last_active = now();
        }
        self.nicks.index_spelling(nick);
        if let Some(row) = self.leases.row(incarnation) {
            row.nicks.insert(nick.key().clone());
        }
        if let Some(user) = user {
            self.nicks.bind(nick.key(), user);
        }
        fence
    }

    pub(crate) fn release(&mut self, nick: &Nick, owner: &Owner, cause: ReleaseCause<'_>) -> bool {
        let is_final = matches!(cause, ReleaseCause::Offline(reason) if reason.is_final());
        if self.nicks.owner(nick.key()) != Some(owner) {
            if is_final {
                self.pursue(&owner.session);
            }
            return false;
        }
        match cause {
            ReleaseCause::RenamedTo(new) => {
                // Another spelling of the same nick is still the same claim. A user that has chosen another nick keeps
                // no claim to this one.
                if new.key() != nick.key() {
                    self.free_nick(nick.key(), FreedFor::AnySession);
                    self.nicks.unbind(nick.key());
                }
                self.log_event("rename", &json!({ "from": nick.as_str(), "to": new.as_str() }));
            }
            ReleaseCause::Offline(reason) => {
                self.free_nick(nick.key(), FreedFor::AnySession);
                self.log_offline(nick.key(), reason);
            }
        }
        if is_final {
            self.sessions.revoke_tokens(&owner.session);
        }
        true
    }

    /// Orders the gateway to which a session has moved to end it.
    pub(crate) fn pursue(&mut self, session: &SessionId) {
        let Some(nick) = self.sessions.nick(session) else { return };
        if let Some(owner) = self.nicks.owner(nick).filter(|owner| owner.session == *session).cloned() {
            self.order_kick(&owner);
        }
    }

    pub(crate) fn set_status(
        &mut self,
        nick: &NickKey,
        owner: &Owner,
        member: &MemberInfo,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        if !self.leases.serves(&owner.incarnation) {
            return Err(RegistryError::Fenced);
        }
        let Some(record) = self.nicks.records.get_mut(nick).filter(|record| record.owner.as_ref() == Some(owner))
        else {
            return Ok(false);
        };
        record.status = member.status.clone();
        for room in rooms {
            if self.rooms.update_member(room, nick, owner, member) {
                self.announce(room, &PresenceDelta { status: vec![member.clone()], ..Default::default() });
            }
        }
        Ok(true)
    }

    pub(crate) fn kick(&mut self, nick: &NickKey) -> bool {
        let Some(owner) = self.nicks.owner(self.present_nick(nick)).cloned() else { return false };
        self.order_kick(&owner);
        self.sessions.revoke_tokens(&owner.session);
        true
    }

    /// Orders the gateway of a claim to end its session, if that gateway serves.
    fn order_kick(&mut self, owner: &Owner) {
        if !self.leases.serves(&owner.incarnation) {
            return;
        }
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.mailbox.push(MailboxOrder::Kick(owner.session.clone()));
        }
        let channel = self.keys.node(&owner.incarnation).channel();
        self.channels.publish(&channel, format!("K {}", owner.session).as_bytes());
    }

    pub(crate) fn order_entry(&mut self, nick: &NickKey, room: &RoomName) -> bool {
        let nick = self.present_nick(nick);
        let owner = self.live_owner(nick).filter(|_| !self.nicks.is_detached(nick));
        let Some(owner) = owner.cloned() else { return false };
        let (room, number) = (room.clone(), uuid::Uuid::now_v7().to_string());
        let order = RoomEntryOrder { session: owner.session.clone(), room, number };
        let text = to_json(&order);
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.mailbox.push(MailboxOrder::Enter(order));
        }
        let channel = self.keys.node(&owner.incarnation).channel();
        self.channels.publish(&channel, format!("J {} {}\n{text}", owner.session, text.len()).as_bytes());
        true
    }

    /// Returns the present nick of the session that had this one last, if it is online; otherwise the nick itself.
    pub(crate) fn present_nick<'a>(&'a self, nick: &'a NickKey) -> &'a NickKey {
        let Some(session) = self.nicks.session(nick) else { return nick };
        let is_owned = |present: &&NickKey| self.nicks.owner(present).is_some_and(|owner| owner.session == *session);
        self.sessions.nick(session).filter(is_owned).unwrap_or(nick)
    }

    /// Returns the owner of a nick if its lease is live.
    pub(crate) fn live_owner(&self, nick: &NickKey) -> Option<&Owner> {
        self.nicks.owner(nick).filter(|owner| self.leases.serves(&owner.incarnation))
    }

    /// Frees a nick. The caller has compared the owner. The record stays for the retention time.
    pub(crate) fn free_nick(&mut self, nick: &NickKey, freed: FreedFor) {
        let Some(record) = self.nicks.records.get_mut(nick) else { return };
        let Some(owner) = record.owner.take() else { return };
        record.freed = now();
        record.detached = false;
        record.status = Status::default();
        match freed {
            FreedFor::ItsSession => record.held = Some(owner.session.clone()),
            FreedFor::AnySession => {
                record.held_until = 0;
                self.nicks.drop_lookalike(nick);
            }
        }
        self.nicks.online.remove(&(owner.session.list_score(), nick.clone()));
        if let Some(row) = self.leases.row(&owner.incarnation) {
            row.nicks.remove(nick);
        }
        self.nicks.free_user_nick(nick);
        self.retire(Leftover::Nick(nick.clone()));
        // After a rename the session continues under its other nick.
        if self.sessions.uses_nick(&owner.session, nick) {
            self.sessions.ended(&owner.session, now());
            self.retire(Leftover::Session(owner.session));
        }
    }

    pub(crate) fn log_online(&mut self, nick: &Nick) {
        self.log_event("online", &json!({ "nick": nick.as_str() }));
    }

    pub(crate) fn log_offline(&mut self, nick: &NickKey, reason: OfflineReason) {
        let display = self.nicks.records.get(nick).map_or(nick.as_str(), |record| &record.display);
        self.log_event("offline", &json!({ "nick": display, "reason": reason.as_str() }));
    }
}
