//! Performs what the session core decides: claims and joins in the registry, publishes through the backplane, enters
//! and leaves the hub, and fills the outbox.
//!
//! One driver per connection, owned by the connection's task; doors decode for it and write for it. It works through one
//! request at a time, so writes about one session reach the store in order. It knows no format, no frame and no socket.
//!
//! Lost answers: claims, joins, leaves and publishes are idempotent, so they are repeated a few times before the client
//! hears `outcome_unknown`; and what a session may own when it ends (`ending`) is given back until the store has answered.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use presence::lease::LeaseHealth;
use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::stream::{StreamEnd, StreamId};
use presence::model::{LeftReason, Nick, Owner, RoomKey, RoomName, TokenHash};
use presence::registry::{
    JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, Registry, RegistryError, ResumeTicket,
};
use tracing::Instrument;

use crate::backplane::{Backplane, PublishError, PublishRequest, Published};
use crate::hub::Hub;
use crate::message::{Accepted, Body};
use crate::metrics::{Kind, Metrics};
use crate::trace;
use crate::wire::{Answer, Command, CorrelationId, Dialect, Refusal, Reply, Request, RoomItem, Token};

use super::claims::Doubt;
use super::core::{Core, Done, Effect, Entrance, Identity, Op};
use super::liveness::Due;
use super::replay::catch_up;
use super::retry::answered;
use super::small_map::SmallMap;
use crate::lease::local_claims::LocalClaims;
use crate::outbound::outbox::Outbox;

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
    /// What this node owns in the store.
    pub holdings: Arc<LocalClaims>,
    /// For how long a nickname is kept for a session that lost its connection.
    pub hold: Duration,
    /// This node's lease.
    pub tenure: Arc<LeaseHealth>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Drives one session.
#[derive(Debug)]
pub struct Driver {
    pub(super) services: Arc<Services>,
    pub(super) core: Core,
    pub(super) outbox: Outbox,
    pub(super) door: Dialect,
    /// Names that the store holds for us; more than one only in the middle of a change of name.
    pub(super) names: Vec<(Nick, Owner)>,
    /// Rooms that the store may hold for us.
    pub(super) rooms: SmallMap<RoomKey, RoomName>,
    /// Rooms that this node hears for us.
    heard: SmallMap<RoomKey, ()>,
    /// Claims whose answer was lost: the store may hold these names for these sessions.
    pub(super) doubtful: Vec<Doubt>,
    /// A resume whose answer was lost. Asked for again, it is to be the same.
    pub(super) unanswered: Option<Box<(ResumeTicket, Token, TokenHash)>>,
    /// What is kept of the token that the client has.
    pub(super) token: Option<TokenHash>,
}

impl Driver {
    /// A fresh session on a connection that speaks `format`.
    #[must_use]
    pub fn new(services: &Arc<Services>, format: Dialect) -> Self {
        let pings = match format {
            Dialect::Json => true,
            Dialect::Line => false,
        };
        Self {
            core: Core::new(Arc::clone(&services.node), Instant::now(), pings),
            services: Arc::clone(services),
            outbox: Outbox::new(format),
            door: format,
            names: Vec::new(),
            rooms: SmallMap::default(),
            heard: SmallMap::default(),
            doubtful: Vec::new(),
            unanswered: None,
            token: None,
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
        let is_message = matches!(&decoded, Ok(request) if matches!(request.command, Command::Send { .. }));
        let asked = Instant::now();
        let mut resumed = false;
        let mut effects = match decoded {
            Ok(request) => {
                self.note_activity(&request.command);
                self.core.request(asked, request)
            }
            Err((id, refusal)) => vec![Effect::Reply(Reply { id, answer: Answer::Refused(refusal) })],
        };
        loop {
            let mut work = None;
            if is_message {
                self.count_refused(&effects);
            }
            for effect in effects {
                match effect {
                    Effect::Reply(reply) => self.reply(reply),
                    Effect::Admit(entrance) => self.enter(entrance).await,
                    Effect::Confirm => self.confirm(),
                    Effect::Close(code) => self.outbox.close(code),
                    Effect::Perform(op) => work = Some(op),
                }
            }
            let Some(op) = work else { break };
            let outcome = self.perform(op).await;
            resumed |= matches!(outcome, Ok(Done::Resumed(..)));
            effects = self.core.outcome(Instant::now(), outcome);
        }
        if resumed {
            self.services.metrics.resume_seconds.took(asked.elapsed());
        }
    }

    /// This node's side of the end.
    pub(super) fn fall_silent_everywhere(&mut self) {
        if let Some(me) = self.core.identity() {
            self.services.hub.detach(&me.owner);
        }
        let heard: Vec<RoomKey> = self.heard.keys().cloned().collect();
        for room in &heard {
            self.fall_silent(room);
        }
    }

    /// Boxed: what it holds while it reads would otherwise be part of every connection.
    async fn enter(&self, entrance: Entrance) {
        if let Some(me) = self.core.identity() {
            Box::pin(catch_up(&self.services, &self.outbox, &me.owner.session, entrance)).await;
        }
    }

    /// This node's side of leaving a room.
    fn fall_silent(&mut self, room: &RoomKey) {
        let Some(me) = self.core.identity() else { return };
        if self.heard.remove(room).is_some() {
            self.services.hub.remove(room, &me.owner.session, &self.outbox);
            self.services.backplane.unsubscribe(room);
        }
    }

    /// Best effort, and nobody waits for it: until it is done the session has two tokens, and its next resume ends it too.
    fn confirm(&self) {
        if let (Some(me), Some(token)) = (self.core.identity(), self.token.clone()) {
            let (services, session) = (Arc::clone(&self.services), me.owner.session.clone());
            tokio::spawn(async move { services.registry.confirm(&session, &token).await });
        }
    }

    fn reply(&self, reply: Reply) {
        if let Answer::Refused(refusal) = &reply.answer {
            self.services.metrics.refusals[refusal.code].inc();
        }
        self.outbox.reply(reply);
    }

    fn count_refused(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Reply(Reply { answer: Answer::Refused(refusal), .. }) = effect {
                self.services.metrics.refused[refusal.code].inc();
            }
        }
    }

    /// What a client does itself makes it active for others; listening does not.
    fn note_activity(&self, command: &Command) {
        if let (Some(me), false) = (self.core.identity(), matches!(command, Command::Ping)) {
            self.services.tenure.active(me.nick.key());
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
            Op::Claim(nick, None) => self.begin(nick).await,
            Op::Claim(nick, Some(session)) => self.rename(nick, session).await,
            Op::Resume(nick, token) => self.resume(nick, token).await,
            Op::Release(was, owner, now) => {
                answered(|| registry.release(&was, &owner, Some(&now))).await.map_err(refusal)?;
                self.names.retain(|(nick, _)| nick.key() != was.key());
                Ok(Done::Settled)
            }
            Op::Join { room, me, was, enters } => self.join(room, &me, was.as_ref(), enters).await,
            Op::Leave(room, me) => {
                self.leave(&room, &me).await.map_err(refusal)?;
                self.fall_silent(room.key());
                self.forget_room(&me, &room);
                Ok(Done::Settled)
            }
            Op::Inbox(session) => {
                let inbox = [StreamId::Inbox(session)];
                let heads = answered(|| services.backplane.read_ends(&inbox)).await.map_err(refusal)?;
                heads.into_iter().next().map(|(_, head)| Done::Inbox(head)).ok_or_else(unavailable)
            }
            Op::Read(session, seq) => {
                let known = answered(|| registry.read(&session, seq)).await.map_err(refusal)?;
                if known { Ok(Done::Settled) } else { Err(unavailable()) }
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
            Op::Typing(to, me) => {
                // Once or never: by the time that a repetition had arrived, it would not be true any more.
                let told = services.backplane.typing(&to, &me.nick, &me.owner.session).await;
                told.map(|()| Done::Settled).map_err(refusal)
            }
            Op::SetStatus(me, status, rooms) => {
                let owned = answered(|| registry.set_status(&me.nick, &me.owner, &status, &rooms)).await;
                if !owned.map_err(refusal)? {
                    return Err(unavailable());
                }
                services.holdings.change(&me.owner, |holding| holding.status = status);
                Ok(Done::Settled)
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
    fn published(
        &self,
        draft: &PublishRequest,
        outcome: Result<Published, PublishError>,
        kind: Kind,
    ) -> Result<Done, Refusal> {
        match outcome {
            Ok(Published { msg_id, seq, time, duplicate, online }) => {
                let duplicate = duplicate && msg_id != draft.msg_id;
                let metrics = &self.services.metrics;
                if duplicate {
                    metrics.duplicates[kind].inc()
                } else {
                    metrics.published[kind].inc()
                }
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

    async fn join(
        &mut self,
        room: RoomName,
        me: &Identity,
        was: Option<&Identity>,
        enters: bool,
    ) -> Result<Done, Refusal> {
        let services = Arc::clone(&self.services);
        let session = &me.owner.session;
        // Entering does not give away the place that a session had before.
        let is_new = !self.rooms.contains_key(room.key());
        if enters {
            services.hub.prepare(&room, session, &self.outbox);
            if let Err(error) = services.backplane.subscribe(room.key()).await {
                services.hub.remove(room.key(), session, &self.outbox);
                return Err(refusal(error));
            }
            self.heard.insert(room.key().clone(), ());
            self.rooms.insert(room.key().clone(), room.clone());
        }
        let entry = was.map_or(JoinEntry::New, |was| JoinEntry::Renamed(&was.nick, &was.owner));
        match answered(|| {
            services.registry.join(JoinRequest {
                room: &room,
                nick: &me.nick,
                owner: &me.owner,
                status: &me.status,
                entry,
            })
        })
        .await
        {
            Ok(JoinedAt { room, epoch, seq: top, member_count, forks }) => {
                if is_new {
                    services.holdings.change(&me.owner, |holding| {
                        // Mostly the only one.
                        holding.rooms.reserve_exact(1);
                        holding.rooms.push(room.clone());
                    });
                }
                Ok(Done::Joined { room, head: StreamEnd { epoch, top, forks }, member_count })
            }
            Err(error) => {
                if enters {
                    self.fall_silent(room.key());
                }
                if is_new {
                    self.withdraw(&room, me, &error).await;
                }
                Err(refusal(error))
            }
        }
    }

    async fn leave(&self, room: &RoomName, me: &Identity) -> Result<bool, RegistryError> {
        let registry = &self.services.registry;
        answered(|| {
            registry.leave(LeaveRequest {
                room,
                nick: &me.nick,
                owner: &me.owner,
                reason: LeftReason::Left,
                intent: LeaveIntent::ForGood,
            })
        })
        .await
    }

    fn forget_room(&mut self, me: &Identity, room: &RoomName) {
        self.rooms.remove(room.key());
        self.services.holdings.change(&me.owner, |holding| holding.rooms.retain(|held| held.key() != room.key()));
    }

    /// Undoes a first join that failed or may have been done.
    async fn withdraw(&mut self, room: &RoomName, me: &Identity, error: &RegistryError) {
        if matches!(error, RegistryError::Unknown(_)) && self.leave(room, me).await.is_err() {
            // The member record may be there: only the end of the session can be sure to take it away.
            self.outbox.close(CloseCode::Restart);
        } else {
            self.forget_room(me, room);
        }
    }
}

fn draft(me: Identity, body: Body, key: Option<String>) -> PublishRequest {
    // Version 7 ids sort by time, which keeps logs readable.
    let msg_id = uuid::Uuid::now_v7().to_string();
    PublishRequest { msg_id, key, from: me.nick, owner: me.owner, body, accepted: Accepted::at(SystemTime::now()) }
}

/// What a client hears of a failed call. The inner text stays inside.
pub(super) fn refusal(error: RegistryError) -> Refusal {
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

pub(super) fn unavailable() -> Refusal {
    Refusal { retry_after_ms: Some(RETRY_AFTER_MS), ..ErrorCode::Unavailable.into() }
}
