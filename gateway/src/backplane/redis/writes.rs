//! Writes of messages: into rooms, to nicknames, and again after a loss.
//!
//! An accepted message enters the republish ring before its sender gets the ack. A message without space there is not
//! sent. `calls` and `room_calls` call the scripts.

use std::sync::Arc;
use std::time::Duration;

use presence::model::NickKey;
use presence::registry::RegistryError;

use super::calls::ScriptCalls;
use super::message::{
    AckedMessage, AckedPosition, MessageOutcome, RoomBatch, RoomOutcome, StoredMessage, WriteOrigin, WriteOutcome,
    WriteTarget,
};
use super::republish::{RingReservation, ShareHolder};
use super::room_calls::{CallLane, RoomReply, SentRoom};
use crate::backplane::{PublishError, Published};

impl ScriptCalls {
    /// Appends messages to rooms. Returns the outcomes in the order of the rooms. A message without space in the
    /// republish ring is not sent; the others are.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn publish(&self, slot: usize, rooms: &[RoomBatch]) -> Result<Vec<RoomOutcome>, RegistryError> {
        let reserve = |RoomBatch { room, messages }: &RoomBatch| {
            let target = || ShareHolder::Room(room.clone());
            let reserve = |message: &Arc<StoredMessage>| self.republish.reserve(message, target());
            messages.iter().map(reserve).collect()
        };
        let reserved: Vec<Vec<Result<RingReservation, Duration>>> = rooms.iter().map(reserve).collect();
        let sent = rooms.iter().zip(&reserved).filter_map(|(RoomBatch { room, messages }, reserved)| {
            let with_space = messages.iter().zip(reserved).filter(|(_, reserved)| reserved.is_ok());
            let messages: Vec<&StoredMessage> = with_space.map(|(message, _)| &**message).collect();
            (!messages.is_empty()).then_some(SentRoom { room, messages })
        });
        let sent: Vec<SentRoom<'_>> = sent.collect();
        let generation = self.republish.settled();
        let replies = if sent.is_empty() {
            Vec::new()
        } else {
            self.call_publish_script(WriteOrigin::Client(generation), CallLane::Slot(slot), &sent).await?
        };
        let mut replies = replies.into_iter();
        let conclude = |(batch, reserved): (&RoomBatch, Vec<Result<RingReservation, Duration>>)| {
            let is_sent = reserved.iter().any(Result::is_ok);
            let reply = if is_sent { replies.next() } else { None };
            let reply = reply.unwrap_or(RoomReply::Answered { epoch: String::new(), outcomes: Vec::new() });
            self.conclude_room(batch, reserved, reply, generation)
        };
        Ok(rooms.iter().zip(reserved).map(conclude).collect())
    }

    /// Enters the messages that a room has now into the republish ring, and returns the outcomes of all.
    fn conclude_room(
        &self,
        RoomBatch { room, messages }: &RoomBatch,
        reserved: Vec<Result<RingReservation, Duration>>,
        reply: RoomReply,
        generation: u64,
    ) -> RoomOutcome {
        let RoomReply::Answered { epoch, outcomes } = reply else { return RoomOutcome::Apart };
        let mut outcomes = outcomes.into_iter();
        let conclude = |(message, reserved): (&Arc<StoredMessage>, Result<RingReservation, Duration>)| {
            let reservation = match reserved {
                Ok(reservation) => reservation,
                Err(retry_after) => return MessageOutcome::Done(Err(PublishError::Exhausted { retry_after })),
            };
            let outcome = outcomes.next().unwrap_or_else(|| {
                MessageOutcome::Done(Err(RegistryError::Unknown("script answered too few messages".to_owned()).into()))
            });
            if let MessageOutcome::Done(Ok(published)) = &outcome {
                let message = message.known_as(&published.msg_id);
                let position = AckedPosition { epoch: epoch.clone(), seq: published.seq };
                let target = WriteTarget::Room(room.clone());
                self.republish.add(AckedMessage { target, message, position, generation }, reservation);
            }
            outcome
        };
        RoomOutcome::Answered(messages.iter().zip(reserved).map(conclude).collect())
    }

    /// Sends a message to a nickname.
    ///
    /// # Errors
    /// As for [`ScriptCalls::publish`], and the refusals of the message.
    pub(super) async fn direct(&self, to: &NickKey, message: &Arc<StoredMessage>) -> WriteOutcome {
        let reservation = self.republish.reserve(message, ShareHolder::Inbox(to.clone()));
        let reservation = reservation.map_err(|retry_after| PublishError::Exhausted { retry_after })?;
        let generation = self.republish.settled();
        let (inbox, outcome) = self.call_direct_script(WriteOrigin::Client(generation), (to, ""), message).await?;
        if let (Some((session, epoch)), Ok(published)) = (inbox, &outcome) {
            let target = WriteTarget::Inbox { session, to: to.clone() };
            let message = message.known_as(&published.msg_id);
            let position = AckedPosition { epoch, seq: published.seq };
            self.republish.add(AckedMessage { target, message, position, generation }, reservation);
        }
        outcome
    }

    /// Republishes messages of one stream that were acknowledged in an earlier generation. Returns the position of
    /// each, and whether it was missing.
    ///
    /// # Errors
    /// `Fenced` if this gateway's lease is not live, else as for [`ScriptCalls::publish`]. Messages done
    /// before an error stay done: a retry finds them by id or key.
    pub(super) async fn republish(
        &self,
        origin: WriteOrigin<'_>,
        target: &WriteTarget,
        messages: &[&StoredMessage],
    ) -> Result<Vec<(AckedPosition, bool)>, RegistryError> {
        let positioned = |epoch: &str, outcome: WriteOutcome| match outcome {
            Ok(Published { seq, duplicate, .. }) => Ok((AckedPosition { epoch: epoch.to_owned(), seq }, !duplicate)),
            Err(PublishError::Registry(error)) => Err(error),
            Err(error) => Err(RegistryError::Unavailable(error.to_string())),
        };
        match target {
            WriteTarget::Room(room) => {
                let sent = [SentRoom { room, messages: messages.to_vec() }];
                let replies = self.call_publish_script(origin, CallLane::Name(room.as_str()), &sent).await?;
                let Some(RoomReply::Answered { epoch, outcomes }) = replies.into_iter().next() else {
                    return Err(RegistryError::Unavailable("room was not republished".to_owned()));
                };
                let done = |outcome| match outcome {
                    MessageOutcome::Done(outcome) => positioned(&epoch, outcome),
                    MessageOutcome::Searched(_) => Err(RegistryError::Unavailable("message was searched".to_owned())),
                };
                outcomes.into_iter().map(done).collect()
            }
            WriteTarget::Inbox { session, to } => {
                let mut positions = Vec::with_capacity(messages.len());
                for message in messages {
                    let (inbox, outcome) = self.call_direct_script(origin, (to, session.as_str()), message).await?;
                    positions.push(positioned(&inbox.map(|(_, epoch)| epoch).unwrap_or_default(), outcome)?);
                }
                Ok(positions)
            }
        }
    }
}
