//! A model of a cluster for one client, without IO: a session, rooms, an inbox, and their losses. It follows
//! gateway/PROTOCOL.md as far as the client can observe it, and remembers everything that was ever stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Numbered messages, of which the oldest may be trimmed and the newest lost.
pub(super) struct ModelStream {
    name: String,
    epoch: String,
    pub(super) items: Vec<Value>,
    pub(super) top: u64,
    /// Former epochs, with the last seq that each shares with the present one.
    forks: BTreeMap<String, u64>,
}

impl ModelStream {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), epoch: "e0".to_owned(), items: Vec::new(), top: 0, forks: BTreeMap::new() }
    }

    fn append(&mut self, from: &str, to: &str, body: &Value, id: &str) -> Value {
        self.top += 1;
        let item = json!({"type": "message", "to": to, "from": from, "msg_id": id, "seq": self.top, "time": 1,
            "body": body});
        self.items.push(item.clone());
        item
    }

    /// Loses the newest messages, and begins an epoch. Returns the lost messages.
    fn lose(&mut self, count: u64) -> Vec<Value> {
        let fork = self.top.saturating_sub(count);
        let is_kept = |item: &Value| item["seq"].as_u64().is_some_and(|seq| seq <= fork);
        let (kept, lost) = std::mem::take(&mut self.items).into_iter().partition(is_kept);
        self.items = kept;
        self.forks.values_mut().for_each(|seq| *seq = fork.min(*seq));
        self.forks.insert(self.epoch.clone(), fork);
        self.epoch = format!("e{}", self.forks.len());
        self.top = fork;
        lost
    }

    /// Returns the events that continue a position.
    fn after(&self, position: &Value) -> Vec<Value> {
        let (epoch, mut seq) =
            (position["epoch"].as_str().expect("an epoch"), position["seq"].as_u64().expect("a seq"));
        let mut events = Vec::new();
        if epoch != self.epoch || seq > self.top {
            let fork = if epoch == self.epoch { Some(&self.top) } else { self.forks.get(epoch) };
            let is_kept = fork.is_some_and(|fork| seq <= *fork);
            let fork = fork.copied().unwrap_or(0);
            seq = seq.min(fork);
            let kind = if is_kept { "epoch" } else { "rewound" };
            events.push(json!({"type": kind, "to": self.name, "epoch": self.epoch, "seq": fork}));
        }
        let missed: Vec<Value> = self.items.iter().filter(|item| item["seq"].as_u64() > Some(seq)).cloned().collect();
        let first = missed.first().map_or(self.top + 1, |item| item["seq"].as_u64().expect("a seq"));
        if first > seq + 1 {
            events.push(json!({"type": "gap", "to": self.name, "from_seq": seq + 1, "to_seq": first - 1}));
        }
        events.extend(missed);
        events
    }

    fn end(&self) -> Value {
        json!({"epoch": self.epoch, "seq": self.top})
    }
}

/// A session with its rooms, tokens, inbox and keys.
pub(super) struct ModelSession {
    nick: String,
    pub(super) rooms: BTreeSet<String>,
    tokens: Vec<String>,
    pub(super) inbox: ModelStream,
    acks: BTreeMap<(String, String), Value>,
}

/// The cluster, and the connection of the client if there is one.
pub(super) struct ModelCluster {
    pub(super) rng: StdRng,
    pub(super) rooms: BTreeMap<String, ModelStream>,
    pub(super) session: Option<ModelSession>,
    pub(super) is_attached: bool,
    /// Rooms that deliver over the connection.
    live: BTreeSet<String>,
    pub(super) output: VecDeque<Value>,
    /// Target and body of every message of the client, in the order of storing.
    pub(super) stored: Vec<(String, Value)>,
    /// Number of registrations that are refused: a lost `register` holds the nickname.
    nick_blocks: u32,
    /// Tokens of the user whose time has not passed.
    pub(super) valid_tokens: BTreeSet<String>,
    ids: u64,
}

impl ModelCluster {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            rooms: BTreeMap::new(),
            session: None,
            is_attached: false,
            live: BTreeSet::new(),
            output: VecDeque::new(),
            stored: Vec::new(),
            nick_blocks: 0,
            valid_tokens: BTreeSet::new(),
            ids: 0,
        }
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("m{}", self.ids)
    }

    /// Returns a token of the user.
    pub(super) fn new_user_token(&mut self, is_valid: bool) -> String {
        let token = self.id();
        self.valid_tokens.extend(is_valid.then(|| token.clone()));
        token
    }

    fn knows(&self, token: &Value) -> bool {
        token.as_str().is_some_and(|token| self.valid_tokens.contains(token))
    }

    pub(super) fn disconnect(&mut self) {
        if self.is_attached {
            self.nick_blocks = self.rng.random_range(0..3);
        }
        self.is_attached = false;
        self.live.clear();
        self.output.clear();
    }

    /// The session expires: its token, rooms and inbox are gone.
    pub(super) fn forget_session(&mut self) {
        if !self.is_attached {
            self.session = None;
        }
    }

    pub(super) fn forget_room(&mut self, key: &str) {
        if let Some(session) = self.session.as_mut().filter(|_| !self.is_attached) {
            session.rooms.remove(key);
        }
    }

    fn room(&mut self, name: &str) -> &mut ModelStream {
        self.rooms.entry(name.to_lowercase()).or_insert_with(|| ModelStream::new(name))
    }

    fn store_in_room(&mut self, name: &str, from: &str, body: &Value, id: &str) -> Value {
        let shown = self.room(name).name.clone();
        let item = self.room(name).append(from, &shown, body, id);
        if self.is_attached && self.live.contains(&name.to_lowercase()) {
            self.output.push_back(item.clone());
        }
        item
    }

    /// Another user sends to a room, or to the client.
    pub(super) fn other_sends(&mut self, target: &str) {
        let id = self.id();
        let body = Value::from(id.clone());
        if target.starts_with('#') {
            self.store_in_room(target, "bob", &body, &id);
        } else if let Some(session) = &mut self.session {
            let item = session.inbox.append("bob", &session.nick, &body, &id);
            if self.is_attached {
                self.output.push_back(item);
            }
        }
    }

    /// A room loses its newest messages. Most of them are republished.
    pub(super) fn lose(&mut self, key: &str, count: u64) {
        let Some(stream) = self.rooms.get_mut(key) else { return };
        let before = stream.top;
        let lost = stream.lose(count);
        let (name, end) = (stream.name.clone(), stream.end());
        if self.is_attached && self.live.contains(key) {
            let kind = if stream.top < before { "rewound" } else { "epoch" };
            self.output.push_back(json!({"type": kind, "to": name, "epoch": end["epoch"], "seq": end["seq"]}));
        }
        for item in lost {
            if self.rng.random_bool(0.8) {
                let text = |field: &str| item[field].as_str().expect("a text").to_owned();
                self.store_in_room(&name, &text("from"), &item["body"], &text("msg_id"));
            }
        }
    }

    pub(super) fn trim(&mut self, count: usize) {
        for stream in self.rooms.values_mut() {
            stream.items.drain(..count.min(stream.items.len()));
        }
    }

    /// Executes a request, and queues its reply and events. Refuses it with a code, or executes it and loses the
    /// answer with `outcome_unknown`. Returns true if the connection ends.
    pub(super) fn handle(&mut self, request: &Value, refusal: Option<&str>) -> bool {
        let kind = request["type"].as_str().expect("a type");
        if kind == "bye" {
            return true;
        }
        let lives = self.live.clone();
        let ends = self.output.len();
        let (mut reply, events) = match refusal {
            Some(code) if code != "outcome_unknown" => (error(code), Vec::new()),
            _ if kind == "register" => self.register(request),
            _ if !self.is_attached => (error("not_registered"), Vec::new()),
            _ => {
                let session = self.session.as_mut().expect("attached");
                session.tokens.drain(..session.tokens.len() - 1);
                self.execute(kind, request)
            }
        };
        let is_lost = refusal == Some("outcome_unknown") && kind != "register";
        if is_lost {
            reply = error("outcome_unknown");
            self.live.retain(|key| kind != "join" || lives.contains(key));
        }
        reply["id"] = request["id"].clone();
        // The order between replies and events is not defined.
        let at = if self.rng.random_bool(0.5) { ends.min(self.output.len()) } else { self.output.len() };
        self.output.insert(at, reply);
        if !is_lost {
            self.output.extend(events);
        }
        false
    }

    fn register(&mut self, request: &Value) -> (Value, Vec<Value>) {
        if !self.knows(&request["token"]) {
            return (error(if request["token"].is_null() { "token_required" } else { "token_expired" }), Vec::new());
        }
        let token = request.get("resume").and_then(Value::as_str).map(str::to_owned);
        let known =
            self.session.as_ref().is_some_and(|session| token.as_ref().is_some_and(|t| session.tokens.contains(t)));
        match &token {
            Some(_) if !known => return (error("resume_failed"), Vec::new()),
            Some(_) => {}
            None => {
                if self.session.is_some() && self.nick_blocks > 0 {
                    self.nick_blocks -= 1;
                    return (error("nick_in_use"), Vec::new());
                }
                let nick = request["nick"].as_str().expect("a nick").to_owned();
                let (rooms, inbox) = (BTreeSet::new(), ModelStream::new("@"));
                self.session = Some(ModelSession { nick, rooms, tokens: Vec::new(), inbox, acks: BTreeMap::new() });
            }
        }
        let next = self.id();
        let session = self.session.as_mut().expect("a session");
        session.tokens = token.into_iter().chain([next.clone()]).collect();
        self.is_attached = true;
        let mut events = Vec::new();
        for (name, position) in request.get("since").and_then(Value::as_object).into_iter().flatten() {
            let key = name.to_lowercase();
            if name == "@" {
                events.extend(session.inbox.after(position));
            } else if session.rooms.contains(&key) {
                events.extend(self.rooms[&key].after(position));
                self.live.insert(key);
            }
        }
        let rooms: Vec<Value> = session.rooms.iter().map(|key| json!({"room": self.rooms[key].name})).collect();
        let reply = json!({"type": "registered", "nick": session.nick, "resume": next, "rooms": rooms,
            "inbox": session.inbox.end(), "heartbeat_ms": 30_000, "node": "g1"});
        (reply, events)
    }

    fn execute(&mut self, kind: &str, request: &Value) -> (Value, Vec<Value>) {
        let text = |field: &str| request[field].as_str().expect("a text").to_owned();
        match kind {
            "join" => {
                let key = text("room").to_lowercase();
                let is_live = !self.live.insert(key.clone());
                self.session.as_mut().expect("attached").rooms.insert(key);
                let stream = self.room(&text("room"));
                let events = request.get("since").filter(|_| !is_live).map(|since| stream.after(since));
                let end = stream.end();
                let reply = json!({"type": "joined", "room": stream.name, "epoch": end["epoch"], "seq": end["seq"]});
                (reply, events.unwrap_or_default())
            }
            "leave" => {
                let key = text("room").to_lowercase();
                self.live.remove(&key);
                if !self.session.as_mut().expect("attached").rooms.remove(&key) {
                    return (error("not_in_room"), Vec::new());
                }
                (json!({"type": "left", "room": self.room(&key).name}), Vec::new())
            }
            "send" => (self.send(&text("to"), &text("key"), &request["body"]), Vec::new()),
            "members" => {
                let is_member = self.session.as_ref().expect("attached").rooms.contains(&text("room").to_lowercase());
                let items = json!([{"nick": "ann", "status": "online"}]);
                let page = json!({"type": "members", "items": items, "next_cursor": null});
                (if is_member { page } else { error("not_in_room") }, Vec::new())
            }
            "refresh" if !self.knows(&request["token"]) => (error("token_expired"), Vec::new()),
            "refresh" => (json!({"type": "refreshed", "expires_in_ms": 60_000, "left": []}), Vec::new()),
            "ping" => (json!({"type": "pong"}), Vec::new()),
            kind => (json!({"type": kind}), Vec::new()),
        }
    }

    fn send(&mut self, to: &str, key: &str, body: &Value) -> Value {
        let session = self.session.as_ref().expect("attached");
        let place = (to.to_lowercase(), key.to_owned());
        if to.starts_with('#') && !session.rooms.contains(&place.0) {
            return error("not_in_room");
        }
        if let Some(ack) = session.acks.get(&place) {
            return json!({"type": "ack", "to": to, "msg_id": ack["msg_id"], "seq": ack["seq"], "time": 1,
                "duplicate": true});
        }
        let (nick, id) = (session.nick.clone(), self.id());
        self.stored.push((to.to_lowercase(), body.clone()));
        let seq = match to.starts_with('#') {
            true => self.store_in_room(to, &nick, body, &id)["seq"].clone(),
            false => Value::Null,
        };
        let ack = json!({"type": "ack", "to": to, "msg_id": id, "seq": seq, "time": 1, "duplicate": false});
        self.session.as_mut().expect("attached").acks.insert(place, ack.clone());
        ack
    }
}

fn error(code: &str) -> Value {
    json!({"type": "error", "code": code, "message": ""})
}
