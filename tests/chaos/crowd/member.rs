//! A member of the crowd: comes in, takes its nickname, enters its rooms, talks, and does it all again when it is cut
//! off.
//!
//! Over WebSocket it goes on with its session, with the places that it has, and in a new one with those of its rooms;
//! rivals and text clients start a new session each time. A message that was refused for a while, or whose outcome is
//! unknown, is sent again with the same key, also on the next connection. A key belongs to its session: a message in
//! flight when the session ends stays unknown and is never sent again.

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

/// How long an answer may take: longer than a gateway stands still, so that it is heard what it says when it wakes.
const ANSWER: Duration = Duration::from_secs(25);
/// How a connection ended that was lost on the way; a fifth of them for long enough that others may see it.
const BROKE_OFF: &str = "broke off";
/// The error code for a session that cannot be resumed.
const SESSION_GONE: &str = "resume_failed";
/// How long coming in may take in all, refusals included.
const ENTRY: Duration = Duration::from_secs(60);

/// The current instruction to all members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrowdMode {
    /// Talk.
    Talk,
    /// Say one last thing in every room, and listen.
    Mark,
    /// Say goodbye.
    Leave,
}

/// The configuration of one member.
#[derive(Debug)]
pub struct MemberScript {
    /// Its name in the history.
    pub process: String,
    /// Its nickname; rivals share one.
    pub nick: String,
    /// The address that it connects to.
    pub address: MemberAddress,
    /// The rooms that it joins; one over text lines.
    pub rooms: Vec<String>,
    /// Nicknames (`@ann`) that it says something to now and then.
    pub friends: Vec<String>,
    /// The delay before its first connection.
    pub comes_after: Duration,
    /// About how long its connections last before they break off, as on a bad network.
    pub breaks_off_after: Option<Duration>,
    /// Rivals hang up after about this time, so that the other one gets the name.
    pub hangs_up_after: Option<Duration>,
    /// Between two things said, about.
    pub pace: Duration,
    /// Maximum number of unanswered messages.
    pub most_open: usize,
}

/// One member.
pub struct CrowdMember {
    orders: MemberScript,
    wish: watch::Receiver<CrowdMode>,
    recorder: Recorder,
    rng: Xoshiro256PlusPlus,
    is_seated: Arc<AtomicBool>,
    /// The number of its sessions so far.
    session: u32,
    /// Goes on with the last one.
    token: Option<String>,
    /// Its position in each room and in its inbox (`@`).
    places: ClientPositions,
    /// A connection that it has given up and whose other end does not know.
    lost: Option<MemberConnection>,
    /// What the line port showed last: refused afterwards, or not known to have been kept when the connection ends.
    shown: Option<PendingSend>,
    /// Unanswered messages, by request id.
    pending: BTreeMap<u64, PendingSend>,
    said: u64,
    next_id: u64,
}

/// Something said that has no answer yet.
struct PendingSend {
    room: String,
    key: String,
    since: Instant,
    again_at: Option<Instant>,
}

type EndReason = String;

impl CrowdMember {
    pub fn new(
        orders: MemberScript,
        wish: watch::Receiver<CrowdMode>,
        recorder: Recorder,
        rng: Xoshiro256PlusPlus,
    ) -> Self {
        Self {
            orders,
            wish,
            recorder,
            rng,
            is_seated: Arc::default(),
            session: 0,
            token: None,
            places: ClientPositions::new(),
            lost: None,
            shown: None,
            pending: BTreeMap::new(),
            said: 0,
            next_id: 1,
        }
    }

    /// True if it is in all its rooms at the moment.
    pub fn seat(&self) -> Arc<AtomicBool> {
        self.is_seated.clone()
    }

    /// Comes again and again until it is told to leave.
    pub async fn live(mut self) {
        self.rest(self.orders.comes_after).await;
        while self.wants_in() {
            let end = match MemberConnection::connect(self.orders.address).await {
                Ok(mut connection) => {
                    let end = self.visit(&mut connection).await;
                    self.is_seated.store(false, Ordering::Relaxed);
                    let end = end.err().unwrap_or_else(|| "said goodbye".to_owned());
                    // Half of the lost ones look to the gateway as if they were still there.
                    self.lost = (end == BROKE_OFF && self.rng.random_ratio(1, 2)).then_some(connection);
                    end
                }
                Err(why) => why,
            };
            let is_far = end == BROKE_OFF && self.rng.random_ratio(1, 5);
            self.note(OpStatus::Ok, HistoryOp::End { why: end });
            let pause = Duration::from_millis(self.rng.random_range(if is_far { 4_000..14_000 } else { 100..700 }));
            self.rest(pause).await;
        }
        self.give_up_pending();
    }

    /// Waits, unless it is told to leave.
    async fn rest(&mut self, pause: Duration) {
        let _ = timeout(pause, self.wish.wait_for(|wish| *wish == CrowdMode::Leave)).await;
    }

    fn wants_in(&self) -> bool {
        match *self.wish.borrow() {
            CrowdMode::Talk => true,
            CrowdMode::Mark => self.orders.hangs_up_after.is_none(),
            CrowdMode::Leave => false,
        }
    }

    /// One connection, from the nickname to its end.
    async fn visit(&mut self, connection: &mut MemberConnection) -> Result<(), EndReason> {
        let there = self.register(connection).await?;
        for room in self.orders.rooms.clone() {
            let since = self.places.get(&room).cloned();
            if since.is_some() && there.contains(&room) {
                continue;
            }
            let joined = HistoryOp::Join { room: room.clone(), seq: None };
            let request = MemberRequest::Join { room: &room, since: since.as_ref() };
            let MemberEvent::Joined { room, place } = self.enter(connection, request, joined).await? else {
                return Err("unexpected answer".to_owned());
            };
            // What it missed comes next, from the place that it had.
            let place = since.or(place);
            self.note(OpStatus::Ok, HistoryOp::Join { room: room.clone(), seq: place.as_ref().map(|place| place.seq) });
            if let Some(place) = place {
                self.places.insert(room, place);
            }
        }
        self.is_seated.store(true, Ordering::Relaxed);
        for open in self.pending.values_mut() {
            (open.since, open.again_at) = (Instant::now(), Some(Instant::now()));
        }
        let end = self.talk(connection).await;
        if self.token.is_none() {
            self.give_up_pending();
        }
        if end.is_err() {
            self.doubt_shown();
        }
        end
    }

    /// Resumes the session that it has, or begins one. Returns the rooms that it is in already.
    async fn register(&mut self, connection: &mut MemberConnection) -> Result<Vec<String>, EndReason> {
        let (nick, token, places) = (self.orders.nick.clone(), self.token.clone(), self.places.clone());
        let resume = token.as_deref().map(|token| (token, &places));
        let resumed = resume.is_some();
        let asked = HistoryOp::Register { nick: nick.clone(), node: None, session: None, resumed };
        let answer = self.enter(connection, MemberRequest::Register { nick: &nick, resume }, asked).await;
        if answer.as_ref().is_err_and(|why| *why == format!("refused: {SESSION_GONE}")) {
            // What was in flight in it stays unknown.
            self.token = None;
            self.give_up_pending();
        }
        let MemberEvent::Registered { node, session, token, inbox, rooms } = answer? else {
            return Err("unexpected answer".to_owned());
        };
        let goes_on = self.orders.hangs_up_after.is_none();
        if !resumed {
            self.session += 1;
            self.places.retain(|at, _| goes_on && at != "@");
        }
        self.note(OpStatus::Ok, HistoryOp::Register { nick, node, session, resumed });
        self.token = token.filter(|_| goes_on);
        if let Some(inbox) = inbox {
            self.places.entry("@".to_owned()).or_insert(inbox);
        }
        Ok(rooms)
    }

    fn give_up_pending(&mut self) {
        for open in std::mem::take(&mut self.pending).into_values() {
            self.note(OpStatus::Info, sent(open.room, open.key, None, None));
        }
    }

    /// The line port answers a refusal only: it may be on its way.
    fn doubt_shown(&mut self) {
        if let Some(shown) = self.shown.take() {
            self.note(OpStatus::Info, sent(shown.room, shown.key, None, None));
        }
    }

    /// Asks until it is granted; refusals that may pass are tried again.
    async fn enter(
        &mut self,
        connection: &mut MemberConnection,
        request: MemberRequest<'_>,
        op: HistoryOp,
    ) -> Result<MemberEvent, EndReason> {
        let deadline = Instant::now() + ENTRY;
        while Instant::now() < deadline && self.wants_in() {
            self.note(OpStatus::Invoke, op.clone());
            connection.ask(self.id(), request).await;
            let answer = self.answer(connection, Instant::now() + ANSWER).await;
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
            let may_pass = ["nick_in_use", "unavailable", "overloaded", "outcome_unknown"];
            if !may_pass.contains(&code.as_str()) {
                return Err(format!("refused: {code}"));
            }
            let pause = Duration::from_millis(self.rng.random_range(200..500));
            if let Ok(heard) = self.answer(connection, Instant::now() + pause).await {
                return Err(format!("an answer to nothing: {heard:?}"));
            }
        }
        Err("gave up coming in".to_owned())
    }

    /// The next answer; events before it are noted.
    async fn answer(&mut self, connection: &mut MemberConnection, deadline: Instant) -> Result<MemberEvent, EndReason> {
        loop {
            match timeout_at(deadline, connection.next()).await.map_err(|_| "no answer".to_owned())? {
                MemberEvent::Ended { why } => return Err(why),
                answer
                @ (MemberEvent::Registered { .. } | MemberEvent::Joined { .. } | MemberEvent::Refused { .. }) => {
                    return Ok(answer);
                }
                event => self.hears(event),
            }
        }
    }

    async fn talk(&mut self, connection: &mut MemberConnection) -> Result<(), EndReason> {
        let is_text = matches!(self.orders.address, MemberAddress::Lines(_));
        let mut about = |after: Duration| Instant::now() + after.mul_f64(self.rng.random_range(0.5..1.5));
        let hangs_up_at = self.orders.hangs_up_after.map(&mut about);
        let breaks_off_at = self.orders.breaks_off_after.map(&mut about);
        let mut tick = interval(self.orders.pace.mul_f64(self.rng.random_range(0.7..1.3)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_marked = false;
        loop {
            let mut is_due = false;
            tokio::select! {
                heard = connection.next() => match heard {
                    MemberEvent::Ended { why } => return Err(why),
                    heard => self.settle(heard, is_text)?,
                },
                _ = tick.tick() => is_due = true,
            }
            let now = Instant::now();
            if self.pending.values().any(|open| open.since + ANSWER < now) {
                return Err("no answer".to_owned());
            }
            for (id, open) in self.pending.iter_mut().filter(|(_, open)| open.again_at.is_some_and(|at| at <= now)) {
                open.again_at = None;
                connection.ask(*id, MemberRequest::Send { room: &open.room, key: &open.key }).await;
            }
            let wish = *self.wish.borrow();
            // On the line port an echo that was lost with the gateway's subscription is waited for in vain.
            let may_mark = wish == CrowdMode::Mark && !has_marked && hangs_up_at.is_none();
            if may_mark && (is_text || self.pending.is_empty()) {
                has_marked = true;
                for room in self.orders.rooms.clone() {
                    self.say(connection, room, "mark").await;
                }
            }
            if wish == CrowdMode::Talk && breaks_off_at.is_some_and(|at| at < now) {
                return Err(BROKE_OFF.to_owned());
            }
            let is_over = hangs_up_at.is_some_and(|at| at < now || wish != CrowdMode::Talk);
            // A rival on a gateway that stands still waits for what that says when it wakes.
            if is_over && self.pending.values().all(|open| open.since + Duration::from_secs(2) > now) {
                // A name whose owner is just gone is kept for it for a while.
                if self.rng.random_ratio(2, 3) {
                    connection.ask(0, MemberRequest::Bye).await;
                }
                return Err("hung up".to_owned());
            }
            if wish == CrowdMode::Leave {
                connection.ask(0, MemberRequest::Bye).await;
                let _ = self.answer(connection, now + Duration::from_secs(3)).await;
                return Ok(());
            }
            if wish == CrowdMode::Talk && is_due && self.pending.len() < self.orders.most_open {
                let to = self.somewhere();
                self.say(connection, to, "said").await;
            }
        }
    }

    /// One of its rooms, or now and then a friend.
    fn somewhere(&mut self) -> String {
        let MemberScript { rooms, friends, .. } = &self.orders;
        let to_friend = !friends.is_empty() && self.rng.random_ratio(1, 40);
        let choice = if to_friend { friends } else { rooms };
        choice[self.rng.random_range(0..choice.len())].clone()
    }

    async fn say(&mut self, connection: &mut MemberConnection, room: String, what: &str) {
        self.said += 1;
        let key = format!("{what}-{}-{}", self.orders.process, self.said);
        self.note(OpStatus::Invoke, sent(room.clone(), key.clone(), None, None));
        let id = self.id();
        connection.ask(id, MemberRequest::Send { room: &room, key: &key }).await;
        self.pending.insert(id, PendingSend { room, key, since: Instant::now(), again_at: None });
    }

    /// Takes in one thing heard, answers to what is open included.
    fn settle(&mut self, heard: MemberEvent, is_text: bool) -> Result<(), EndReason> {
        match heard {
            MemberEvent::Acked { id, msg_id, seq } => {
                if let Some(open) = self.pending.remove(&id) {
                    self.note(OpStatus::Ok, sent(open.room, open.key, msg_id, seq));
                }
            }
            MemberEvent::Refused { id, code } => {
                if code == "outcome_unknown" {
                    self.doubt_shown();
                }
                let Some(id) = id.or_else(|| self.pending.keys().next().copied()) else { return Ok(()) };
                let Some(open) = self.pending.get_mut(&id) else { return Ok(()) };
                let may_pass = ["unavailable", "overloaded", "outcome_unknown"].contains(&code.as_str());
                if may_pass && !is_text {
                    open.again_at = Some(Instant::now() + Duration::from_millis(self.rng.random_range(100..600)));
                    return Ok(());
                }
                let kind =
                    if code == "outcome_unknown" || code == "internal" { OpStatus::Info } else { OpStatus::Fail };
                if let Some(open) = self.pending.remove(&id) {
                    self.note(kind, sent(open.room, open.key, None, None));
                }
                // A friend that never connected has no user yet.
                if !may_pass && code != "no_such_user" {
                    return Err(format!("refused: {code}"));
                }
            }
            MemberEvent::Message { ref key, .. } => {
                // The line port acks nothing: what comes back to its sender was said.
                let own = self.pending.iter().find(|(_, open)| is_text && open.key == *key).map(|(id, _)| *id);
                self.hears(heard);
                if let Some(open) = own.and_then(|id| self.pending.remove(&id)) {
                    self.note(OpStatus::Ok, sent(open.room.clone(), open.key.clone(), None, None));
                    self.shown = Some(open);
                }
            }
            event => self.hears(event),
        }
        Ok(())
    }

    fn hears(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Message { room, from, key, msg_id, seq } => {
                let epoch = self.moves(&room, seq, None);
                self.note(OpStatus::Ok, HistoryOp::Message { room, from, key, msg_id, epoch, seq });
            }
            MemberEvent::Jump { room, jump, epoch } => {
                self.moves(&room, jump.goes_on_after(), epoch);
                self.note(OpStatus::Ok, HistoryOp::Jump { room, jump });
            }
            MemberEvent::Left { room, nicks } if !nicks.is_empty() => {
                self.note(OpStatus::Ok, HistoryOp::Left { room, nicks })
            }
            _ => {}
        }
    }

    /// Notes how far it has heard. Returns the epoch that it is in.
    fn moves(&mut self, room: &str, seq: Option<u64>, epoch: Option<String>) -> Option<String> {
        let at = if room.starts_with('@') { "@" } else { room };
        let (place, seq) = (self.places.get_mut(at)?, seq?);
        place.seq = seq;
        place.epoch = epoch.unwrap_or_else(|| std::mem::take(&mut place.epoch));
        Some(place.epoch.clone())
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&self, kind: OpStatus, op: HistoryOp) {
        self.recorder.note(&self.orders.process, self.session, kind, op);
    }
}

fn sent(room: String, key: String, msg_id: Option<String>, seq: Option<u64>) -> HistoryOp {
    HistoryOp::Send { room, key, msg_id, seq }
}
