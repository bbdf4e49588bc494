//! `register` with a token: resumes a session, on any gateway, with its rooms, its status and its inbox.
//!
//! Several operations, one after another. The session is claimed, each of its rooms is joined again, and the end of its
//! inbox is read. Then the client is answered, and delivery of the rooms that it named starts. A resume that is
//! repeated after a lost answer gets the same new token; otherwise the session can still be resumed with either token.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::stream::StreamId;
use presence::model::{Nick, Owner, RoomKey, RoomName, SessionId, Status};

use crate::identity::{RoomRight, UserToken};
use crate::session::state::{JoinedRoom, SessionIdentity, SessionState};
use crate::session::stream_entry::StreamEntry;
use crate::session::token_expiry::lifetime_ms;
use crate::wire::{RestoredRoom, ResumeRequest, Since, Token};

use super::join::{JoinRoom, RoomJoined};
use super::leave::LeaveRoom;
use super::register::{RegisteredSession, SessionGrant};
use super::{Decision, Flow, Operation, OperationOutcome};

/// Resumes a session.
#[derive(Debug)]
pub struct ResumeSession {
    /// The nickname to claim: the session's own, or another one. `None` for that of the user's token.
    pub(crate) nick: Option<Nick>,
    /// The token of the user.
    pub(crate) token: Option<Token>,
    /// The address of the client, for a line of the log about a refused token.
    pub(crate) address: Option<ClientAddress>,
    pub(crate) request: ResumeRequest,
}

/// A session that was resumed.
#[derive(Debug)]
pub struct SessionResumed {
    pub(crate) nick: Nick,
    /// The token of its user; `None` for a guest.
    pub(crate) user_token: Option<UserToken>,
    pub(crate) request: ResumeRequest,
    pub(crate) grant: SessionGrant,
    pub(crate) stored: StoredSession,
}

/// A resumed session as the store had it.
#[derive(Debug)]
pub(crate) struct StoredSession {
    /// Its nickname and claim, if it still owned them.
    pub(crate) former: Option<(Nick, Owner)>,
    pub(crate) status: Status,
    pub(crate) rooms: Vec<RoomName>,
    /// The position up to which the client has read its inbox.
    pub(crate) read: Since,
}

/// Finds the end of an inbox.
#[derive(Debug)]
pub struct FindInboxEnd {
    pub(crate) session: SessionId,
}

/// The progress of a resume.
#[derive(Debug)]
pub(in crate::session) struct ResumeFlow {
    grant: SessionGrant,
    expires_in_ms: Option<u64>,
    me: SessionIdentity,
    /// The session's former identity, if its nickname has changed.
    former: Option<SessionIdentity>,
    /// The rooms that are still to be joined.
    rooms: VecDeque<RoomName>,
    /// The client's positions in the rooms that it enters at once.
    positions: HashMap<RoomKey, Since>,
    inbox_read: Since,
    restored: Vec<RestoredRoom>,
    entries: Vec<StreamEntry>,
}

pub(super) fn decide(
    state: &SessionState,
    (nick, token): (Option<Nick>, Option<Token>),
    request: ResumeRequest,
) -> ResumeSession {
    ResumeSession { nick, token, address: state.address(), request }
}

pub(super) fn conclude(state: &mut SessionState, now: Instant, resumed: SessionResumed) -> Decision {
    let SessionResumed { nick, user_token, request, grant, stored } = resumed;
    let StoredSession { former, status, rooms, read } = stored;
    let former = former.filter(|(former_nick, _)| *former_nick != nick);
    let user_grant = user_token.as_ref().map(|token| Arc::clone(&token.grant));
    let me = SessionIdentity { nick, owner: grant.owner.clone(), grant: user_grant, status };
    let former = former.map(|(nick, owner)| SessionIdentity { nick, owner, ..me.clone() });
    state.begin(now, me.clone(), true);
    let expires_in_ms = user_token.as_ref().map(|token| lifetime_ms(token.lifetime));
    state.sign_in(now, user_token);
    // A room that was forgotten meanwhile begins again under the client's spelling.
    let spelled = |room: RoomName| {
        let named = request.rooms.iter().find(|(named, _)| named.key() == room.key());
        named.map_or(room, |(named, _)| named.clone())
    };
    let rooms = rooms.into_iter().map(spelled).collect();
    let flow = ResumeFlow {
        grant,
        expires_in_ms,
        me,
        former,
        rooms,
        positions: request.rooms.into_iter().map(|(room, since)| (room.key().clone(), since)).collect(),
        inbox_read: request.inbox.unwrap_or(read),
        restored: Vec::new(),
        entries: Vec::new(),
    };
    Box::new(flow).next()
}

impl ResumeFlow {
    pub(super) fn conclude(
        mut self: Box<Self>,
        state: &mut SessionState,
        outcome: OperationOutcome,
    ) -> Option<Decision> {
        match outcome {
            // Its member record is now that of this connection, so it can be left.
            OperationOutcome::Joined(RoomJoined { room, .. }) if !state.may(&room, RoomRight::Join) => {
                let leave = Operation::Leave(LeaveRoom { room, me: self.me.clone() });
                Some(Decision::PerformStep(Flow::Resume(self), leave))
            }
            OperationOutcome::Left(_) | OperationOutcome::NotAdmitted => Some(self.next()),
            OperationOutcome::Joined(RoomJoined { room, end, .. }) => {
                let position = self.positions.remove(room.key());
                let receives = position.is_some();
                let since = state.allowed_since(&room, position);
                state.rooms.insert(room.key().clone(), JoinedRoom { room: room.clone(), receives });
                let shown = room.as_str();
                self.restored.push(RestoredRoom { room: shown.to_owned(), epoch: end.epoch.clone(), seq: end.seq });
                if receives {
                    self.entries.push(StreamEntry::new(StreamId::Room(room.key().clone()), shown, end, since));
                }
                Some(self.next())
            }
            OperationOutcome::InboxEnd(inbox) => {
                let Self { grant, expires_in_ms, me, restored: rooms, inbox_read, entries, .. } = *self;
                let inbox_read = Some(inbox_read);
                Some(RegisteredSession { grant, expires_in_ms, me, rooms, inbox, inbox_read, entries }.answer(state))
            }
            _ => None,
        }
    }

    fn next(mut self: Box<Self>) -> Decision {
        let operation = match self.rooms.pop_front() {
            Some(room) => {
                let starts_delivery = self.positions.contains_key(room.key());
                let (me, former) = (self.me.clone(), self.former.clone());
                Operation::Join(JoinRoom {
                    room,
                    me,
                    former,
                    starts_delivery,
                    since: None,
                    creator: None,
                    is_return: true,
                    is_ordered: false,
                })
            }
            None => Operation::FindInboxEnd(FindInboxEnd { session: self.grant.owner.session.clone() }),
        };
        Decision::PerformStep(Flow::Resume(self), operation)
    }
}

mod perform {
    use std::sync::Arc;

    use presence::model::stream::{StreamEnd, StreamId};
    use presence::model::{Nick, Owner, RoomName, TokenHash, UserId};
    use presence::registry::{ClaimError, InboxState, LocalClaim, RegistryError, ResumeError, ResumedSession};

    use super::super::register::SessionGrant;
    use super::{FindInboxEnd, ResumeSession, SessionResumed, StoredSession};
    use crate::metrics::ResumeOutcome;
    use crate::session::performer::{Performer, UnansweredResume, unix_ms};
    use crate::session::refusal::unavailable;
    use crate::session::retry::answered;
    use crate::session::token;
    use crate::wire::{Refusal, Since, Token};

    /// A session claimed by its token.
    struct TakenOver {
        owner: Owner,
        token: Token,
        hash: TokenHash,
        stored: ResumedSession,
    }

    impl ResumeSession {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<SessionResumed, Refusal> {
            let Self { nick, token, address, request } = self;
            let (nick, user_token) = performer.introduce(nick, token, address).await?;
            performer.release_unresolved().await;
            let user = user_token.as_ref().map(|token| &token.grant.user);
            let resumed = take_over(performer, &nick, (&request.token, user)).await;
            performer.services.metrics.resumes[result(&resumed)].inc();
            let TakenOver { owner, token, hash, stored: ResumedSession { former, status, rooms, inbox, .. } } =
                resumed?;
            let InboxState { epoch, read, .. } = inbox;
            let rooms: Vec<RoomName> = rooms.into_iter().map(|restored| restored.room).collect();
            performer.rooms = rooms.iter().map(|room| (room.key().clone(), room.clone())).collect();
            performer.attach(LocalClaim {
                nick: nick.clone(),
                owner: owner.clone(),
                user: user.cloned().map(Box::new),
                status: status.clone(),
                rooms: rooms.clone(),
                token: hash,
                detached: false,
            });
            performer.note_client(&owner, user_token.as_ref(), address);
            let grant = SessionGrant { owner, token, time: unix_ms() };
            let stored = StoredSession { former, status, rooms, read: Since { epoch, seq: read } };
            Ok(SessionResumed { nick, user_token, request, grant, stored })
        }
    }

    async fn take_over(
        performer: &mut Performer,
        nick: &Nick,
        (presented, user): (&Token, Option<&UserId>),
    ) -> Result<TakenOver, ResumeError> {
        let services = Arc::clone(&performer.services);
        let ticket = token::ticket(presented, user).ok_or(ResumeError::UnknownToken)?;
        let incarnation = services.health.incarnation().ok_or(ClaimError::Registry(RegistryError::Fenced))?;
        let (token, hash) = match performer.take_unanswered() {
            Some(UnansweredResume { ticket: former, token, hash }) if former == ticket => (token, hash),
            _ => token::issue(&ticket.session, user),
        };
        match answered(|| services.registry.resume(&incarnation, &ticket, nick, &hash)).await {
            Ok(stored) => {
                let owner = Owner { incarnation, session: ticket.session, fence: stored.fence };
                Ok(TakenOver { owner, token, hash, stored })
            }
            Err(error) => {
                if matches!(error, ResumeError::Claim(ClaimError::Registry(RegistryError::Unknown(_)))) {
                    performer.note_unanswered(UnansweredResume { ticket, token, hash });
                }
                Err(error)
            }
        }
    }

    fn result<T>(resumed: &Result<T, ResumeError>) -> ResumeOutcome {
        match resumed {
            Ok(_) => ResumeOutcome::Resumed,
            Err(ResumeError::UnknownToken) => ResumeOutcome::UnknownToken,
            Err(ResumeError::Claim(ClaimError::InUse { .. } | ClaimError::Confusable)) => ResumeOutcome::InUse,
            Err(ResumeError::Claim(ClaimError::Registry(_))) => ResumeOutcome::Failed,
        }
    }

    impl FindInboxEnd {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<StreamEnd, Refusal> {
            let inbox = [StreamId::Inbox(self.session)];
            let ends = answered(|| performer.services.backplane.read_ends(&inbox)).await?;
            ends.into_iter().next().map(|(_, end)| end).ok_or_else(unavailable)
        }
    }
}
