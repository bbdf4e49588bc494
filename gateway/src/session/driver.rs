//! Performs what the session core decides: claims and joins in the registry, publishes through the backplane, enters
//! and leaves the hub, and fills the outbox.
//!
//! One driver per connection, owned by the connection's task; doors decode for it and write for it. It works through one
//! request at a time, so writes about one session reach the store in order. It knows no format, no frame and no socket.
//!
//! Lost answers: claims, joins, leaves and publishes are idempotent, so they are repeated a few times before the client
//! hears `outcome_unknown`; and what a session may own when it ends is given back until the store has answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use presence::beat::Tenure;
use presence::codes::{CloseCode, ErrorCode};
use presence::log::Head;
use presence::model::{Fence, Incarnation, LeftReason, Nick, Owner, RoomKey, RoomName, SessionId};
use presence::registry::{ClaimError, Entry, Joined, Registry, RegistryError};
use tracing::Instrument;

use crate::backplane::{Backplane, Draft, PublishError, Published};
use crate::hub::Hub;
use crate::message::Body;
use crate::metrics::{Kind, Metrics, Registration};
use crate::trace;
use crate::wire::{Answer, Command, CorrelationId, Format, Refusal, Reply, Request, RoomItem};

use super::catch_up::catch_up;
use super::core::{Core, Done, Effect, Entrance, Identity, Op};
use super::liveness::Due;
use super::outbox::{Broadcast, Outbox};
use super::retry::{answered, until_answered};

/// What a client is told to wait when the store is away.
const RETRY_AFTER_MS: u64 = 1000;

/// What every session of a node works with.
#[derive(Debug)]
pub struct Services {
    /// The configured node id.
    pub node: Arc<str>,
    /// Names and memberships.
    pub registry: Registry,
    /// Messages between nodes.
    pub backplane: Backplane,
    /// Sessions and rooms of this node.
    pub hub: Arc<Hub>,
    /// This node's lease.
    pub tenure: Arc<Tenure>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Drives one session.
#[derive(Debug)]
pub struct Driver {
    services: Arc<Services>,
    core: Core,
    outbox: Outbox,
    /// Names that the store holds for us; more than one only in the middle of a change of name.
    names: Vec<(Nick, Owner)>,
    /// Rooms that the store may hold for us.
    rooms: BTreeMap<RoomKey, RoomName>,
    /// Claims whose answer was lost: the store may hold these names for these sessions.
    doubtful: Vec<(Incarnation, SessionId, Nick)>,
}

impl Driver {
    /// A fresh session on a connection that speaks `format`.
    #[must_use]
    pub fn new(services: &Arc<Services>, format: Format) -> Self {
        let pings = match format {
            Format::Json => true,
            Format::Line => false,
        };
        Self {
            core: Core::new(Arc::clone(&services.node), Instant::now(), pings),
            services: Arc::clone(services),
            outbox: Outbox::new(format),
            names: Vec::new(),
            rooms: BTreeMap::new(),
            doubtful: Vec::new(),
        }
    }

    /// Where this connection's output waits; the door empties it, also while a request is being handled.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// A sign of life: any frame, whatever it held.
    pub fn heard(&mut self) {
        self.core.liveness_mut().heard(Instant::now());
    }

    /// When [`Driver::tick`] wants to be called next; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.liveness().deadline()
    }

    /// Looks at the clock: may queue a ping, or close a connection that fell silent or never registered.
    pub fn tick(&mut self) {
        match self.core.liveness_mut().due(Instant::now()) {
            Due::Nothing => {}
            Due::Ping => self.outbox.ping(),
            Due::Close(code) => self.outbox.close(code),
        }
    }

    /// Handles one decoded request, or answers the refusal of a frame that could not be decoded; everything it has to say
    /// is in the outbox when it returns. Must be run to its end: doors poll it beside the outbox and never drop it.
    pub async fn request(&mut self, decoded: Result<Request, (CorrelationId, Refusal)>) {
        let mut effects = match decoded {
            Ok(request) => {
                self.note_activity(&request.command);
                self.core.request(Instant::now(), request)
            }
            Err((id, refusal)) => vec![Effect::Reply(Reply { id, answer: Answer::Refused(refusal) })],
        };
        loop {
            let mut work = None;
            for effect in effects {
                match effect {
                    Effect::Reply(reply) => self.reply(reply),
                    Effect::Tell(event) => drop(self.outbox.event(&Broadcast::new(event))),
                    Effect::Admit(entrance) => self.enter(entrance).await,
                    Effect::Close(code) => self.outbox.close(code),
                    Effect::Perform(op) => work = Some(op),
                }
            }
            let Some(op) = work else { return };
            let outcome = self.perform(op).await;
            effects = self.core.outcome(Instant::now(), outcome);
        }
    }

    /// The connection is over: leaves every room and gives the nickname back, until the store has answered. Must be run
    /// to its end; nobody is kept waiting by it.
    pub async fn end(mut self, reason: LeftReason) {
        let services = Arc::clone(&self.services);
        self.with_session(|hub, session| hub.detach(session));
        self.rooms.keys().for_each(|room| self.fall_silent(room));
        for (incarnation, session, nick) in std::mem::take(&mut self.doubtful) {
            if let Ok(fence) = until_answered(|| services.registry.claim(&incarnation, &session, &nick)).await {
                self.names.push((nick, Owner { incarnation, session, fence }));
            }
        }
        for (nick, owner) in &self.names {
            // An error that is left is a refusal for good: then there is nothing of ours to take away.
            for room in self.rooms.values() {
                let _ = until_answered(|| services.registry.leave(room, nick, owner, reason)).await;
            }
            let _ = until_answered(|| services.registry.release(nick, owner, None)).await;
        }
    }

    /// Boxed: what it holds while it reads would otherwise be part of every connection.
    async fn enter(&self, entrance: Entrance) {
        if let Some(me) = self.core.identity() {
            Box::pin(catch_up(&self.services, &self.outbox, &me.owner.session, entrance)).await;
        }
    }

    /// This node's side of leaving a room.
    fn fall_silent(&self, room: &RoomKey) {
        let Some(me) = self.core.identity() else { return };
        if self.services.hub.remove(room, &me.owner.session) {
            self.services.backplane.unsubscribe(room);
        }
    }

    fn reply(&self, reply: Reply) {
        if let Answer::Refused(refusal) = &reply.answer {
            self.services.metrics.refusals[refusal.code].inc();
        }
        self.outbox.reply(reply);
    }

    /// What a client does itself makes it active for others; listening does not.
    fn note_activity(&self, command: &Command) {
        if let (Some(me), false) = (self.core.identity(), matches!(command, Command::Ping)) {
            self.services.tenure.active(me.nick.key());
        }
    }

    fn with_session(&self, act: impl FnOnce(&Hub, &SessionId)) {
        if let Some(me) = self.core.identity() {
            act(&self.services.hub, &me.owner.session);
        }
    }

    async fn perform(&mut self, op: Op) -> Result<Done, Refusal> {
        let services = Arc::clone(&self.services);
        let registry = &services.registry;
        // While the store is away a refusal at once is better than a doubt after seconds, and true: nothing was sent.
        if !services.tenure.is_answered(Instant::now()) {
            return Err(unavailable());
        }
        match op {
            Op::Claim(nick, session) => self.claim(nick, session).await,
            Op::Release(was, owner, now) => {
                answered(|| registry.release(&was, &owner, Some(&now))).await.map_err(refusal)?;
                self.names.retain(|(nick, _)| nick.key() != was.key());
                Ok(Done::Settled)
            }
            Op::Join { room, me, was, again } => self.join(room, &me, was.as_ref(), again).await,
            Op::Leave(room, me) => {
                answered(|| registry.leave(&room, &me.nick, &me.owner, LeftReason::Left)).await.map_err(refusal)?;
                self.fall_silent(room.key());
                self.rooms.remove(room.key());
                Ok(Done::Settled)
            }
            Op::Publish(room, me, body, key) => {
                let draft = draft(me, body, key);
                let outcome = answered(|| services.backplane.publish(&room, &draft))
                    .instrument(trace::publish(room.as_str(), &draft))
                    .await;
                self.published(&draft, outcome, Kind::Room)
            }
            Op::Direct(to, me, body, key) => {
                let draft = draft(me, body, key);
                let outcome = answered(|| services.backplane.direct(to.key(), &draft))
                    .instrument(trace::publish(to.as_str(), &draft))
                    .await;
                self.published(&draft, outcome, Kind::Direct)
            }
            Op::SetStatus(me, status, rooms) => {
                let owned = answered(|| registry.set_status(&me.nick, &me.owner, &status, &rooms)).await;
                if owned.map_err(refusal)? { Ok(Done::Settled) } else { Err(unavailable()) }
            }
            Op::Members(room, limit, cursor) => {
                let page = registry.members(room.key(), cursor.as_deref(), limit).await.map_err(refusal)?;
                Ok(Done::Members(page.items, page.next_cursor))
            }
            Op::Rooms(limit, cursor) => {
                let page = registry.rooms(cursor.as_deref(), limit).await.map_err(refusal)?;
                let items = page.items.into_iter();
                let items = items.map(|room| RoomItem { room: room.room, member_count: room.member_count });
                Ok(Done::Rooms(items.collect(), page.next_cursor))
            }
            Op::History(room, range, limit) => {
                let stretch = services.backplane.history(room.key(), range, limit).await.map_err(refusal)?;
                Ok(Done::History(stretch.messages, stretch.more))
            }
        }
    }

    /// What a client hears of its message. One that the store had already, because our own first attempt was done and its
    /// answer lost, is no duplicate to a client that sent it once: a repetition of the client's has another id.
    fn published(&self, draft: &Draft, outcome: Result<Published, PublishError>, kind: Kind) -> Result<Done, Refusal> {
        match outcome {
            Ok(Published { msg_id, seq, time, duplicate, online }) => {
                let duplicate = duplicate && msg_id != draft.msg_id;
                self.services.metrics.published[kind].inc_by(u64::from(!duplicate));
                Ok(Done::Published { msg_id, seq, time, duplicate, online })
            }
            Err(PublishError::NotInRoom) => Err(ErrorCode::NotInRoom.into()),
            Err(PublishError::NoSuchUser) => Err(ErrorCode::NoSuchUser.into()),
            Err(PublishError::Overloaded) => {
                Err(Refusal { retry_after_ms: Some(RETRY_AFTER_MS), ..ErrorCode::Overloaded.into() })
            }
            Err(PublishError::Registry(error)) => Err(refusal(error)),
        }
    }

    /// Gives back what a claim of this connection may have taken without our knowing, as far as the store answers; what
    /// stays in doubt is left to the end. Without it a client would find its own nickname in use.
    async fn settle_doubtful(&mut self) {
        let services = Arc::clone(&self.services);
        for (incarnation, session, nick) in std::mem::take(&mut self.doubtful) {
            match answered(|| services.registry.claim(&incarnation, &session, &nick)).await {
                Ok(fence) => {
                    let owner = Owner { incarnation, session, fence };
                    if answered(|| services.registry.release(&nick, &owner, None)).await.is_err() {
                        self.names.push((nick, owner));
                    }
                }
                Err(ClaimError::Registry(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                    self.doubtful.push((incarnation, session, nick));
                }
                Err(_) => {}
            }
        }
    }

    /// A new session gets a new id for every attempt of its client, so that tidying up a doubtful one hits no other.
    async fn claim(&mut self, nick: Nick, session: Option<SessionId>) -> Result<Done, Refusal> {
        let services = Arc::clone(&self.services);
        let begins = session.is_none();
        self.settle_doubtful().await;
        let (session, incarnation) = match (session, self.names.first()) {
            (Some(session), Some((_, owner))) => (session, owner.incarnation.clone()),
            _ => (SessionId::random(), services.tenure.incarnation().ok_or_else(unavailable)?),
        };
        let claimed = answered(|| services.registry.claim(&incarnation, &session, &nick)).await;
        if begins {
            services.metrics.registrations[registration(&claimed)].inc();
        }
        let fence = match claimed {
            Ok(fence) => fence,
            Err(ClaimError::InUse) => return Err(ErrorCode::NickInUse.into()),
            Err(ClaimError::Confusable) => return Err(ErrorCode::NickConfusable.into()),
            Err(ClaimError::Registry(error)) => {
                if matches!(error, RegistryError::Unknown(_)) {
                    self.doubtful.push((incarnation, session, nick));
                }
                return Err(refusal(error));
            }
        };
        let owner = Owner { incarnation: incarnation.clone(), session: session.clone(), fence };
        self.names.retain(|(_, known)| *known != owner);
        self.names.push((nick.clone(), owner.clone()));
        if begins {
            services.hub.attach(&session, &nick, &incarnation, &self.outbox);
        } else {
            services.hub.rename(&session, &nick);
        }
        // The lease may have been lost while the claim was under way: then nobody has closed this session yet.
        if services.tenure.incarnation() != Some(incarnation) {
            self.outbox.close(CloseCode::Restart);
        }
        Ok(Done::Claimed(owner, unix_ms()))
    }

    async fn join(
        &mut self,
        room: RoomName,
        me: &Identity,
        was: Option<&Identity>,
        again: bool,
    ) -> Result<Done, Refusal> {
        let services = Arc::clone(&self.services);
        let session = &me.owner.session;
        if !again {
            services.hub.prepare(&room, session, &self.outbox);
            if let Err(error) = services.backplane.subscribe(room.key()).await {
                services.hub.remove(room.key(), session);
                return Err(refusal(error));
            }
            self.rooms.insert(room.key().clone(), room.clone());
        }
        let entry = was.map_or(Entry::New, |was| Entry::Renamed(&was.nick, &was.owner));
        match answered(|| services.registry.join(&room, &me.nick, &me.owner, &me.status, entry)).await {
            Ok(Joined { room, epoch, seq: top, member_count, forks }) => {
                Ok(Done::Joined { room, head: Head { epoch, top, forks }, member_count })
            }
            Err(error) => {
                if !again {
                    self.withdraw(&room, me, &error).await;
                }
                Err(refusal(error))
            }
        }
    }

    /// Undoes a first join that failed or may have been done.
    async fn withdraw(&mut self, room: &RoomName, me: &Identity, error: &RegistryError) {
        self.fall_silent(room.key());
        let left = || self.services.registry.leave(room, &me.nick, &me.owner, LeftReason::Left);
        if matches!(error, RegistryError::Unknown(_)) && answered(left).await.is_err() {
            // The member record may be there: only the end of the session can be sure to take it away.
            self.outbox.close(CloseCode::Restart);
        } else {
            self.rooms.remove(room.key());
        }
    }
}

fn draft(me: Identity, body: Body, key: Option<String>) -> Draft {
    // Version 7 ids sort by time, which keeps logs readable.
    let msg_id = uuid::Uuid::now_v7().to_string();
    Draft { msg_id, key, from: me.nick, owner: me.owner, body }
}

fn registration(claimed: &Result<Fence, ClaimError>) -> Registration {
    match claimed {
        Ok(_) => Registration::Registered,
        Err(ClaimError::InUse) => Registration::InUse,
        Err(ClaimError::Confusable) => Registration::Confusable,
        Err(ClaimError::Registry(_)) => Registration::Failed,
    }
}

/// What a client hears of a failed call. The inner text stays inside.
fn refusal(error: RegistryError) -> Refusal {
    match error {
        RegistryError::Unknown(reason) => {
            tracing::debug!(reason, "outcome unknown");
            Refusal { retry_after_ms: Some(RETRY_AFTER_MS), ..ErrorCode::OutcomeUnknown.into() }
        }
        RegistryError::Unavailable(reason) => {
            tracing::debug!(reason, "store unavailable");
            unavailable()
        }
        RegistryError::Fenced => unavailable(),
    }
}

fn unavailable() -> Refusal {
    Refusal { retry_after_ms: Some(RETRY_AFTER_MS), ..ErrorCode::Unavailable.into() }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
