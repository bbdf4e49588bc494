//! A machine on a stage: a test feeds frames, and looks at the effects.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::{CallId, Input, Machine, SessionEffect};
use crate::storage::SavedSession;
use crate::wire::ClientRequest;

/// A machine with a clock, and the effects that no test has looked at.
pub(super) struct Stage {
    machine: Machine,
    pub(super) now: Duration,
    effects: Vec<SessionEffect>,
    calls: CallId,
}

impl Stage {
    pub(super) fn new(saved: SavedSession) -> Self {
        Self::of(Machine::new("ann".to_owned(), 2, saved))
    }

    /// Returns a stage whose machine has started.
    pub(super) fn of(machine: Machine) -> Self {
        let mut stage = Self { machine, now: Duration::ZERO, effects: Vec::new(), calls: 0 };
        stage.input(Input::Start);
        stage
    }

    /// Returns a stage whose session is registered.
    pub(super) fn online() -> Self {
        let mut stage = Self::new(SavedSession::default());
        stage.open();
        stage.register(&[]);
        stage.reply("ping", &json!({"type": "pong"}));
        stage.effects.clear();
        stage
    }

    /// Returns a stage whose session is in `#tea`, at seq 3.
    pub(super) fn in_tea() -> Self {
        let mut stage = Self::online();
        let call = stage.join("#tea");
        stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
        stage.reply("members", &json!({"type": "members", "items": [], "next_cursor": null}));
        assert_eq!(stage.answer(call), Some(Ok(json!("#tea"))));
        stage.effects.clear();
        stage
    }

    pub(super) fn input(&mut self, input: Input) {
        self.effects.extend(self.machine.step(input, self.now, 0.5));
    }

    /// Opens the connection, and checks that a `register` follows.
    pub(super) fn open(&mut self) {
        self.input(Input::Open);
        assert_eq!(self.last_request()["type"], "register");
    }

    /// Answers `register`. The session has these rooms.
    pub(super) fn register(&mut self, rooms: &[&str]) {
        let rooms: Vec<Value> = rooms.iter().map(|room| json!({"room": room, "epoch": "e", "seq": 9})).collect();
        let inbox = json!({"epoch": "i", "seq": 5});
        self.reply(
            "register",
            &json!({"type": "registered", "nick": "ann", "session": "s", "resume": "token",
            "rooms": rooms, "inbox": inbox, "heartbeat_ms": 30_000, "node": "g1", "time": 1}),
        );
    }

    /// Loses the connection, and opens another one up to the answer of `register`.
    pub(super) fn resume(&mut self, rooms: &[&str]) {
        self.input(Input::Closed(None));
        self.tick();
        self.open();
        self.register(rooms);
    }

    /// Advances the clock to the next deadline.
    pub(super) fn tick(&mut self) {
        self.now = self.machine.next_at().expect("something is due").max(self.now);
        self.input(Input::Tick);
    }

    pub(super) fn next_in(&self) -> Option<Duration> {
        self.machine.next_at().map(|due| due - self.now)
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.machine.token()
    }

    pub(super) fn event(&mut self, frame: &Value) {
        self.input(Input::Frame(frame.clone()));
    }

    /// Answers the newest request of a type.
    pub(super) fn reply(&mut self, to: &str, reply: &Value) {
        let requests = self.requests();
        let request = requests.iter().rev().find(|request| request["type"] == to);
        let mut reply = reply.clone();
        reply["id"] = request.unwrap_or_else(|| panic!("no {to} in {requests:?}"))["id"].clone();
        self.event(&reply);
    }

    pub(super) fn refuse(&mut self, to: &str, code: &str) {
        self.reply(to, &json!({"type": "error", "code": code, "message": ""}));
    }

    pub(super) fn call(&mut self, request: ClientRequest) -> CallId {
        self.calls += 1;
        self.input(Input::Call(self.calls, request));
        self.calls
    }

    pub(super) fn join(&mut self, room: &str) -> CallId {
        self.call(ClientRequest::Join { room: room.to_owned(), since: None })
    }

    pub(super) fn send(&mut self, to: &str, body: i32) -> CallId {
        self.call(ClientRequest::Send { to: to.to_owned(), body: body.into(), key: format!("k{body}") })
    }

    /// Returns the requests that were transmitted.
    pub(super) fn requests(&self) -> Vec<Value> {
        let request = |effect: &SessionEffect| match effect {
            SessionEffect::Transmit(frame) => Some(frame.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(request).collect()
    }

    pub(super) fn last_request(&self) -> Value {
        self.requests().pop().unwrap_or_default()
    }

    /// Returns the types of the transmitted requests since the last `clear`.
    pub(super) fn request_types(&self) -> Vec<String> {
        self.requests().iter().map(|request| request["type"].as_str().expect("a type").to_owned()).collect()
    }

    /// Returns the only answer of a call so far, with the code of an error.
    pub(super) fn answer(&self, call: CallId) -> Option<Result<Value, String>> {
        let mut answers = self.effects.iter().filter_map(|effect| match effect {
            SessionEffect::Answer(id, outcome) if *id == call => {
                Some(outcome.clone().map_err(|error| error.code().to_owned()))
            }
            _ => None,
        });
        let answer = answers.next();
        assert!(answers.next().is_none(), "one answer");
        answer
    }

    pub(super) fn code(&self, call: CallId) -> Option<String> {
        self.answer(call).and_then(Result::err)
    }

    pub(super) fn clear(&mut self) {
        self.effects.clear();
    }

    pub(super) fn effects(&self) -> &[SessionEffect] {
        &self.effects
    }
}
