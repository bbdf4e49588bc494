//! `nick`: changes the session's nickname.
//!
//! Several operations, one after another. The new nickname is claimed, gets the session's status and is carried into
//! each room; then the former one is released. Each operation is one script on one partition. The session sends nothing
//! in between, because its next request waits.

use std::collections::VecDeque;

use presence::model::codes::ErrorCode;
use presence::model::{Nick, Owner, RoomName, Status, UserId};

use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::{Answer, Refusal};

use super::join::JoinRoom;
use super::status::SetStatus;
use super::{Decision, Flow, Operation, OperationOutcome};

/// Claims another nickname for a session.
#[derive(Debug)]
pub struct ClaimNick {
    pub(crate) nick: Nick,
    /// The session's claim until now.
    pub(crate) before: Owner,
    /// The session's user; `None` for a guest.
    pub(crate) user: Option<UserId>,
}

/// Releases a nickname after a change to another one.
#[derive(Debug)]
pub struct ReleaseNick {
    pub(crate) nick: Nick,
    pub(crate) owner: Owner,
    pub(crate) renamed_to: Nick,
}

/// The progress of a change of nickname.
#[derive(Debug)]
pub(in crate::session) struct RenameFlow {
    nick: Nick,
    former: SessionIdentity,
    /// The rooms that do not show the new nickname yet.
    rooms: VecDeque<RoomName>,
    /// The claim to the new nickname, once there is one.
    claimed: Option<Owner>,
    /// True if the former nickname is released, or needs no release.
    is_released: bool,
}

pub(super) fn decide(state: &SessionState, me: SessionIdentity, nick: Nick) -> Result<Decision, ErrorCode> {
    if nick == me.nick {
        return Ok(answer(&nick));
    }
    let granted = me.grant.as_ref().and_then(|grant| grant.nick.as_ref());
    if granted.is_some_and(|granted| granted.key() != nick.key()) {
        return Err(ErrorCode::Forbidden);
    }
    let claim =
        Operation::ClaimNick(ClaimNick { nick: nick.clone(), before: me.owner.clone(), user: me.user().cloned() });
    let rooms = state.rooms.values().map(|joined| joined.room.clone()).collect();
    let flow = RenameFlow { nick, former: me, rooms, claimed: None, is_released: false };
    Ok(Decision::PerformStep(Flow::Rename(Box::new(flow)), claim))
}

impl RenameFlow {
    pub(super) fn conclude(
        mut self: Box<Self>,
        state: &mut SessionState,
        outcome: OperationOutcome,
    ) -> Option<Decision> {
        match (outcome, &self.claimed) {
            (OperationOutcome::NickClaimed(owner), None) => {
                let me = SessionIdentity { nick: self.nick.clone(), owner: owner.clone(), ..self.former.clone() };
                // After this claim the session owns both nicknames. If a later step fails, the end of the session
                // releases the new one.
                state.identity = Some(me.clone());
                // A change of spelling keeps the claim: there is nothing to release.
                let is_same_claim = self.former.owner == owner;
                self.is_released = is_same_claim || self.former.nick.key() == self.nick.key();
                self.claimed = Some(owner);
                // A nickname that was just claimed is plain online; rooms learn the status from the member records.
                if !is_same_claim && me.status != Status::default() {
                    let status = me.status.clone();
                    return Some(self.perform(Operation::SetStatus(SetStatus { me, status, rooms: Vec::new() })));
                }
                Some(self.next(me))
            }
            (OperationOutcome::NickReleased, Some(_)) => {
                self.is_released = true;
                Some(self.next(state.identity.clone()?))
            }
            (OperationOutcome::Joined(_) | OperationOutcome::StatusSet(_), Some(_)) => {
                Some(self.next(state.identity.clone()?))
            }
            _ => None,
        }
    }

    /// Returns true if a refused operation leaves the session with two nicknames, or may have.
    pub(super) fn is_half_done(&self, refusal: &Refusal) -> bool {
        self.claimed.is_some() || refusal.code == ErrorCode::OutcomeUnknown
    }

    fn next(mut self: Box<Self>, me: SessionIdentity) -> Decision {
        if let Some(room) = self.rooms.pop_front() {
            let former = Some(self.former.clone());
            let join = JoinRoom {
                room,
                me,
                former,
                starts_delivery: false,
                since: None,
                creator: None,
                is_return: false,
                is_ordered: false,
            };
            return self.perform(Operation::Join(join));
        }
        if !self.is_released {
            let SessionIdentity { nick, owner, .. } = self.former.clone();
            return self.perform(Operation::ReleaseNick(ReleaseNick { nick, owner, renamed_to: me.nick }));
        }
        answer(&self.nick)
    }

    fn perform(self: Box<Self>, operation: Operation) -> Decision {
        Decision::PerformStep(Flow::Rename(self), operation)
    }
}

fn answer(nick: &Nick) -> Decision {
    Decision::Answer(Answer::Nick { nick: nick.as_str().to_owned() })
}

mod perform {
    use std::sync::Arc;

    use presence::model::Owner;
    use presence::model::codes::{CloseCode, ErrorCode};
    use presence::registry::ReleaseCause;

    use super::{ClaimNick, ReleaseNick};
    use crate::session::performer::{ClaimAttempt, Performer};
    use crate::session::refusal::unavailable;
    use crate::session::retry::answered;
    use crate::wire::Refusal;

    impl ClaimNick {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Owner, Refusal> {
            let Self { nick, before, user } = self;
            let services = Arc::clone(&performer.services);
            if services.sanctions.bans_nick(nick.key()) {
                return Err(Refusal::from(ErrorCode::Banned).with_detail("this nickname is banned"));
            }
            let token = performer.token.clone().ok_or_else(unavailable)?;
            let (incarnation, session) = (before.incarnation.clone(), before.session.clone());
            let attempt = ClaimAttempt { incarnation, session, nick: nick.clone(), token, user };
            let (owner, _) = performer.claim(attempt).await?;
            services.hub.rename_session(&owner, &nick);
            services.claims.change(&before, |claim| {
                claim.nick = nick.clone();
                claim.owner = owner.clone();
            });
            // A ban that was ordered meanwhile has found the session under its former nickname.
            if services.sanctions.bans_nick(nick.key()) {
                performer.outbox.close(CloseCode::Banned);
            }
            performer.record_claim(nick, owner.clone());
            Ok(owner)
        }
    }

    impl ReleaseNick {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<(), Refusal> {
            let (registry, Self { nick, owner, renamed_to }) = (&performer.services.registry, self);
            answered(|| registry.release(&nick, &owner, ReleaseCause::RenamedTo(&renamed_to))).await?;
            performer.claims.retain(|(claimed, _)| claimed.key() != nick.key());
            Ok(())
        }
    }
}
