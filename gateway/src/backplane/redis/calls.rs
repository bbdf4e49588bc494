//! The scripts that put messages into logs, and the word that somebody is writing: how they are called, and what their
//! answers mean.
//!
//! They go over the shared lanes, by name, so that what is about one room or nickname reaches Redis in its order. What was
//! taken is kept for a repair before anybody hears of it.

use std::sync::{Arc, LazyLock};

use presence::host::reloadable::Reloadable;
use presence::model::keys::{NodeUnit, ScriptKeys, SessionUnit, Unit};
use presence::model::{Incarnation, NickKey, Retention, RoomKey, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::{Call, Redis};
use redis::{FromRedisValue, Script, ScriptInvocation};

use crate::backplane::redis::republish::{Acked, AckedPosition, Republish, Target};
use crate::backplane::redis::{epoch, script};
use crate::backplane::{PublishError, PublishRequest, Published, envelope};

static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/publish.lua")));
static DIRECT: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/direct.lua")));

static TYPING: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/typing.lua")));

/// Most messages that are remembered for one span, over all rooms and nicks of a partition: of those with a client's key
/// for five minutes, of those without one for 30 seconds.
const BUCKET_KEYS: usize = 1_000_000;
/// Seconds that an inbox is kept after its session has gone: 72 hours.
const INBOX_SECONDS: usize = 72 * 60 * 60;

/// What a script answers for one message: verdict, seq, time, message id.
type Answer = (String, u64, u64, String);

/// A message as the store takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The sender's claim.
    pub(super) token: String,
    /// The sender's nick key.
    pub(super) nick: String,
    /// The client's idempotency key behind a `=`, or nothing.
    pub(super) key: String,
    /// Its id.
    pub(super) msg_id: String,
    /// What is stored and sent.
    pub(super) payload: String,
}

impl Message {
    pub(super) fn new(draft: &PublishRequest, payload: String) -> Self {
        Self {
            token: draft.owner.token(),
            nick: draft.from.key().as_str().to_owned(),
            key: draft.key.as_ref().map(|key| format!("={key}")).unwrap_or_default(),
            msg_id: draft.msg_id.clone(),
            payload,
        }
    }

    /// What it costs to hold and to send: every part but the payload is short and bounded, except the client's key.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.key.len()
    }

    /// The same under the id that the first attempt had.
    fn known_as(&self, msg_id: &str) -> Self {
        if self.msg_id == msg_id {
            return self.clone();
        }
        let payload = envelope::with_id(&self.payload, &self.msg_id, msg_id);
        Self { msg_id: msg_id.to_owned(), payload, ..self.clone() }
    }
}

/// What came of one message.
pub(super) type Outcome = Result<Published, PublishError>;

/// Who writes, and in which generation of the store: it is refused in any other.
#[derive(Debug, Clone, Copy)]
pub(super) enum WriteOrigin<'a> {
    /// Somebody says something new. 0: in any generation, until beats tell.
    Sender(u64),
    /// This gateway puts back what was lost.
    Repairer(u64, &'a Incarnation),
}

impl WriteOrigin<'_> {
    /// The generation that is written in.
    pub(super) fn generation(self) -> u64 {
        match self {
            Self::Sender(generation) | Self::Repairer(generation, _) => generation,
        }
    }
}

/// Our side of the scripts.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    pub(super) redis: Redis,
    pub(super) retention: Reloadable<Retention>,
    pub(super) repair: Arc<Republish>,
}

impl Writes {
    /// Puts messages into a room. Returns what became of each, in their order; what cannot be kept for a repair is not sent.
    ///
    /// # Errors
    /// `Unavailable` when nothing was done, `Unknown` when that is not known.
    pub(super) async fn publish(&self, room: &RoomKey, batch: &[Message]) -> Result<Vec<Outcome>, RegistryError> {
        let spaces: Vec<_> = batch.iter().map_while(|message| self.repair.space(message)).collect();
        let (fitting, rest) = batch.split_at(spaces.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        if !fitting.is_empty() {
            let generation = self.repair.settled();
            let messages: Vec<&Message> = fitting.iter().collect();
            let (epoch, taken) = self.append(WriteOrigin::Sender(generation), room, &messages).await?;
            for ((message, space), outcome) in fitting.iter().zip(spaces).zip(&taken) {
                if let Ok(published) = outcome {
                    let message = Arc::new(message.known_as(&published.msg_id));
                    let place = AckedPosition { epoch: epoch.clone(), seq: published.seq };
                    self.repair.keep(Acked { target: Target::Room(room.clone()), message, place, generation }, space);
                }
            }
            outcomes.extend(taken);
        }
        outcomes.extend(rest.iter().map(|_| Err(PublishError::Overloaded)));
        Ok(outcomes)
    }

    /// Sends a message to a nickname.
    ///
    /// # Errors
    /// As [`Writes::publish`], and whatever became of the message.
    pub(super) async fn direct(&self, to: &NickKey, message: &Message) -> Outcome {
        let space = self.repair.space(message).ok_or(PublishError::Overloaded)?;
        let generation = self.repair.settled();
        let (inbox, outcome) = self.deliver(WriteOrigin::Sender(generation), (to, ""), message).await?;
        if let (Some((session, epoch)), Ok(published)) = (inbox, &outcome) {
            let target = Target::Inbox { session, to: to.clone() };
            let message = Arc::new(message.known_as(&published.msg_id));
            let place = AckedPosition { epoch, seq: published.seq };
            self.repair.keep(Acked { target, message, place, generation }, space);
        }
        outcome
    }

    /// Puts messages of one log back that were acked in an earlier generation. Returns the place of each, and whether it
    /// was not there.
    ///
    /// # Errors
    /// `Fenced` when this gateway does not serve, else as [`Writes::publish`]. What was done stays done, and is found by
    /// its id or key when it is tried again.
    pub(super) async fn put_back(
        &self,
        hand: WriteOrigin<'_>,
        target: &Target,
        messages: &[&Message],
    ) -> Result<Vec<(AckedPosition, bool)>, RegistryError> {
        let placed = |epoch: &str, outcome: Outcome| match outcome {
            Ok(Published { seq, duplicate, .. }) => Ok((AckedPosition { epoch: epoch.to_owned(), seq }, !duplicate)),
            Err(PublishError::Registry(error)) => Err(error),
            Err(error) => Err(RegistryError::Unavailable(error.to_string())),
        };
        match target {
            Target::Room(room) => {
                let (epoch, outcomes) = self.append(hand, room, messages).await?;
                outcomes.into_iter().map(|outcome| placed(&epoch, outcome)).collect()
            }
            Target::Inbox { session, to } => {
                let mut places = Vec::with_capacity(messages.len());
                for message in messages {
                    let (inbox, outcome) = self.deliver(hand, (to, session.as_str()), message).await?;
                    places.push(placed(&inbox.map(|(_, epoch)| epoch).unwrap_or_default(), outcome)?);
                }
                Ok(places)
            }
        }
    }

    async fn append(
        &self,
        hand: WriteOrigin<'_>,
        room: &RoomKey,
        messages: &[&Message],
    ) -> Result<(String, Vec<Outcome>), RegistryError> {
        let keys = self.redis.keys().room(room);
        let keys = ScriptKeys::of([keys.meta(), keys.stream(), keys.members(), keys.channel()]);
        let retention = self.retention.get();
        let mut call = self.call(&PUBLISH, hand, &keys);
        call.arg(room.as_str()).arg(retention.messages).arg(retention.age.as_millis() as u64).arg(epoch());
        for Message { token, nick, key, msg_id, payload } in messages {
            call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload);
        }
        let (epoch, answers): (String, Vec<Answer>) = self.invoke(Call::Publish, room.as_str(), &call).await?;
        if answers.len() != messages.len() {
            return Err(RegistryError::Unknown("not one answer per message".to_owned()));
        }
        Ok((epoch, answers.into_iter().map(|answer| outcome(answer, true)).collect()))
    }

    /// Returns session and epoch of the inbox too, if it is in one. A repairer says whose it was, a sender says nothing.
    async fn deliver(
        &self,
        hand: WriteOrigin<'_>,
        (to, inbox): (&NickKey, &str),
        message: &Message,
    ) -> Result<(Option<(SessionId, String)>, Outcome), RegistryError> {
        let keys = self.redis.keys();
        let Message { token, nick, key, msg_id, payload } = message;
        let sender = NickKey::from_store(nick);
        let keys = ScriptKeys::of([keys.nick(&sender).record()])
            .crossing([keys.nick(to).record()])
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut call = self.call(&DIRECT, hand, &keys);
        call.arg(to.as_str()).arg(inbox).arg(self.retention.get().inbox_messages).arg(INBOX_SECONDS).arg(epoch());
        call.arg(token).arg(key).arg(msg_id).arg(payload);
        let (online, session, epoch, answer): (bool, String, String, Answer) =
            self.invoke(Call::Direct, to.as_str(), &call).await?;
        let inbox = (!session.is_empty()).then(|| (SessionId::from_store(&session), epoch));
        Ok((inbox, outcome(answer, online)))
    }

    /// Tells a room's channel who is writing there.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub(super) async fn typing_in(&self, room: &RoomKey, frame: &str) -> Result<(), RegistryError> {
        let mut lane = self.redis.lane(room.as_str());
        let mut command = redis::cmd("PUBLISH");
        let told = command.arg(self.redis.keys().room(room).channel()).arg(frame).query_async(&mut lane);
        self.redis.timed(Call::Typing, told).await
    }

    /// Tells the gateway of whoever has a nickname who is writing to them.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub(super) async fn typing_to(&self, to: &NickKey, from: &str) -> Result<(), RegistryError> {
        let keys = ScriptKeys::of([self.redis.keys().nick(to).record()])
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut call = self.call(&TYPING, WriteOrigin::Sender(self.repair.settled()), &keys);
        call.arg(to.as_str()).arg(from);
        self.invoke(Call::Typing, to.as_str(), &call).await
    }

    /// What all scripts begin with.
    fn call<U: Unit>(
        &self,
        script: &'static Script,
        hand: WriteOrigin<'_>,
        script_keys: &ScriptKeys<U>,
    ) -> ScriptInvocation<'static> {
        let repairer = match hand {
            WriteOrigin::Sender(_) => "",
            WriteOrigin::Repairer(_, incarnation) => incarnation.as_str(),
        };
        let keys = self.redis.keys();
        let mut call = script.prepare_invoke();
        call.key(keys.generation()).key(keys.leases()).key(script_keys.names());
        call.arg(keys.base()).arg(hand.generation()).arg(BUCKET_KEYS).arg(repairer);
        call
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        kind: Call,
        lane: &str,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, RegistryError> {
        let mut lane = self.redis.lane(lane);
        self.redis.timed(kind, call.invoke_async(&mut lane)).await
    }
}

fn outcome((verdict, seq, time, msg_id): Answer, online: bool) -> Outcome {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false, online }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true, online }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "overloaded" => Err(PublishError::Overloaded),
        _ => Err(RegistryError::Unknown(format!("the script answered {verdict}")).into()),
    }
}
