//! A member of the crowd: comes in, takes its nickname, enters its rooms, talks, and does it all again when it is cut off.
//!
//! A send that was refused for a while, or whose outcome is unknown, is repeated with the same key on the same connection.
//! A key belongs to the session, so what is in flight when a connection ends stays unknown and is never said again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::door::{Address, Door, Heard, Request};
use crate::history::{Kind, Op, Recorder};

/// How long an answer may take: longer than a gateway stands still, so that it is heard what it says when it wakes.
const ANSWER: Duration = Duration::from_secs(25);
/// How long coming in may take in all, refusals included.
const ENTRY: Duration = Duration::from_secs(60);

/// What everybody is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Talk.
    Talk,
    /// Say one last thing in every room, and listen.
    Mark,
    /// Say goodbye.
    Leave,
}

/// What a member is told before it comes.
#[derive(Debug)]
pub struct Orders {
    /// Its name in the history.
    pub process: String,
    /// Its nickname; rivals share one.
    pub nick: String,
    /// Where it comes in.
    pub address: Address,
    /// What it is in; one on the text door.
    pub rooms: Vec<String>,
    /// Rivals hang up after about this time, so that the other one gets the name.
    pub hangs_up_after: Option<Duration>,
    /// Between two things said, about.
    pub pace: Duration,
}

/// One member.
pub struct Person {
    orders: Orders,
    wish: watch::Receiver<Wish>,
    recorder: Recorder,
    rng: Xoshiro256PlusPlus,
    is_seated: Arc<AtomicBool>,
    connection: u32,
    said: u64,
    next_id: u64,
}

/// Something said that has no answer yet.
struct Pending {
    room: String,
    key: String,
    since: Instant,
    again_at: Option<Instant>,
}

type Ended = String;

impl Person {
    pub fn new(orders: Orders, wish: watch::Receiver<Wish>, recorder: Recorder, rng: Xoshiro256PlusPlus) -> Self {
        Self { orders, wish, recorder, rng, is_seated: Arc::default(), connection: 0, said: 0, next_id: 1 }
    }

    /// Whether it is in all its rooms at the moment.
    pub fn seat(&self) -> Arc<AtomicBool> {
        self.is_seated.clone()
    }

    /// Comes again and again until it is told to leave.
    pub async fn live(mut self) {
        while self.wants_in() {
            self.connection += 1;
            let end = match Door::connect(self.orders.address).await {
                Ok(mut door) => {
                    let end = self.visit(&mut door).await;
                    self.is_seated.store(false, Ordering::Relaxed);
                    end.err().unwrap_or_else(|| "said goodbye".to_owned())
                }
                Err(why) => why,
            };
            self.note(Kind::Ok, Op::End { why: end });
            let pause = Duration::from_millis(self.rng.random_range(100..700));
            // Nothing to wait for but the order to leave.
            let _ = timeout(pause, self.wish.wait_for(|wish| *wish == Wish::Leave)).await;
        }
    }

    fn wants_in(&self) -> bool {
        match *self.wish.borrow() {
            Wish::Talk => true,
            Wish::Mark => self.orders.hangs_up_after.is_none(),
            Wish::Leave => false,
        }
    }

    /// One connection, from the nickname to its end.
    async fn visit(&mut self, door: &mut Door) -> Result<(), Ended> {
        let nick = self.orders.nick.clone();
        let taken = Op::Register { nick: nick.clone(), node: None };
        let Heard::Registered { node } = self.enter(door, Request::Register { nick: &nick }, taken).await? else {
            return Err("unexpected answer".to_owned());
        };
        self.note(Kind::Ok, Op::Register { nick, node });
        for room in self.orders.rooms.clone() {
            let joined = Op::Join { room: room.clone(), seq: None };
            let Heard::Joined { room, seq } = self.enter(door, Request::Join { room: &room }, joined).await? else {
                return Err("unexpected answer".to_owned());
            };
            self.note(Kind::Ok, Op::Join { room, seq });
        }
        self.is_seated.store(true, Ordering::Relaxed);
        let mut pending = BTreeMap::new();
        let end = self.talk(door, &mut pending).await;
        for open in pending.into_values() {
            self.note(Kind::Info, sent(open.room, open.key, None, None));
        }
        end
    }

    /// Asks until it is granted; refusals that may pass are tried again.
    async fn enter(&mut self, door: &mut Door, request: Request<'_>, op: Op) -> Result<Heard, Ended> {
        let deadline = Instant::now() + ENTRY;
        while Instant::now() < deadline && self.wants_in() {
            self.note(Kind::Invoke, op.clone());
            door.ask(self.id(), request).await;
            let answer = self.answer(door, Instant::now() + ANSWER).await;
            let code = match answer {
                Ok(Heard::Refused { code, .. }) => code,
                Ok(granted) => return Ok(granted),
                Err(end) => {
                    self.note(Kind::Info, op);
                    return Err(end);
                }
            };
            let is_known = code != "outcome_unknown";
            self.note(if is_known { Kind::Fail } else { Kind::Info }, op.clone());
            let may_pass = ["nick_in_use", "unavailable", "overloaded", "outcome_unknown"];
            if !may_pass.contains(&code.as_str()) {
                return Err(format!("refused: {code}"));
            }
            let pause = Duration::from_millis(self.rng.random_range(200..500));
            if let Ok(heard) = self.answer(door, Instant::now() + pause).await {
                return Err(format!("an answer to nothing: {heard:?}"));
            }
        }
        Err("gave up coming in".to_owned())
    }

    /// The next answer; events before it are noted.
    async fn answer(&mut self, door: &mut Door, deadline: Instant) -> Result<Heard, Ended> {
        loop {
            match timeout_at(deadline, door.next()).await.map_err(|_| "no answer".to_owned())? {
                Heard::Ended { why } => return Err(why),
                answer @ (Heard::Registered { .. } | Heard::Joined { .. } | Heard::Refused { .. }) => {
                    return Ok(answer);
                }
                event => self.hears(event),
            }
        }
    }

    async fn talk(&mut self, door: &mut Door, pending: &mut BTreeMap<u64, Pending>) -> Result<(), Ended> {
        let is_text = matches!(self.orders.address, Address::Lines(_));
        let most_open = match (is_text, self.orders.hangs_up_after) {
            (true, _) => 1,
            (false, None) => 3,
            // Goes on talking to a gateway that stands still, also when the other one has the name already.
            (false, Some(_)) => 60,
        };
        let hangs_up_at =
            self.orders.hangs_up_after.map(|after| Instant::now() + after.mul_f64(self.rng.random_range(0.5..1.5)));
        let mut tick = interval(self.orders.pace.mul_f64(self.rng.random_range(0.7..1.3)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_marked = false;
        loop {
            let mut is_due = false;
            tokio::select! {
                heard = door.next() => match heard {
                    Heard::Ended { why } => return Err(why),
                    heard => self.settle(heard, pending, is_text)?,
                },
                _ = tick.tick() => is_due = true,
            }
            let now = Instant::now();
            if pending.values().any(|open| open.since + ANSWER < now) {
                return Err("no answer".to_owned());
            }
            for (id, open) in pending.iter_mut().filter(|(_, open)| open.again_at.is_some_and(|at| at <= now)) {
                open.again_at = None;
                door.ask(*id, Request::Send { room: &open.room, key: &open.key }).await;
            }
            let wish = *self.wish.borrow();
            // On the text door an echo that was lost with the gateway's subscription is waited for in vain.
            if wish == Wish::Mark && !has_marked && (is_text || pending.is_empty()) {
                has_marked = true;
                for room in self.orders.rooms.clone() {
                    self.say(door, pending, room, "mark").await;
                }
            }
            let is_over = hangs_up_at.is_some_and(|at| at < now || wish != Wish::Talk);
            // A rival on a gateway that stands still waits for what that says when it wakes.
            if is_over && pending.values().all(|open| open.since + Duration::from_secs(2) > now) {
                return Err("hung up".to_owned());
            }
            if wish == Wish::Leave {
                door.ask(0, Request::Bye).await;
                let _ = self.answer(door, now + Duration::from_secs(3)).await;
                return Ok(());
            }
            if wish == Wish::Talk && is_due && pending.len() < most_open {
                let room = self.orders.rooms[self.rng.random_range(0..self.orders.rooms.len())].clone();
                self.say(door, pending, room, "said").await;
            }
        }
    }

    async fn say(&mut self, door: &mut Door, pending: &mut BTreeMap<u64, Pending>, room: String, what: &str) {
        self.said += 1;
        let key = format!("{what}-{}-{}", self.orders.process, self.said);
        self.note(Kind::Invoke, sent(room.clone(), key.clone(), None, None));
        let id = self.id();
        door.ask(id, Request::Send { room: &room, key: &key }).await;
        pending.insert(id, Pending { room, key, since: Instant::now(), again_at: None });
    }

    /// Takes in one thing heard, answers to what is open included.
    fn settle(&mut self, heard: Heard, pending: &mut BTreeMap<u64, Pending>, is_text: bool) -> Result<(), Ended> {
        match heard {
            Heard::Acked { id, msg_id, seq } => {
                if let Some(open) = pending.remove(&id) {
                    self.note(Kind::Ok, sent(open.room, open.key, msg_id, seq));
                }
            }
            Heard::Refused { id, code } => {
                let Some(id) = id.or_else(|| pending.keys().next().copied()) else { return Ok(()) };
                let Some(open) = pending.get_mut(&id) else { return Ok(()) };
                let may_pass = ["unavailable", "overloaded", "outcome_unknown"].contains(&code.as_str());
                if may_pass && !is_text {
                    open.again_at = Some(Instant::now() + Duration::from_millis(self.rng.random_range(100..600)));
                    return Ok(());
                }
                let kind = if code == "outcome_unknown" || code == "internal" { Kind::Info } else { Kind::Fail };
                if let Some(open) = pending.remove(&id) {
                    self.note(kind, sent(open.room, open.key, None, None));
                }
                if !may_pass {
                    return Err(format!("refused: {code}"));
                }
            }
            Heard::Message { ref key, .. } => {
                // The text door acks nothing: what comes back to its sender was said.
                let own = pending.iter().find(|(_, open)| is_text && open.key == *key).map(|(id, _)| *id);
                self.hears(heard);
                if let Some(open) = own.and_then(|id| pending.remove(&id)) {
                    self.note(Kind::Ok, sent(open.room, open.key, None, None));
                }
            }
            event => self.hears(event),
        }
        Ok(())
    }

    fn hears(&self, event: Heard) {
        match event {
            Heard::Message { room, from, key, msg_id, seq } => {
                self.note(Kind::Ok, Op::Message { room, from, key, msg_id, seq });
            }
            Heard::Jump { room, jump } => self.note(Kind::Ok, Op::Jump { room, jump }),
            _ => {}
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&self, kind: Kind, op: Op) {
        self.recorder.note(&self.orders.process, self.connection, kind, op);
    }
}

fn sent(room: String, key: String, msg_id: Option<String>, seq: Option<u64>) -> Op {
    Op::Send { room, key, msg_id, seq }
}
