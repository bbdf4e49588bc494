//! The requests of a session, one file each: the pure decision first, its performance below.
//!
//! A verb's file holds its operation and the decisions about the request and its outcome. Its `mod perform` calls
//! registry, backplane and hub. The tables here name each verb once per step. Invariant: everything above `mod perform`
//! is pure; it knows no runtime, store, metric or dialect.
//!
//! To add a request, add its file here and a line in each table below. It also needs a variant of [`Command`] and of
//! [`Answer`], and a row in the tables of the dialects.

mod bye;
mod history;
pub(super) mod join;
mod leave;
mod members;
pub(super) mod moderate;
pub(super) mod nick;
mod options;
mod ping;
mod read;
pub(super) mod refresh;
pub(super) mod register;
pub(super) mod resume;
mod rooms;
pub(super) mod send;
pub(super) mod status;
mod typing;
mod whois;

use std::time::Instant;

use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::stream::StreamEnd;
use presence::model::{Owner, RoomName, Status};

use crate::identity::UserToken;
use crate::wire::{Answer, Command, Refusal};

use super::state::{SessionIdentity, SessionState};
use super::stream_entry::StreamEntry;

/// Work for registry, backplane and hub. Idempotent by session, so the driver may repeat it after a lost answer.
#[derive(Debug)]
pub enum Operation {
    /// Begins a session under a nickname.
    Begin(register::BeginSession),
    /// Resumes a session under a nickname.
    Resume(resume::ResumeSession),
    /// Finds the end of the session's inbox.
    FindInboxEnd(resume::FindInboxEnd),
    /// Joins a room, or rewrites the session's member record there.
    Join(join::JoinRoom),
    /// Leaves a room.
    Leave(leave::LeaveRoom),
    /// Claims another nickname for the session.
    ClaimNick(nick::ClaimNick),
    /// Releases the former nickname of the session.
    ReleaseNick(nick::ReleaseNick),
    /// Records and announces a status.
    SetStatus(status::SetStatus),
    /// Lists the members of a room.
    Members(members::ListMembers),
    /// Lists rooms.
    Rooms(rooms::ListRooms),
    /// Looks up one user.
    Whois(whois::LookUpUser),
    /// Reads a part of a room's history.
    History(history::ReadHistory),
    /// Records how far the client has read its inbox.
    Read(read::MarkRead),
    /// Publishes a typing notice.
    Typing(typing::AnnounceTyping),
    /// Carries out the order of a moderator.
    Moderate(Box<moderate::ModerateRoom>),
    /// Verifies a newer token of the user.
    Refresh(refresh::RefreshToken),
    /// Sets options of the connection.
    SetOptions(options::SetOptions),
}

/// The result of an [`Operation`] that succeeded.
#[derive(Debug)]
pub enum OperationOutcome {
    /// The answer to the request: nothing is left to decide.
    Answer(Answer),
    /// A session has begun.
    Begun(register::SessionBegun),
    /// A session was resumed.
    Resumed(resume::SessionResumed),
    /// The end of the inbox.
    InboxEnd(StreamEnd),
    /// The room was joined.
    Joined(join::RoomJoined),
    /// A room that a resume joins again does not admit the person any more.
    NotAdmitted,
    /// The room was left.
    Left(RoomName),
    /// The nickname is owned, as another one of the session.
    NickClaimed(Owner),
    /// The former nickname is free.
    NickReleased,
    /// The status is recorded.
    StatusSet(Status),
    /// The newer token is valid; `None` if tokens are no longer in use.
    Refreshed(Option<UserToken>),
}

/// The next step of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Answers it.
    Answer(Answer),
    /// Answers it and starts delivery of streams.
    AnswerAndEnter(Answer, Vec<StreamEntry>),
    /// Publishes a message. The answer is its outcome.
    Publish(send::SendMessage),
    /// Performs its only operation.
    Perform(Operation),
    /// Performs one operation of several.
    PerformStep(Flow, Operation),
    /// Ends the connection without an answer.
    Close(CloseCode),
}

/// State of a request between its operations.
#[derive(Debug)]
pub(super) enum Flow {
    /// A request with one operation.
    Single,
    /// A resume: each room is joined again, then the inbox is looked up.
    Resume(Box<resume::ResumeFlow>),
    /// A change of nickname: the new one is claimed and carried into each room, then the former one is released.
    Rename(Box<nick::RenameFlow>),
    /// A newer token: it is verified, then each room that it does not allow is left.
    Refresh(Box<refresh::RefreshFlow>),
}

/// Decides about a request.
///
/// # Errors
/// The code of the refusal.
pub(super) fn decide(state: &mut SessionState, now: Instant, command: Command) -> Result<Decision, ErrorCode> {
    match command {
        Command::Ping => return Ok(ping::decide()),
        Command::Bye => return Ok(bye::decide()),
        Command::Options { snappy } => {
            return Ok(Decision::Perform(Operation::SetOptions(options::SetOptions { snappy })));
        }
        // A ping keeps the connection open but does not count as activity.
        _ => state.liveness.acted(now),
    }
    match command {
        Command::Register { .. } if state.identity.is_some() => Err(ErrorCode::AlreadyRegistered),
        Command::Register { nick, resume: None, token } => {
            Ok(Decision::Perform(Operation::Begin(register::decide(state, nick, token))))
        }
        Command::Register { nick, resume: Some(request), token } => {
            Ok(Decision::Perform(Operation::Resume(resume::decide(state, (nick, token), request))))
        }
        command => {
            let me = state.identity.clone().ok_or(ErrorCode::NotRegistered)?;
            decide_registered(state, now, me, command)
        }
    }
}

fn decide_registered(
    state: &mut SessionState,
    now: Instant,
    me: SessionIdentity,
    command: Command,
) -> Result<Decision, ErrorCode> {
    Ok(Decision::Perform(match command {
        Command::Join { room, since } => Operation::Join(join::decide(state, me, room, since)?),
        Command::Leave { room } => Operation::Leave(leave::decide(state, me, &room)?),
        Command::Send { to, body, key } => {
            return Ok(Decision::Publish(send::decide(state, me, send::MessageDraft { to, body, key })?));
        }
        Command::Nick { nick } => return nick::decide(state, me, nick),
        Command::Status(status) => Operation::SetStatus(status::decide(state, me, status)),
        Command::Members { room, limit, cursor } => {
            Operation::Members(members::decide(state, members::ListMembers { room, limit, cursor })?)
        }
        Command::Rooms { limit, cursor } => Operation::Rooms(rooms::ListRooms { limit, cursor }),
        Command::Whois { nick } => Operation::Whois(whois::LookUpUser { nick }),
        Command::History { room, range, limit } => Operation::History(history::decide(state, &room, range, limit)?),
        Command::Read { seq } => Operation::Read(read::MarkRead { session: me.owner.session, seq }),
        Command::Typing { to } => return typing::decide(state, now, me, to),
        Command::Moderate(command) => Operation::Moderate(moderate::decide(state, me, *command)?),
        Command::Refresh { token } => return Ok(refresh::decide(state, me, token)),
        Command::Register { .. } | Command::Options { .. } | Command::Ping | Command::Bye => {
            return Err(ErrorCode::Internal);
        }
    }))
}

impl Flow {
    /// Decides about an outcome. Returns `None` if the outcome belongs to no operation of this flow.
    pub(super) fn conclude(
        self,
        state: &mut SessionState,
        now: Instant,
        outcome: OperationOutcome,
    ) -> Option<Decision> {
        match (self, outcome) {
            (Self::Single, OperationOutcome::Answer(answer)) => Some(Decision::Answer(answer)),
            (Self::Single, OperationOutcome::Begun(begun)) => Some(register::conclude(state, now, begun)),
            (Self::Single, OperationOutcome::Resumed(resumed)) => Some(resume::conclude(state, now, resumed)),
            (Self::Single, OperationOutcome::Joined(joined)) => Some(join::conclude(state, joined)),
            (Self::Single, OperationOutcome::Left(room)) => Some(leave::conclude(state, &room)),
            (Self::Single, OperationOutcome::StatusSet(status)) => Some(status::conclude(state, status)),
            (
                Self::Single,
                OperationOutcome::InboxEnd(_)
                | OperationOutcome::NickClaimed(_)
                | OperationOutcome::NickReleased
                | OperationOutcome::NotAdmitted
                | OperationOutcome::Refreshed(_),
            ) => None,
            (Self::Resume(flow), outcome) => flow.conclude(state, outcome),
            (Self::Rename(flow), outcome) => flow.conclude(state, outcome),
            (Self::Refresh(flow), outcome) => flow.conclude(state, now, outcome),
        }
    }

    /// Returns true if a refused operation leaves the session inconsistent: with two nicknames, with only some of its
    /// rooms, or in one that its token does not allow. Only ending the session repairs that.
    pub(super) fn is_half_done(&self, refusal: &Refusal) -> bool {
        match self {
            Self::Single => false,
            Self::Resume(_) => true,
            Self::Rename(flow) => flow.is_half_done(refusal),
            Self::Refresh(flow) => flow.is_half_done(),
        }
    }
}

mod perform {
    use presence::model::codes::ErrorCode;

    use super::{Operation, OperationOutcome};
    use crate::session::performer::Performer;
    use crate::wire::Refusal;

    impl Operation {
        /// Performs the operation. The lists are boxed: every request would otherwise have their size.
        ///
        /// # Errors
        /// The refusal for the client.
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<OperationOutcome, Refusal> {
            match self {
                Self::Begin(operation) => operation.perform(performer).await.map(OperationOutcome::Begun),
                Self::Resume(operation) => operation.perform(performer).await.map(OperationOutcome::Resumed),
                Self::FindInboxEnd(operation) => operation.perform(performer).await.map(OperationOutcome::InboxEnd),
                Self::Join(operation) => {
                    let is_return = operation.is_return;
                    match operation.perform(performer).await {
                        Err(Refusal {
                            code:
                                ErrorCode::Banned | ErrorCode::NotAllowed | ErrorCode::RoomFull | ErrorCode::InviteOnly,
                            ..
                        }) if is_return => Ok(OperationOutcome::NotAdmitted),
                        outcome => outcome.map(OperationOutcome::Joined),
                    }
                }
                Self::Leave(operation) => operation.perform(performer).await.map(OperationOutcome::Left),
                Self::ClaimNick(operation) => operation.perform(performer).await.map(OperationOutcome::NickClaimed),
                Self::ReleaseNick(operation) => {
                    operation.perform(performer).await.map(|()| OperationOutcome::NickReleased)
                }
                Self::SetStatus(operation) => operation.perform(performer).await.map(OperationOutcome::StatusSet),
                Self::Members(operation) => Box::pin(operation.perform(performer)).await.map(OperationOutcome::Answer),
                Self::Rooms(operation) => Box::pin(operation.perform(performer)).await.map(OperationOutcome::Answer),
                Self::Whois(operation) => Box::pin(operation.perform(performer)).await.map(OperationOutcome::Answer),
                Self::History(operation) => operation.perform(performer).await.map(OperationOutcome::Answer),
                Self::Read(operation) => operation.perform(performer).await.map(OperationOutcome::Answer),
                Self::Typing(operation) => operation.perform(performer).await.map(OperationOutcome::Answer),
                Self::Moderate(operation) => Box::pin(operation.perform(performer)).await.map(OperationOutcome::Answer),
                Self::Refresh(operation) => operation.perform(performer).await.map(OperationOutcome::Refreshed),
                Self::SetOptions(operation) => operation.perform(performer).map(OperationOutcome::Answer),
            }
        }
    }
}
