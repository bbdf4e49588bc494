//! `send`: publishes a message to a room that the session is in, or to a nickname.
//!
//! A publish is repeated after a lost answer, under the same id, so it is stored once. A repeat names a position of the
//! room from before the first attempt, so the store finds what that one stored.

use presence::model::codes::ErrorCode;

use crate::message::{Body, Target};
use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::DeliveryStatus;

/// The message of the request.
#[derive(Debug)]
pub(super) struct MessageDraft {
    pub(super) to: Target,
    pub(super) body: Body,
    /// The client's idempotency key.
    pub(super) key: Option<String>,
}

/// Publishes a message.
#[derive(Debug)]
pub struct SendMessage {
    /// The target as the client wrote it.
    requested: Target,
    /// The target by the name that all members see.
    to: Target,
    sender: SessionIdentity,
    body: Body,
    key: Option<String>,
}

pub(super) fn decide(
    state: &SessionState,
    sender: SessionIdentity,
    message: MessageDraft,
) -> Result<SendMessage, ErrorCode> {
    let MessageDraft { to: requested, body, key } = message;
    Ok(SendMessage { to: state.destination(&requested)?, requested, sender, body, key })
}

/// Bytes counted for the names and numbers around a body that each reader receives.
const ENVELOPE_BYTES: usize = 128;

/// Returns the delivery status of a published message. Only rooms have a seq that clients see.
fn delivery_status(to: &Target, seq: u64, online: bool) -> DeliveryStatus {
    match to {
        Target::Room(_) => DeliveryStatus::Room { seq },
        Target::Nick(_) if online => DeliveryStatus::Online,
        Target::Nick(_) => DeliveryStatus::Offline,
    }
}

mod perform {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;

    use presence::model::RoomKey;
    use presence::model::stream::StreamId;
    use presence::registry::RegistryError;
    use tracing::Instrument;

    use super::{ENVELOPE_BYTES, SendMessage, delivery_status};
    use crate::backplane::{PriorPosition, PublishAttempt, PublishError, PublishRequest, Published};
    use crate::hub::Hub;
    use crate::hub::position::StreamPosition;
    use crate::message::{Accepted, Target};
    use crate::metrics::MessageKind;
    use crate::session::performer::Performer;
    use crate::session::rate_meter::SendCharge;
    use crate::session::retry::answered;
    use crate::trace;
    use crate::wire::{Answer, Refusal};

    impl SendMessage {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Answer, Refusal> {
            let Self { requested, to, sender, body, key } = self;
            let services = Arc::clone(&performer.services);
            let (backplane, metrics) = (&services.backplane, &services.metrics);
            let (rates, bytes) = (&services.send_rates, ENVELOPE_BYTES + body.json().len());
            let kind = match &to {
                Target::Room(_) => MessageKind::Room,
                Target::Nick(_) => MessageKind::Direct,
            };
            let charge = SendCharge { session: &sender.owner.session, nick: &sender.nick, bytes };
            if let Err(refused) = rates.admit(&to, charge) {
                metrics.messages_over_rate[kind].inc();
                return Err(refused.into());
            }
            let id = uuid::Uuid::now_v7().to_string();
            let accepted = Accepted::at(SystemTime::now());
            let request = PublishRequest { msg_id: id, key, from: sender.nick, owner: sender.owner, body, accepted };
            let span = trace::publish(to.as_str(), &request);
            let published = match &to {
                Target::Room(room) => {
                    let prior = prior_position(&services.hub, room.key());
                    let is_repeat = AtomicBool::new(false);
                    let publish = || {
                        let attempt = match is_repeat.swap(true, Ordering::Relaxed) {
                            false => PublishAttempt::First,
                            true => PublishAttempt::Repeat(&prior),
                        };
                        backplane.publish(room, &request, attempt)
                    };
                    answered(publish).instrument(span).await
                }
                Target::Nick(nick) => answered(|| backplane.direct(nick.key(), &request)).instrument(span).await,
            };
            // Readers receive nothing of a refused message, and nothing again of a repeated one.
            let is_delivered = match &published {
                Ok(published) => published.msg_id == request.msg_id,
                Err(error) => matches!(error, PublishError::Registry(RegistryError::Unknown(_))),
            };
            if !is_delivered {
                rates.refund(&to, &request.owner.session, bytes);
            }
            let Published { msg_id, seq, time, duplicate, online } = published?;
            // If our own first attempt stored it, the client sees no duplicate. A client's retry has a new id.
            let duplicate = duplicate && msg_id != request.msg_id;
            if duplicate {
                metrics.duplicates[kind].inc();
            } else {
                metrics.published[kind].inc();
                if let Some(stream) = performer.returned_in(&to, &request) {
                    performer.own_messages.note(stream, seq);
                }
            }
            let delivery = delivery_status(&to, seq, online);
            Ok(Answer::Ack { to: requested.as_str().to_owned(), msg_id, delivery, time, duplicate })
        }
    }

    /// Returns the hub's present position in a room. A message that is published from now on comes after it.
    fn prior_position(hub: &Hub, room: &RoomKey) -> PriorPosition {
        let position = hub.position(&StreamId::Room(room.clone()));
        position.map(|StreamPosition { epoch, seq, .. }| PriorPosition { epoch, seq }).unwrap_or_default()
    }

    impl Performer {
        /// Returns the stream in which the client receives its own message; `None` if it does not.
        fn returned_in(&self, to: &Target, request: &PublishRequest) -> Option<StreamId> {
            match to {
                Target::Room(room) => {
                    self.received.contains_key(room.key()).then(|| StreamId::Room(room.key().clone()))
                }
                Target::Nick(nick) => {
                    (nick.key() == request.from.key()).then(|| StreamId::Inbox(request.owner.session.clone()))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::model::{Nick, RoomName};

    use super::*;

    #[test]
    fn ack_reports_seq_or_presence() {
        let room = Target::Room(RoomName::parse("#a").unwrap());
        let nick = Target::Nick(Nick::parse("bob").unwrap());
        assert_eq!(delivery_status(&room, 7, false), DeliveryStatus::Room { seq: 7 });
        assert_eq!(delivery_status(&nick, 7, true), DeliveryStatus::Online);
        assert_eq!(delivery_status(&nick, 7, false), DeliveryStatus::Offline);
    }
}
