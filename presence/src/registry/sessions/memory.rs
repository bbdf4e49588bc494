//! Sessions in memory: the rules of `resume.lua`, `confirm.lua`, `detach.lua`, `expire_detached.lua` and `read.lua`.

use serde_json::json;

use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, Nick, NickKey, OfflineReason, Owner, RoomKey, RoomName, SessionId, Status, TokenHash,
};
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{FreedFor, StoreState, now};

use super::{
    DetachOutcome, HoldTerms, InboxState, RestoredMembership, ResumeError, ResumeTicket, ResumedSession, Sessions,
};

impl Sessions for MemoryRegistry {
    async fn resume(
        &self,
        incarnation: &Incarnation,
        ticket: &ResumeTicket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<ResumedSession, ResumeError> {
        self.store.lock().resume(incarnation, ticket, nick, next)
    }

    async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError> {
        Ok(self.store.lock().confirm(session, token))
    }

    async fn detach(&self, nick: &Nick, owner: &Owner, terms: HoldTerms) -> Result<DetachOutcome, RegistryError> {
        Ok(self.store.lock().detach(nick, owner, terms))
    }

    async fn expire_detached(&self, nick: &Nick, owner: &Owner, reason: OfflineReason) -> Result<bool, RegistryError> {
        Ok(self.store.lock().expire_detached(nick, owner, reason))
    }

    async fn read(&self, session: &SessionId, seq: u64) -> Result<Option<u64>, RegistryError> {
        Ok(self.store.lock().read(session, seq))
    }
}

impl StoreState {
    /// Deletes a session and its inbox.
    pub(crate) fn forget_session(&mut self, session: &SessionId) {
        self.sessions.0.remove(session);
        self.inboxes.forget(session);
    }

    pub(crate) fn resume(
        &mut self,
        incarnation: &Incarnation,
        ticket: &ResumeTicket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<ResumedSession, ResumeError> {
        if !self.leases.serves(incarnation) {
            return Err(ResumeError::Claim(RegistryError::Fenced.into()));
        }
        let (session, user) = (&ticket.session, ticket.user.as_ref());
        let known = self.sessions.0.get(session).ok_or(ResumeError::UnknownToken)?;
        let was_previous = known.previous.as_ref() == Some(&ticket.presented);
        if known.token != ticket.presented && !was_previous {
            return Err(ResumeError::UnknownToken);
        }
        let own = known.nick.clone();
        let is_own = |owner: &Owner| owner.session == *session;
        if was_previous
            && known.token == *next
            && let Some(owner) = self.nicks.owner(nick.key())
            && owner.incarnation == *incarnation
            && is_own(owner)
        {
            let (fence, former) = (owner.fence, known.former.clone());
            return Ok(self.resumed(session, nick, fence, former));
        }
        // Another spelling of the session's own nick may look like another nick.
        let is_respelled = self.nicks.display(nick.key()) != Some(nick.as_str());
        if is_respelled || !self.is_still_owned_by(nick.key(), session) {
            self.check_available(nick, (session, user), is_own)?;
        }

        let former = self.nicks.owner(&own).cloned().filter(is_own);
        let former = former.and_then(|owner| Some((Nick::parse(self.nicks.display(&own)?).ok()?, owner)));
        self.order_taken(&own, session);
        let status = self.nicks.status(&own).filter(|_| former.is_some()).cloned();
        let moves = own != *nick.key();
        if moves {
            self.order_taken(nick.key(), session);
        }
        let known_here = self.nicks.owner(nick.key()).is_some_and(is_own);
        let fence = if known_here {
            self.reassign(incarnation, (nick, user))
        } else {
            let (fence, stays) = self.assign(incarnation, session, (nick, user));
            if former.is_none() && !stays {
                self.log_online(nick);
            }
            fence
        };
        let known = self.sessions.0.get_mut(session).ok_or(ResumeError::UnknownToken)?;
        if !was_previous {
            known.previous = Some(ticket.presented.clone());
        }
        known.token = next.clone();
        known.former = former.clone();
        known.nick = nick.key().clone();
        known.ended = None;
        if moves {
            if let Some(status) = status {
                self.nicks.set_status(nick.key(), status);
            }
            match &former {
                Some((old, _)) => {
                    self.free_nick(&own, FreedFor::AnySession);
                    self.nicks.unbind(&own);
                    self.log_event("rename", &json!({ "from": old.as_str(), "to": nick.as_str() }));
                }
                None => self.nicks.end_hold(&own, session),
            }
        }
        Ok(self.resumed(session, nick, fence, former))
    }

    pub(crate) fn confirm(&mut self, session: &SessionId, token: &TokenHash) -> bool {
        let Some(known) = self.sessions.0.get_mut(session).filter(|known| known.token == *token) else { return false };
        (known.previous, known.former) = (None, None);
        true
    }

    pub(crate) fn read(&mut self, session: &SessionId, seq: u64) -> Option<u64> {
        let top = self.inboxes.end(session).seq;
        let known = self.sessions.0.get_mut(session)?;
        known.read = known.read.max(seq.min(top));
        Some(known.read)
    }

    /// Orders the gateway of a nick's owner to end that connection, if it is this session's.
    fn order_taken(&mut self, nick: &NickKey, session: &SessionId) {
        if let Some(owner) = self.nicks.owner(nick).filter(|owner| owner.session == *session).cloned() {
            self.order_end(&owner);
        }
    }

    fn resumed(
        &mut self,
        session: &SessionId,
        nick: &Nick,
        fence: Fence,
        former: Option<(Nick, Owner)>,
    ) -> ResumedSession {
        let StreamEnd { epoch, seq, .. } = self.inboxes.end(session);
        let known = self.sessions.0.get(session);
        let rooms = known.into_iter().flat_map(|known| &known.rooms);
        let restored = |key: &RoomKey| {
            // A room that was forgotten meanwhile has only its key left, and begins again with the join.
            let (room, epoch, seq) = match self.rooms.position(key) {
                Some(position) => position,
                None => (RoomName::from_store(&format!("#{key}"))?, String::new(), 0),
            };
            Some(RestoredMembership { room, epoch, seq })
        };
        ResumedSession {
            fence,
            former,
            status: self.nicks.status(nick.key()).cloned().unwrap_or_else(Status::default),
            rooms: rooms.filter_map(restored).collect(),
            inbox: InboxState { epoch, seq, read: known.map(|known| known.read).unwrap_or_default() },
        }
    }

    pub(crate) fn detach(&mut self, nick: &Nick, owner: &Owner, terms: HoldTerms) -> DetachOutcome {
        let Some(record) = self.nicks.records.get_mut(nick.key()).filter(|record| record.owner.as_ref() == Some(owner))
        else {
            return DetachOutcome::NotOwned;
        };
        if !record.detached {
            let time = now();
            if time.saturating_sub(record.since) < terms.after.as_millis() as u64 {
                return DetachOutcome::TooNew;
            }
            record.detached = true;
            record.held_until = time + terms.hold.as_millis() as u64;
        }
        DetachOutcome::Held
    }

    pub(crate) fn expire_detached(&mut self, nick: &Nick, owner: &Owner, reason: OfflineReason) -> bool {
        let record = self.nicks.records.get(nick.key());
        if !record.is_some_and(|record| record.detached && record.owner.as_ref() == Some(owner)) {
            if reason.is_final() {
                self.pursue(&owner.session);
            }
            return false;
        }
        let freed_for = if reason.is_final() { FreedFor::AnySession } else { FreedFor::ItsSession };
        self.free_nick(nick.key(), freed_for);
        self.log_offline(nick.key(), reason);
        if reason.is_final() {
            self.sessions.revoke_tokens(&owner.session);
        }
        true
    }
}
