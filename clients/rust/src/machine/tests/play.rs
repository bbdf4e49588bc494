//! Plays a machine against the model cluster, with faults that a seed draws, and judges what the application received.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::model::ModelCluster;
use crate::error::ParleyError;
use crate::events::RoomEvent;
use crate::machine::{CallId, Input, Machine, SessionEffect};
use crate::sign_in::TokenText;
use crate::storage::SavedSession;
use crate::wire::ClientRequest;

const ROOMS: [&str; 2] = ["#tea", "#Coffee"];
/// Maximum number of steps until a client without faults has nothing left to do.
const DRAIN_STEPS: usize = 5_000;

/// A client, its network and its clock.
pub(super) struct Play {
    rng: StdRng,
    cluster: ModelCluster,
    machine: Machine,
    now: Duration,
    is_opening: bool,
    is_open: bool,
    /// Time of the question for a token that has no answer yet.
    asked_at: Option<Duration>,
    requests: VecDeque<Value>,
    /// Requests of every call.
    calls: BTreeMap<CallId, ClientRequest>,
    outcomes: BTreeMap<CallId, Result<Value, ParleyError>>,
    aborted: BTreeSet<CallId>,
    /// Events by stream: of a room since its last opening.
    events: BTreeMap<String, Vec<RoomEvent>>,
    open_rooms: BTreeMap<String, u64>,
}

impl Play {
    pub(super) fn new(seed: u64) -> Self {
        let mut play = Self {
            rng: StdRng::seed_from_u64(seed),
            cluster: ModelCluster::new(StdRng::seed_from_u64(!seed)),
            machine: Machine::new("ann".to_owned(), 2, SavedSession::default()).with_user_token(None, true),
            now: Duration::ZERO,
            is_opening: false,
            is_open: false,
            asked_at: None,
            requests: VecDeque::new(),
            calls: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            aborted: BTreeSet::new(),
            events: BTreeMap::from([("@".to_owned(), Vec::new())]),
            open_rooms: BTreeMap::new(),
        };
        play.input(Input::Start);
        play
    }

    fn input(&mut self, input: Input) {
        let random = self.rng.random();
        for effect in self.machine.step(input, self.now, random) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Connect(_) => {
                assert!(!self.is_open && !self.is_opening, "one connection at a time");
                self.is_opening = true;
            }
            SessionEffect::Drop => self.cut(),
            SessionEffect::AskToken => {
                let is_alone = self.asked_at.is_none_or(|asked_at| self.now >= asked_at + Duration::from_secs(10));
                assert!(is_alone, "one question at once, unless the one before has had its time");
                self.asked_at = Some(self.now);
            }
            SessionEffect::Transmit(frame) => {
                assert!(self.is_open, "frames need a connection");
                self.requests.push_back(frame);
            }
            SessionEffect::Answer(id, outcome) => {
                assert!(self.outcomes.insert(id, outcome).is_none(), "one answer");
            }
            SessionEffect::OpenRoom { key, seq, .. } => {
                self.events.insert(key.clone(), Vec::new());
                assert!(self.open_rooms.insert(key, seq).is_none());
            }
            SessionEffect::CloseRoom(key) => assert!(self.open_rooms.remove(&key).is_some()),
            SessionEffect::Deliver(stream, event) => {
                assert!(stream == "@" || self.open_rooms.contains_key(&stream));
                self.events.entry(stream).or_default().push(event);
            }
            SessionEffect::Save { .. }
            | SessionEffect::ChangeState(_)
            | SessionEffect::ChangeNick(_)
            | SessionEffect::Announce(_)
            | SessionEffect::Members(..) => {}
        }
    }

    fn cut(&mut self) {
        self.is_open = false;
        self.is_opening = false;
        self.asked_at = None;
        self.requests.clear();
        self.cluster.disconnect();
    }

    fn close(&mut self, number: Option<u16>) {
        self.cut();
        self.input(Input::Closed(number));
    }

    /// Answers a question for a token. A bad answer is a failure, or a token whose time has passed.
    fn answer_question(&mut self, is_good: bool) {
        if self.asked_at.take().is_some() {
            let token = self.cluster.new_user_token(is_good);
            let fails = !is_good && self.rng.random_bool(0.5);
            self.input(Input::Token((!fails).then_some(Some(TokenText(token)))));
        }
    }

    /// The time of all tokens of the user is over.
    fn expire_tokens(&mut self) {
        self.cluster.valid_tokens.clear();
        if self.is_open && self.cluster.is_attached {
            self.close(Some(4005));
        }
    }

    fn answer_connect(&mut self, succeeds: bool) {
        self.is_opening = false;
        self.is_open = succeeds;
        self.input(if succeeds { Input::Open } else { Input::Failed(None) });
    }

    fn serve(&mut self, refusal: Option<&str>) {
        if let Some(request) = self.requests.pop_front()
            && self.cluster.handle(&request, refusal)
        {
            self.close(Some(1000));
        }
    }

    fn receive(&mut self) {
        if let Some(frame) = self.cluster.output.pop_front() {
            self.input(Input::Frame(frame));
        }
    }

    fn tick(&mut self) {
        if let Some(due) = self.machine.next_at() {
            self.now = self.now.max(due);
            self.input(Input::Tick);
        }
    }

    fn call(&mut self, request: ClientRequest) {
        let id = self.calls.len() as CallId;
        self.calls.insert(id, request.clone());
        self.input(Input::Call(id, request));
    }

    fn random_call(&mut self) {
        let room = (*ROOMS.choose(&mut self.rng).expect("rooms")).to_owned();
        match self.rng.random_range(0..20) {
            0..12 => self.send(&room),
            12..15 => self.send("bob"),
            15..18 => self.call(ClientRequest::Join { room, since: None }),
            18 => self.call(ClientRequest::Leave { room }),
            _ => self.call(ClientRequest::Whois { nick: "bob".to_owned() }),
        }
    }

    fn send(&mut self, to: &str) {
        let number = self.calls.len();
        self.call(ClientRequest::Send { to: to.to_owned(), body: number.into(), key: format!("k{number}") });
    }

    fn abort(&mut self) {
        let waiting: Vec<CallId> = self.calls.keys().filter(|id| !self.outcomes.contains_key(id)).copied().collect();
        if let Some(id) = waiting.choose(&mut self.rng) {
            self.aborted.insert(*id);
            self.input(Input::Abort(*id));
        }
    }

    /// One step of the client, the network, the cluster or the clock.
    pub(super) fn random_step(&mut self) {
        let room = ROOMS.choose(&mut self.rng).expect("rooms").to_lowercase();
        match self.rng.random_range(0..1_000) {
            0..80 => self.random_call(),
            80..370 => {
                let refusals = [None, None, None, None, None, Some("unavailable"), Some("outcome_unknown")];
                let refusal = *refusals.choose(&mut self.rng).expect("refusals");
                self.serve(refusal);
            }
            370..780 => self.receive(),
            780..860 => {
                let target = if self.rng.random_bool(0.3) { "ann" } else { &room };
                self.cluster.other_sends(target);
            }
            860..890 => self.tick(),
            890..905 if self.is_open => {
                let number = *[None, Some(1011), Some(1012), Some(4002)].choose(&mut self.rng).expect("numbers");
                self.close(number);
            }
            905..915 => self.abort(),
            915..920 => {
                let count = self.rng.random_range(0..4);
                self.cluster.lose(&room, count);
            }
            920..925 if !self.is_open => self.cluster.trim(self.rng.random_range(0..4)),
            925..940 => {
                let stream = if self.rng.random_bool(0.3) { "@".to_owned() } else { room };
                let pauses = self.rng.random_bool(0.4);
                self.input(if pauses { Input::Pause(stream) } else { Input::Unpause(stream) });
            }
            940..945 if self.cluster.is_attached => {
                self.cluster.output.push_back(serde_json::json!({"type": "going_away", "retry_after_ms": 10}));
            }
            945..948 => self.cluster.forget_session(),
            948..951 => self.cluster.forget_room(&room),
            951..953 => self.expire_tokens(),
            953..956 if self.cluster.is_attached => {
                self.cluster.output.push_back(serde_json::json!({"type": "expiring", "expires_in_ms": 20_000}));
            }
            _ if self.asked_at.is_some() => {
                let is_good = self.rng.random_bool(0.8);
                self.answer_question(is_good);
            }
            _ if self.is_opening => {
                let succeeds = self.rng.random_bool(0.8);
                self.answer_connect(succeeds);
            }
            _ => {}
        }
    }

    /// Ends all faults, and plays on until every call has its answer and nothing is under way.
    pub(super) fn drain(&mut self) {
        for stream in ["@", "#tea", "#coffee"] {
            self.input(Input::Unpause(stream.to_owned()));
        }
        for _ in 0..DRAIN_STEPS {
            let is_waiting = self.calls.keys().any(|id| !self.outcomes.contains_key(id) && !self.aborted.contains(id));
            if self.asked_at.is_some() {
                self.answer_question(true);
            } else if self.is_opening {
                self.answer_connect(true);
            } else if !self.cluster.output.is_empty() {
                self.receive();
            } else if !self.requests.is_empty() {
                self.serve(None);
            } else if is_waiting || !self.is_open || self.has_soon() {
                self.tick();
            } else {
                return;
            }
        }
        panic!("the client does not come to rest");
    }

    /// Returns true if something is due before the next heartbeat.
    fn has_soon(&self) -> bool {
        self.machine.next_at().is_some_and(|due| due < self.now + Duration::from_secs(29))
    }

    // Judgements

    pub(super) fn judge(&self) {
        for (id, request) in &self.calls {
            assert!(self.outcomes.contains_key(id) || self.aborted.contains(id), "no answer: {request:?}");
        }
        self.judge_sends();
        let session = self.cluster.session.as_ref().expect("a session");
        let open: BTreeSet<String> = self.open_rooms.keys().cloned().collect();
        assert_eq!(open, session.rooms, "rooms of the client, and of the server");
        let received: Vec<&Value> = self.messages("@").map(|message| &message.body).collect();
        let sent: Vec<&Value> = session.inbox.items.iter().map(|item| &item["body"]).collect();
        assert_eq!(received.iter().collect::<HashSet<_>>().len(), received.len(), "a direct message comes twice");
        assert!(received.ends_with(&sent), "a direct message is missing: {received:?}, sent {sent:?}");
        for (key, start) in &self.open_rooms {
            self.judge_room(key, *start);
        }
    }

    fn messages(&self, stream: &str) -> impl Iterator<Item = &crate::events::Message> {
        self.events[stream].iter().filter_map(|event| match event {
            RoomEvent::Message(message) if message.seq.is_some() => Some(message),
            _ => None,
        })
    }

    fn judge_sends(&self) {
        let stored = &self.cluster.stored;
        for target in ["#tea", "#coffee", "bob"] {
            let bodies: Vec<u64> =
                stored.iter().filter(|(to, _)| to == target).filter_map(|(_, body)| body.as_u64()).collect();
            assert!(bodies.is_sorted_by(|one, other| one < other), "order or a double: {target} {bodies:?}");
        }
        for (id, request) in &self.calls {
            let ClientRequest::Send { to, body, .. } = request else { continue };
            if let Some(Ok(_)) = self.outcomes.get(id) {
                assert!(
                    stored.contains(&(to.to_lowercase(), body.clone())),
                    "acknowledged, and not stored: {request:?}"
                );
            }
        }
    }

    fn judge_room(&self, key: &str, start: u64) {
        let stream = &self.cluster.rooms[key];
        let (mut seq, mut kept, mut seen) = (start, BTreeMap::new(), HashSet::new());
        for event in &self.events[key] {
            match event {
                RoomEvent::Rewind { seq: last } => {
                    assert!(*last <= seq);
                    kept.retain(|seq, _| seq <= last);
                    seq = *last;
                }
                RoomEvent::Gap { from_seq, to_seq } => {
                    assert!(*from_seq == seq + 1 && from_seq <= to_seq, "{key}: {seq}, then {event:?}");
                    seq = *to_seq;
                }
                RoomEvent::Message(message) => {
                    assert_eq!(message.seq, Some(seq + 1), "{key}: after {seq}");
                    assert_eq!(message.repeated, !seen.insert(message.id.as_str()));
                    seq += 1;
                    kept.insert(seq, message.id.as_str());
                }
                RoomEvent::Typing { .. } | RoomEvent::Members(_) => {}
            }
        }
        assert_eq!(seq, stream.top, "{key}: messages are missing");
        for item in &stream.items {
            let id = item["seq"].as_u64().and_then(|seq| kept.get(&seq));
            assert!(id.is_none_or(|id| item["msg_id"] == *id), "{key}: {item} is {id:?} here");
        }
    }
}
