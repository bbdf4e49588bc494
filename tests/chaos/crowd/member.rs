//! A member of the crowd: connects, registers, joins its rooms and sends messages, and reconnects after each
//! disconnect.
//!
//! Over WebSocket it resumes its session with its positions; a new session keeps the positions of its rooms. Rivals and
//! line clients start a new session each time. A message with a transient refusal or an unknown outcome is sent again
//! with the same key, also on the next connection. A key belongs to its session: a message in flight at the end of the
//! session stays unknown and is never sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::connection::{ClientPositions, MemberAddress, MemberConnection, MemberEvent, MemberRequest};
use crate::history::{HistoryOp, OpStatus, Recorder};

/// Time limit for a reply: longer than any stop of a gateway, so replies after the stop still arrive.
const REPLY_MAX: Duration = Duration::from_secs(25);
/// End reason of a simulated connection loss. A fifth of them last long enough for other members to see a leave.
const CONNECTION_LOST: &str = "connection lost";
/// The error code for a session that cannot be resumed.
const SESSION_GONE: &str = "resume_failed";
/// Time limit for a registration or a join, including refusals.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Instruction to all members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrowdMode {
    /// Messages at the member's rate.
    Chat,
    /// One last message in every room, without further messages.
    Mark,
    /// A leave with `bye`.
    Leave,
}

/// Configuration of one member.
#[derive(Debug)]
pub struct MemberScript {
    /// Name in the history.
    pub process: String,
    /// Nickname; rivals share one.
    pub nick: String,
    pub address: MemberAddress,
    /// Joined rooms; only one over text lines.
    pub rooms: Vec<String>,
    /// Nicknames (`@ann`) that occasionally receive a direct message.
    pub friends: Vec<String>,
    /// Delay before the first connection.
    pub starts_after: Duration,
    /// Approximate time after which a connection is lost, as on a bad network.
    pub connection_loss_after: Option<Duration>,
    /// Approximate time after which a rival closes its connection, so that the other rival gets the nick.
    pub closes_after: Option<Duration>,
    /// Approximate interval between two messages.
    pub send_interval: Duration,
    /// Maximum number of unanswered messages.
    pub unanswered_max: usize,
}

/// State of a member across its connections.
pub struct CrowdMember {
    script: MemberScript,
    mode: watch::Receiver<CrowdMode>,
    recorder: Recorder,
    rng: Xoshiro256PlusPlus,
    is_joined: Arc<AtomicBool>,
    /// Number of sessions so far.
    session: u32,
    /// Token to resume the last session.
    token: Option<String>,
    /// Position in each room and in the inbox (`@`).
    positions: ClientPositions,
    /// An abandoned connection that is still open for the server.
    abandoned: Option<MemberConnection>,
    /// Last message echoed by the line port. A later refusal or the end of the connection makes its outcome unknown.
    echoed: Option<PendingSend>,
    /// Unanswered messages, by request id.
    pending: BTreeMap<u64, PendingSend>,
    sends: u64,
    next_id: u64,
}

/// An unanswered message.
struct PendingSend {
    room: String,
    key: String,
    since: Instant,
    retry_at: Option<Instant>,
}

type EndReason = String;

impl CrowdMember {
    pub fn new(
        script: MemberScript,
        mode: watch::Receiver<CrowdMode>,
        recorder: Recorder,
        rng: Xoshiro256PlusPlus,
    ) -> Self {
        Self {
            script,
            mode,
            recorder,
            rng,
            is_joined: Arc::default(),
            session: 0,
            token: None,
            positions: ClientPositions::new(),
            abandoned: None,
            echoed: None,
            pending: BTreeMap::new(),
            sends: 0,
            next_id: 1,
        }
    }

    /// Returns a flag that is true while the member is in all its rooms.
    pub fn joined_flag(&self) -> Arc<AtomicBool> {
        self.is_joined.clone()
    }

    /// Connects and reconnects until the mode is [`CrowdMode::Leave`].
    pub async fn run(mut self) {
        self.pause(self.script.starts_after).await;
        while self.should_connect() {
            let end = match MemberConnection::connect(self.script.address).await {
                Ok(mut connection) => {
                    let end = self.use_connection(&mut connection).await;
                    self.is_joined.store(false, Ordering::Relaxed);
                    let end = end.err().unwrap_or_else(|| "left".to_owned());
                    // Half of the lost connections stay open for the gateway.
                    self.abandoned = (end == CONNECTION_LOST && self.rng.random_ratio(1, 2)).then_some(connection);
                    end
                }
                Err(reason) => reason,
            };
            let is_long = end == CONNECTION_LOST && self.rng.random_ratio(1, 5);
            self.note(OpStatus::Ok, HistoryOp::End { reason: end });
            let pause = Duration::from_millis(self.rng.random_range(if is_long { 4_000..14_000 } else { 100..700 }));
            self.pause(pause).await;
        }
        self.abandon_pending();
    }

    /// Waits, but not longer than until the mode is [`CrowdMode::Leave`].
    async fn pause(&mut self, pause: Duration) {
        let _ = timeout(pause, self.mode.wait_for(|mode| *mode == CrowdMode::Leave)).await;
    }

    fn should_connect(&self) -> bool {
        match *self.mode.borrow() {
            CrowdMode::Chat => true,
            CrowdMode::Mark => self.script.closes_after.is_none(),
            CrowdMode::Leave => false,
        }
    }

    /// Registers, joins all rooms, and sends messages until the connection ends.
    async fn use_connection(&mut self, connection: &mut MemberConnection) -> Result<(), EndReason> {
        let resumed_rooms = self.register(connection).await?;
        for room in self.script.rooms.clone() {
            let since = self.positions.get(&room).cloned();
            if since.is_some() && resumed_rooms.contains(&room) {
                continue;
            }
            let joined = HistoryOp::Join { room: room.clone(), seq: None };
            let request = MemberRequest::Join { room: &room, since: since.as_ref() };
            let MemberEvent::Joined { room, position } =
                self.request_until_granted(connection, request, joined).await?
            else {
                return Err("unexpected reply".to_owned());
            };
            // Missed messages follow from the earlier position.
            let position = since.or(position);
            self.note(
                OpStatus::Ok,
                HistoryOp::Join { room: room.clone(), seq: position.as_ref().map(|position| position.seq) },
            );
            if let Some(position) = position {
                self.positions.insert(room, position);
            }
        }
        self.is_joined.store(true, Ordering::Relaxed);
        for open in self.pending.values_mut() {
            (open.since, open.retry_at) = (Instant::now(), Some(Instant::now()));
        }
        let end = self.chat(connection).await;
        if self.token.is_none() {
            self.abandon_pending();
        }
        if end.is_err() {
            self.doubt_echoed();
        }
        end
    }

    /// Resumes the session or begins a new one. Returns the rooms of a resumed session.
    async fn register(&mut self, connection: &mut MemberConnection) -> Result<Vec<String>, EndReason> {
        let (nick, token, positions) = (self.script.nick.clone(), self.token.clone(), self.positions.clone());
        let resume = token.as_deref().map(|token| (token, &positions));
        let resumed = resume.is_some();
        let op = HistoryOp::Register { nick: nick.clone(), node: None, session: None, resumed };
        let answer = self.request_until_granted(connection, MemberRequest::Register { nick: &nick, resume }, op).await;
        if answer.as_ref().is_err_and(|reason| *reason == format!("refused: {SESSION_GONE}")) {
            // Messages in flight in this session stay unknown.
            self.token = None;
            self.abandon_pending();
        }
        let MemberEvent::Registered { node, session, token, inbox, rooms } = answer? else {
            return Err("unexpected reply".to_owned());
        };
        let keeps_session = self.script.closes_after.is_none();
        if !resumed {
            self.session += 1;
            self.positions.retain(|at, _| keeps_session && at != "@");
        }
        self.note(OpStatus::Ok, HistoryOp::Register { nick, node, session, resumed });
        self.token = token.filter(|_| keeps_session);
        if let Some(inbox) = inbox {
            self.positions.entry("@".to_owned()).or_insert(inbox);
        }
        Ok(rooms)
    }

    fn abandon_pending(&mut self) {
        for open in std::mem::take(&mut self.pending).into_values() {
            self.note(OpStatus::Info, sent(open.room, open.key, None, None));
        }
    }

    /// Records the echoed message as unknown: the line port sends only refusals, and one may be in flight.
    fn doubt_echoed(&mut self) {
        if let Some(echoed) = self.echoed.take() {
            self.note(OpStatus::Info, sent(echoed.room, echoed.key, None, None));
        }
    }

    /// Repeats a request until it is granted or the refusal is permanent.
    async fn request_until_granted(
        &mut self,
        connection: &mut MemberConnection,
        request: MemberRequest<'_>,
        op: HistoryOp,
    ) -> Result<MemberEvent, EndReason> {
        let deadline = Instant::now() + REQUEST_MAX;
        while Instant::now() < deadline && self.should_connect() {
            self.note(OpStatus::Invoke, op.clone());
            connection.request(self.id(), request).await;
            let answer = self.next_reply(connection, Instant::now() + REPLY_MAX).await;
            let code = match answer {
                Ok(MemberEvent::Refused { code, .. }) => code,
                Ok(granted) => return Ok(granted),
                Err(end) => {
                    self.note(OpStatus::Info, op);
                    return Err(end);
                }
            };
            let is_known = code != "outcome_unknown";
            self.note(if is_known { OpStatus::Fail } else { OpStatus::Info }, op.clone());
            let transient = ["nick_in_use", "unavailable", "overloaded", "outcome_unknown"];
            if !transient.contains(&code.as_str()) {
                return Err(format!("refused: {code}"));
            }
            let pause = Duration::from_millis(self.rng.random_range(200..500));
            if let Ok(event) = self.next_reply(connection, Instant::now() + pause).await {
                return Err(format!("unexpected reply: {event:?}"));
            }
        }
        Err("request not granted in time".to_owned())
    }

    /// Returns the next reply, and records the events before it.
    async fn next_reply(
        &mut self,
        connection: &mut MemberConnection,
        deadline: Instant,
    ) -> Result<MemberEvent, EndReason> {
        loop {
            match timeout_at(deadline, connection.next()).await.map_err(|_| "no reply".to_owned())? {
                MemberEvent::Ended { reason } => return Err(reason),
                answer
                @ (MemberEvent::Registered { .. } | MemberEvent::Joined { .. } | MemberEvent::Refused { .. }) => {
                    return Ok(answer);
                }
                event => self.record_event(event),
            }
        }
    }

    async fn chat(&mut self, connection: &mut MemberConnection) -> Result<(), EndReason> {
        let is_text = matches!(self.script.address, MemberAddress::Lines(_));
        let mut jittered = |after: Duration| Instant::now() + after.mul_f64(self.rng.random_range(0.5..1.5));
        let closes_at = self.script.closes_after.map(&mut jittered);
        let connection_loss_at = self.script.connection_loss_after.map(&mut jittered);
        let mut tick = interval(self.script.send_interval.mul_f64(self.rng.random_range(0.7..1.3)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_marked = false;
        loop {
            let mut is_due = false;
            tokio::select! {
                event = connection.next() => match event {
                    MemberEvent::Ended { reason } => return Err(reason),
                    event => self.handle_event(event, is_text)?,
                },
                _ = tick.tick() => is_due = true,
            }
            let now = Instant::now();
            if self.pending.values().any(|open| open.since + REPLY_MAX < now) {
                return Err("no reply".to_owned());
            }
            for (id, open) in self.pending.iter_mut().filter(|(_, open)| open.retry_at.is_some_and(|at| at <= now)) {
                open.retry_at = None;
                connection.request(*id, MemberRequest::Send { room: &open.room, key: &open.key }).await;
            }
            let mode = *self.mode.borrow();
            // On the line port an echo may be lost with the gateway's subscription, so a line client does not wait for
            // it.
            let may_mark = mode == CrowdMode::Mark && !has_marked && closes_at.is_none();
            if may_mark && (is_text || self.pending.is_empty()) {
                has_marked = true;
                for room in self.script.rooms.clone() {
                    self.send(connection, room, "mark").await;
                }
            }
            if mode == CrowdMode::Chat && connection_loss_at.is_some_and(|at| at < now) {
                return Err(CONNECTION_LOST.to_owned());
            }
            let is_closing = closes_at.is_some_and(|at| at < now || mode != CrowdMode::Chat);
            // A rival on a stopped gateway waits for the replies after the stop.
            if is_closing && self.pending.values().all(|open| open.since + Duration::from_secs(2) > now) {
                // Without a `bye` the nick is held for a while.
                if self.rng.random_ratio(2, 3) {
                    connection.request(0, MemberRequest::Bye).await;
                }
                return Err("closed".to_owned());
            }
            if mode == CrowdMode::Leave {
                connection.request(0, MemberRequest::Bye).await;
                let _ = self.next_reply(connection, now + Duration::from_secs(3)).await;
                return Ok(());
            }
            if mode == CrowdMode::Chat && is_due && self.pending.len() < self.script.unanswered_max {
                let to = self.choose_target();
                self.send(connection, to, "chat").await;
            }
        }
    }

    /// Returns one of the rooms, or occasionally a friend.
    fn choose_target(&mut self) -> String {
        let MemberScript { rooms, friends, .. } = &self.script;
        let to_friend = !friends.is_empty() && self.rng.random_ratio(1, 40);
        let choice = if to_friend { friends } else { rooms };
        choice[self.rng.random_range(0..choice.len())].clone()
    }

    async fn send(&mut self, connection: &mut MemberConnection, room: String, what: &str) {
        self.sends += 1;
        let key = format!("{what}-{}-{}", self.script.process, self.sends);
        self.note(OpStatus::Invoke, sent(room.clone(), key.clone(), None, None));
        let id = self.id();
        connection.request(id, MemberRequest::Send { room: &room, key: &key }).await;
        self.pending.insert(id, PendingSend { room, key, since: Instant::now(), retry_at: None });
    }

    /// Handles an event, and matches replies to pending messages.
    fn handle_event(&mut self, event: MemberEvent, is_text: bool) -> Result<(), EndReason> {
        match event {
            MemberEvent::Acked { id, msg_id, seq } => {
                if let Some(open) = self.pending.remove(&id) {
                    self.note(OpStatus::Ok, sent(open.room, open.key, msg_id, seq));
                }
            }
            MemberEvent::Refused { id, code } => {
                if code == "outcome_unknown" {
                    self.doubt_echoed();
                }
                let Some(id) = id.or_else(|| self.pending.keys().next().copied()) else { return Ok(()) };
                let Some(open) = self.pending.get_mut(&id) else { return Ok(()) };
                let is_transient = ["unavailable", "overloaded", "outcome_unknown"].contains(&code.as_str());
                if is_transient && !is_text {
                    open.retry_at = Some(Instant::now() + Duration::from_millis(self.rng.random_range(100..600)));
                    return Ok(());
                }
                let kind =
                    if code == "outcome_unknown" || code == "internal" { OpStatus::Info } else { OpStatus::Fail };
                if let Some(open) = self.pending.remove(&id) {
                    self.note(kind, sent(open.room, open.key, None, None));
                }
                // A friend that never connected is not a user yet.
                if !is_transient && code != "no_such_user" {
                    return Err(format!("refused: {code}"));
                }
            }
            MemberEvent::Message { ref key, .. } => {
                // The line port sends no acks: the echo proves that the message was stored.
                let own = self.pending.iter().find(|(_, open)| is_text && open.key == *key).map(|(id, _)| *id);
                self.record_event(event);
                if let Some(open) = own.and_then(|id| self.pending.remove(&id)) {
                    self.note(OpStatus::Ok, sent(open.room.clone(), open.key.clone(), None, None));
                    self.echoed = Some(open);
                }
            }
            event => self.record_event(event),
        }
        Ok(())
    }

    fn record_event(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Message { room, from, key, msg_id, seq } => {
                let epoch = self.update_position(&room, seq, None);
                self.note(OpStatus::Ok, HistoryOp::Message { room, from, key, msg_id, epoch, seq });
            }
            MemberEvent::Jump { room, jump, epoch } => {
                self.update_position(&room, jump.new_position(), epoch);
                self.note(OpStatus::Ok, HistoryOp::Jump { room, jump });
            }
            MemberEvent::Left { room, nicks } if !nicks.is_empty() => {
                self.note(OpStatus::Ok, HistoryOp::Left { room, nicks })
            }
            _ => {}
        }
    }

    /// Updates the position in a room. Returns its epoch.
    fn update_position(&mut self, room: &str, seq: Option<u64>, epoch: Option<String>) -> Option<String> {
        let at = if room.starts_with('@') { "@" } else { room };
        let (position, seq) = (self.positions.get_mut(at)?, seq?);
        position.seq = seq;
        position.epoch = epoch.unwrap_or_else(|| std::mem::take(&mut position.epoch));
        Some(position.epoch.clone())
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&self, kind: OpStatus, op: HistoryOp) {
        self.recorder.note(&self.script.process, self.session, kind, op);
    }
}

fn sent(room: String, key: String, msg_id: Option<String>, seq: Option<u64>) -> HistoryOp {
    HistoryOp::Send { room, key, msg_id, seq }
}
