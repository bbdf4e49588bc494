//! Writes of messages: into rooms, to nicknames, and again after a loss.
//!
//! An accepted message enters the republish ring before its sender gets the ack. A message without space there is not
//! sent. `room_calls` and `inbox_calls` call the scripts.

use std::sync::Arc;
use std::time::Duration;

use presence::registry::RegistryError;

use super::calls::{CallLane, ScriptCalls};
use super::message::{
    AckedMessage, AckedPosition, MessageAnswer, MessageOutcome, PublishTarget, SentBatch, StoredMessage, TargetBatch,
    TargetOutcome, TargetReply, WriteOrigin, WriteTarget,
};
use super::publisher::AppendBatch;
use super::republish::{RingReservation, ShareHolder};
use crate::backplane::{PublishError, Published};

/// The places of a call's messages in the republish ring, in their order.
type Reservations = Vec<Result<RingReservation, Duration>>;

impl AppendBatch for ScriptCalls {
    /// Sends the messages to rooms and those to nicknames in one call of a script each, at the same time. A message
    /// without space in the republish ring is not sent; the others are.
    async fn append(&self, slot: usize, batches: &[TargetBatch]) -> Vec<TargetOutcome> {
        let reserved: Vec<Reservations> = batches.iter().map(|batch| self.reserve(batch)).collect();
        let (mut rooms, mut nicks) = (Vec::new(), Vec::new());
        for (TargetBatch { target, messages }, reserved) in batches.iter().zip(&reserved) {
            let with_space = messages.iter().zip(reserved).filter(|(_, reserved)| reserved.is_ok());
            let messages: Vec<&StoredMessage> = with_space.map(|(message, _)| &**message).collect();
            match target {
                _ if messages.is_empty() => {}
                PublishTarget::Room(room) => rooms.push(SentBatch { to: room, messages }),
                PublishTarget::Nick(nick) => nicks.push(SentBatch { to: nick, messages }),
            }
        }
        let generation = self.republish.settled();
        let (origin, lane) = (WriteOrigin::Client(generation), CallLane::Slot(slot));
        let (rooms, nicks) = tokio::join!(
            self.call_publish_script(origin, lane, &rooms),
            self.call_direct_script(origin, lane, None, &nicks)
        );
        let (mut rooms, mut nicks) = (CallReplies::new(rooms), CallReplies::new(nicks));
        let conclude = |(batch, reserved): (&TargetBatch, Reservations)| {
            let replies = match &batch.target {
                _ if reserved.iter().all(Result::is_err) => None,
                PublishTarget::Room(_) => Some(&mut rooms),
                PublishTarget::Nick(_) => Some(&mut nicks),
            };
            let reply = replies.map_or(Ok(TargetReply::Answered(Vec::new())), CallReplies::next);
            self.conclude(&batch.messages, reserved, reply, generation)
        };
        batches.iter().zip(reserved).map(conclude).collect()
    }
}

/// The replies of one call for its targets; its failure is that of each target.
struct CallReplies(Result<std::vec::IntoIter<TargetReply>, RegistryError>);

impl CallReplies {
    fn new(replies: Result<Vec<TargetReply>, RegistryError>) -> Self {
        Self(replies.map(Vec::into_iter))
    }

    fn next(&mut self) -> Result<TargetReply, RegistryError> {
        let replies = self.0.as_mut().map_err(|error| error.clone())?;
        Ok(replies.next().unwrap_or(TargetReply::Unknown("script answered too few targets")))
    }
}

impl ScriptCalls {
    fn reserve(&self, TargetBatch { target, messages }: &TargetBatch) -> Reservations {
        let holder = || match target {
            PublishTarget::Room(room) => ShareHolder::Room(room.clone()),
            PublishTarget::Nick(nick) => ShareHolder::Inbox(nick.clone()),
        };
        messages.iter().map(|message| self.republish.reserve(message, holder())).collect()
    }

    /// Enters the messages that their streams have now into the republish ring, and returns the outcomes of all.
    fn conclude(
        &self,
        messages: &[Arc<StoredMessage>],
        reserved: Reservations,
        reply: Result<TargetReply, RegistryError>,
        generation: u64,
    ) -> TargetOutcome {
        let answers = match reply {
            Ok(TargetReply::Answered(answers)) => answers,
            Ok(TargetReply::Apart) => return TargetOutcome::Apart,
            Ok(TargetReply::Unknown(reason)) => {
                return TargetOutcome::Failed(RegistryError::Unknown(reason.to_owned()));
            }
            Err(error) => return TargetOutcome::Failed(error),
        };
        let mut answers = answers.into_iter();
        let conclude = |(message, reserved): (&Arc<StoredMessage>, Result<RingReservation, Duration>)| {
            let reservation = match reserved {
                Ok(reservation) => reservation,
                Err(retry_after) => return MessageOutcome::Done(Err(PublishError::Exhausted { retry_after })),
            };
            let Some(MessageAnswer { outcome, stored_in }) = answers.next() else {
                let error = RegistryError::Unknown("script answered too few messages".to_owned());
                return MessageOutcome::Done(Err(error.into()));
            };
            if let (MessageOutcome::Done(Ok(published)), Some((target, epoch))) = (&outcome, stored_in) {
                let message = message.known_as(&published.msg_id);
                let position = AckedPosition { epoch, seq: published.seq };
                self.republish.add(AckedMessage { target, message, position, generation }, reservation);
            }
            outcome
        };
        TargetOutcome::Answered(messages.iter().zip(reserved).map(conclude).collect())
    }

    /// Republishes messages of one stream that were acknowledged in an earlier generation. Returns the position of
    /// each, and whether it was missing.
    ///
    /// # Errors
    /// `Fenced` if this gateway's lease is not live, else as for [`ScriptCalls::call_publish_script`]. Messages done
    /// before an error stay done: a retry finds them by id or key.
    pub(super) async fn republish(
        &self,
        origin: WriteOrigin<'_>,
        target: &WriteTarget,
        messages: &[&StoredMessage],
    ) -> Result<Vec<(AckedPosition, bool)>, RegistryError> {
        let messages = messages.to_vec();
        let replies = match target {
            WriteTarget::Room(room) => {
                let sent = [SentBatch { to: room, messages }];
                self.call_publish_script(origin, CallLane::Name(room.as_str()), &sent).await?
            }
            WriteTarget::Inbox { session, to } => {
                let sent = [SentBatch { to, messages }];
                self.call_direct_script(origin, CallLane::Name(to.as_str()), Some(session), &sent).await?
            }
        };
        let answers = match replies.into_iter().next() {
            Some(TargetReply::Answered(answers)) => answers,
            Some(TargetReply::Unknown(reason)) => return Err(RegistryError::Unknown(reason.to_owned())),
            Some(TargetReply::Apart) | None => {
                return Err(RegistryError::Unavailable("messages were not republished".to_owned()));
            }
        };
        let positioned = |MessageAnswer { outcome, stored_in }| match (outcome, stored_in) {
            (MessageOutcome::Done(Ok(Published { seq, duplicate, .. })), Some((_, epoch))) => {
                Ok((AckedPosition { epoch, seq }, !duplicate))
            }
            (MessageOutcome::Done(Err(PublishError::Registry(error))), _) => Err(error),
            (MessageOutcome::Done(Err(error)), _) => Err(RegistryError::Unavailable(error.to_string())),
            (MessageOutcome::Done(Ok(_)) | MessageOutcome::Searched(_), _) => {
                Err(RegistryError::Unavailable("message was not republished".to_owned()))
            }
        };
        answers.into_iter().map(positioned).collect()
    }
}
