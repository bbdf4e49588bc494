//! `send`: publishes a message to a room that the session is in, or to a nickname.
//!
//! Messages of a connection are published together (`session/sends_in_flight.rs`). The backplane keeps their order and
//! repeats lost answers; for that it gets a position of the room from before the first attempt.

use presence::model::codes::ErrorCode;
use presence::model::stream::StreamId;
use presence::model::{Nick, UserId};

use crate::message::{Body, Target};
use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::{Answer, DeliveryStatus};

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
    /// True if the sender's token lets it moderate the room.
    moderates: bool,
}

/// A message that is stored.
#[derive(Debug)]
pub(in crate::session) struct StoredSend {
    ack: Answer,
    /// Its stream and seq, if its sender may receive it.
    own: Option<(StreamId, u64)>,
}

impl SendMessage {
    /// Returns the size of the body.
    pub(in crate::session) fn bytes(&self) -> usize {
        self.body.json().len()
    }
}

pub(super) fn decide(
    state: &SessionState,
    sender: SessionIdentity,
    message: MessageDraft,
) -> Result<SendMessage, ErrorCode> {
    let MessageDraft { to: requested, body, key } = message;
    let to = state.destination(&requested)?;
    let moderates = matches!(&to, Target::Room(room) if sender.moderates(room));
    Ok(SendMessage { to, requested, sender, body, key, moderates })
}

/// Bytes counted for the fields around body and names that each reader receives.
const ENVELOPE_BYTES: usize = 128;

/// Bytes of the field of a user id, without the id.
const USER_FIELD_BYTES: usize = 15;

/// Returns the bytes of a message that each reader receives.
fn delivered_bytes(to: &Target, (from, user): (&Nick, Option<&UserId>), body: &Body) -> usize {
    let user = user.map_or(0, |user| user.as_str().len() + USER_FIELD_BYTES);
    ENVELOPE_BYTES + to.as_str().len() + from.as_str().len() + user + body.json().len()
}

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
    use std::time::SystemTime;

    use presence::host::client_address::ClientAddress;
    use presence::model::codes::ErrorCode;
    use presence::model::stream::StreamId;
    use presence::model::{NickKey, RoomKey, SessionId};
    use presence::registry::RegistryError;
    use tracing::Instrument;

    use super::{SendMessage, StoredSend, delivered_bytes, delivery_status};
    use crate::backplane::{PriorPosition, PublishAttempt, PublishError, PublishRequest, Published};
    use crate::hooks::{AskedRequest, HookQuestion};
    use crate::hub::Hub;
    use crate::hub::position::StreamPosition;
    use crate::message::{Accepted, Target};
    use crate::metrics::MessageKind;
    use crate::session::performer::Performer;
    use crate::session::rate_meter::SendCharge;
    use crate::session::services::Services;
    use crate::session::state::SessionIdentity;
    use crate::trace;
    use crate::wire::{Answer, Refusal};

    impl SendMessage {
        /// Returns the question about the message from this address.
        pub(in crate::session) fn question(&self, address: Option<ClientAddress>) -> HookQuestion {
            let Self { to, sender, body, key, .. } = self;
            HookQuestion {
                request: AskedRequest::Send { to: to.clone(), body: body.clone(), key: key.clone() },
                session: Some(sender.owner.session.clone()),
                nick: sender.nick.clone(),
                grant: sender.grant.clone(),
                address,
            }
        }

        /// Returns true if the message will be refused, because its sender is muted in the cluster.
        pub(in crate::session) fn is_muted(&self, services: &Services) -> bool {
            services.sanctions.mutes(self.sender.nick.key(), self.sender.user())
        }

        /// Publishes the message. It gets its place in the order of messages in the first poll.
        pub(in crate::session) async fn publish(self, services: Arc<Services>) -> Result<StoredSend, Refusal> {
            let is_muted = self.is_muted(&services);
            let Self { requested, to, sender, body, key, moderates } = self;
            let (backplane, metrics) = (&services.backplane, &services.metrics);
            let (rates, bytes) = (&services.send_rates, delivered_bytes(&to, (&sender.nick, sender.user()), &body));
            let kind = match &to {
                Target::Room(_) => MessageKind::Room,
                Target::Nick(_) => MessageKind::Direct,
            };
            if is_muted {
                return Err(ErrorCode::Muted.into());
            }
            let charge = SendCharge { session: &sender.owner.session, nick: &sender.nick, bytes };
            if let Err(refused) = rates.admit(&to, charge) {
                metrics.messages_over_rate[kind].inc();
                return Err(refused.into());
            }
            let id = uuid::Uuid::now_v7().to_string();
            let accepted = Accepted::at(SystemTime::now());
            let from_user = sender.user().cloned();
            let SessionIdentity { nick: from, owner, .. } = sender;
            let request = PublishRequest { msg_id: id, key, from, from_user, owner, moderates, body, accepted };
            let span = trace::publish(to.as_str(), &request);
            let published = match &to {
                Target::Room(room) => {
                    let prior = prior_position(&services.hub, room.key());
                    backplane.publish(room, &request, PublishAttempt::First(&prior)).instrument(span).await
                }
                Target::Nick(nick) => backplane.direct(nick.key(), &request).instrument(span).await,
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
            }
            let delivery = delivery_status(&to, seq, online);
            let ack = Answer::Ack { to: requested.as_str().to_owned(), msg_id, delivery, time, duplicate };
            let stream = own_stream(&to, request.from.key(), &request.owner.session).filter(|_| !duplicate);
            Ok(StoredSend { ack, own: stream.map(|stream| (stream, seq)) })
        }
    }

    /// Returns the stream that has the message, if its sender may receive it there.
    fn own_stream(to: &Target, from: &NickKey, session: &SessionId) -> Option<StreamId> {
        match to {
            Target::Room(room) => Some(StreamId::Room(room.key().clone())),
            Target::Nick(nick) => (nick.key() == from).then(|| StreamId::Inbox(session.clone())),
        }
    }

    /// Returns the hub's present position in a room. A message that is published from now on comes after it.
    fn prior_position(hub: &Hub, room: &RoomKey) -> PriorPosition {
        let position = hub.position(&StreamId::Room(room.clone()));
        position.map(|StreamPosition { epoch, seq, .. }| PriorPosition { epoch, seq }).unwrap_or_default()
    }

    impl Performer {
        /// Notes a message that the client receives itself. Returns the answer to its request.
        pub(in crate::session) fn note_sent(&mut self, StoredSend { ack, own }: StoredSend) -> Answer {
            if let Some((stream, seq)) = own {
                let receives = match &stream {
                    StreamId::Room(room) => self.received.contains_key(room),
                    StreamId::Inbox(_) => true,
                };
                if receives {
                    self.own_messages.note(stream, seq);
                }
            }
            ack
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::model::RoomName;

    use super::*;
    use crate::message::{Accepted, ChatMessage};
    use crate::wire::{Event, json};

    #[test]
    fn delivered_bytes_cover_names_of_any_length() {
        let (long, user) = (format!("#{}", "r".repeat(128)), UserId::parse(&"u".repeat(255)));
        for (to, from, user) in [("#a", "b", None), (&*long, &*"\u{10400}".repeat(32), None), ("#a", "b", user)] {
            let (to, from) = (Target::Room(RoomName::parse(to).unwrap()), Nick::parse(from).unwrap());
            let body = Body::from_text("hi");
            let bytes = delivered_bytes(&to, (&from, user.as_ref()), &body);
            let event = Event::Message(ChatMessage {
                to: to.as_str().to_owned(),
                from: from.as_str().to_owned(),
                from_user: user,
                from_api: false,
                msg_id: uuid::Uuid::now_v7().to_string(),
                seq: 1,
                time: 1_795_252_200_000,
                body,
                accepted: Accepted::default(),
            });
            let frame = json::encode_event(&event);
            assert!((frame.len()..frame.len() + 32).contains(&bytes), "{bytes} bytes for a frame of {}", frame.len());
        }
    }

    #[test]
    fn ack_reports_seq_or_presence() {
        let room = Target::Room(RoomName::parse("#a").unwrap());
        let nick = Target::Nick(Nick::parse("bob").unwrap());
        assert_eq!(delivery_status(&room, 7, false), DeliveryStatus::Room { seq: 7 });
        assert_eq!(delivery_status(&nick, 7, true), DeliveryStatus::Online);
        assert_eq!(delivery_status(&nick, 7, false), DeliveryStatus::Offline);
    }
}
