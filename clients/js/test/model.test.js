// Properties of the session machine against a model of the server, under random losses, refusals and rewinds.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Cursor } from "../src/position.js";
import { Session } from "../src/session.js";

const ROOM = "#r";
/** Time in which the server remembers a key. */
const KEY_MS = 300_000;

/** A server with one room. It stores a send once per session and key, while it remembers the key. */
class Server {
  now = 0;
  epoch = 0;
  /** Seq at which each epoch began. */
  forks = [0];
  log = [];
  posted = 0;
  tokens = new Map();
  tokensIssued = 0;
  connection = null;
  /** Codes of the refusals to come. */
  refusals = [];
  /** Tokens of the user that are valid, and the one of the connection. */
  userTokens = new Set();

  get end() {
    return { epoch: `e${this.epoch}`, seq: this.log.length };
  }

  connect() {
    this.connection = { session: null, position: null, frames: [] };
  }

  push(frame) {
    this.connection.frames.push(frame);
  }

  post(body) {
    this.posted += 1;
    const entry = { msg_id: `m${this.posted}`, body };
    this.log.push(entry);
    this.deliver();
    return entry;
  }

  /** Loses the newest messages, and stores them again in another order. */
  rewind(count) {
    const lost = this.log.splice(Math.max(this.log.length - count, 0));
    this.epoch += 1;
    this.forks.push(this.log.length);
    this.log.push(...lost.reverse());
    if (this.connection?.position) this.enter(this.connection.position);
  }

  /** Starts delivery after a position of the client. */
  enter({ epoch, seq }) {
    const valid = Math.min(seq, ...this.forks.slice(Number(epoch.slice(1)) + 1));
    const { epoch: current } = this.end;
    this.connection.position = { epoch: current, seq: valid };
    if (epoch !== current) this.push({ type: valid < seq ? "rewound" : "epoch", to: ROOM, epoch: current, seq: valid });
    this.deliver();
  }

  deliver() {
    const position = this.connection?.position;
    while (position && position.seq < this.log.length) {
      const entry = this.log[position.seq];
      position.seq += 1;
      this.push({ type: "message", to: ROOM, from: "x", seq: position.seq, time: 0, ...entry });
    }
  }

  handle(request) {
    const { id, type } = request;
    const refuse = (code, more) => this.push({ type: "error", id, code, message: code, ...more });
    if (type === "ping") return this.push({ type: "pong", id });
    if (type === "register") return this.register(request, refuse);
    if (type === "refresh") return this.refresh(request, refuse);
    const refusal = this.refusals.shift();
    // A gateway undoes a join whose outcome it does not know.
    const isLate = refusal === "outcome_unknown" && type === "send";
    if (refusal && !isLate) return refuse(refusal, refusal === "busy" ? { retry_after_ms: 50 } : {});
    const reply = this[type](request, refuse);
    if (isLate) refuse(refusal);
    else if (reply) this.push({ id, ...reply });
  }

  /** Announces the end of the token. */
  announce() {
    if (this.connection?.session) this.push({ type: "expiring", expires_in_ms: 20_000 });
  }

  refresh({ id, token }, refuse) {
    if (!this.userTokens.has(token)) return refuse("token_expired");
    this.push({ type: "refreshed", id, expires_in_ms: 60_000, left: [] });
  }

  register({ id, token: userToken, resume, since }, refuse) {
    if (!this.userTokens.has(userToken)) return refuse(userToken ? "token_expired" : "token_required");
    if (resume && !this.tokens.has(resume)) return refuse("resume_failed");
    const session = this.tokens.get(resume) ?? { isMember: false, keys: new Map() };
    const token = `t${(this.tokensIssued += 1)}`;
    this.tokens.set(token, session);
    this.connection.session = session;
    const rooms = session.isMember ? [{ room: ROOM, ...this.end }] : [];
    const inbox = { epoch: "i", seq: 0 };
    this.push({ type: "registered", id, nick: "ann", resume: token, rooms, inbox, heartbeat_ms: 30_000, node: "g" });
    if (session.isMember && since?.[ROOM]) this.enter(since[ROOM]);
  }

  join({ id, since }) {
    const { connection, end } = this;
    const reply = { type: "joined", room: ROOM, ...end, recovered: false };
    connection.session.isMember = true;
    if (connection.position) return reply;
    // The order of the reply and the events is not defined.
    if (id % 2 === 0) this.push({ id, ...reply });
    this.enter(since ?? end);
    return id % 2 === 0 ? null : reply;
  }

  send({ key, body }, refuse) {
    const { session } = this.connection;
    if (!session.isMember) return refuse("not_in_room");
    const known = session.keys.get(key);
    const duplicate = known?.until > this.now;
    const { entry } = duplicate ? known : { entry: this.post(body) };
    if (!duplicate) session.keys.set(key, { entry, until: this.now + KEY_MS });
    return { type: "ack", to: ROOM, msg_id: entry.msg_id, seq: this.log.indexOf(entry) + 1, time: 0, duplicate };
  }
}

/** A client, its application and its connection to the server. */
class World {
  server = new Server();
  now = 0;
  requests = [];
  /** Time of each call. */
  called = [];
  answers = new Map();
  outbound = [];
  isOpening = false;
  /** Time at which the application was asked for a token that it did not give yet, or `null`. */
  askedAt = null;
  issued = 0;
  saved = null;
  cursor = null;
  state = null;
  /** The messages that the application shows, and how often each id was new. */
  shown = [];
  news = new Map();

  constructor() {
    this.lead();
    this.call({ type: "join", room: ROOM });
  }

  /** Starts a session in a tab that becomes the leader, and repeats the calls without an answer. */
  lead() {
    this.disconnect();
    const saved = structuredClone(this.saved);
    if (this.cursor) saved.positions[ROOM] = { ...this.cursor };
    this.session = new Session({ urls: ["u"], nick: "ann", saved, live: this.cursor ? [ROOM] : [], canAsk: true });
    this.step({ type: "start" });
    this.requests.forEach((request, id) => {
      if (!this.answers.has(id)) this.step({ type: "call", id, request, age: this.now - this.called[id] });
    });
  }

  call(request) {
    this.requests.push(request);
    this.called.push(this.now);
    this.step({ type: "call", id: this.requests.length - 1, request });
  }

  step(input) {
    for (const effect of this.session.step(input, this.now, 0.5)) {
      if (effect.do === "connect") this.isOpening = true;
      if (effect.do === "ask") this.ask();
      if (effect.do === "drop") this.disconnect();
      if (effect.do === "send") this.outbound.push(JSON.parse(effect.text));
      if (effect.do === "save") this.saved = structuredClone(effect.saved);
      if (effect.do === "answer") this.answer(effect);
      if (effect.do === "emit") this.receive(effect.event);
    }
  }

  ask() {
    const isAlone = this.askedAt === null || this.now - this.askedAt >= 10_000;
    assert(isAlone, "one question at once, unless the one before has had its time");
    this.askedAt = this.now;
  }

  /** Answers a question for a token: with a good one, an expired one or an error. */
  give(kind) {
    if (this.askedAt === null) return;
    this.askedAt = null;
    const token = `u${(this.issued += 1)}`;
    if (kind === "good") this.server.userTokens.add(token);
    this.step({ type: "token", ...(kind === "error" ? { error: "Error" } : { token }) });
  }

  /** The time of all tokens is over. The server closes the connection. */
  expire() {
    this.server.userTokens.clear();
    if (!this.server.connection?.session) return;
    this.disconnect();
    this.step({ type: "closed", code: 4005, reason: "token_expired" });
  }

  answer({ id, reply, error }) {
    assert(!this.answers.has(id), `call ${id} is settled once`);
    this.answers.set(id, reply ?? error);
    if (this.requests[id].type === "join" && reply) this.cursor = new Cursor(reply);
  }

  /** Keeps what an application shows: a list that is cut back at `rewound`. */
  receive(event) {
    if (event.type === "state") this.state = event.state.name;
    if (event.to !== ROOM) return;
    const moved = this.cursor.move(event);
    if (moved?.type === "rewound") this.shown = this.shown.filter(({ seq }) => seq <= moved.seq);
    if (moved?.type !== "message") return;
    this.shown.push(moved);
    if (!moved.repeated) this.news.set(moved.msg_id, (this.news.get(moved.msg_id) ?? 0) + 1);
  }

  disconnect() {
    this.askedAt = null;
    this.outbound = [];
    this.isOpening = false;
    this.server.connection = null;
  }

  lose() {
    if (!this.server.connection) return;
    this.disconnect();
    this.step({ type: "closed", code: 1006 });
  }

  /** Opens the connection, or carries a frame to the server. */
  up() {
    if (this.isOpening) {
      this.isOpening = false;
      this.server.connect();
      this.step({ type: "open" });
    } else if (this.outbound.length > 0) {
      this.server.now = this.now;
      this.server.handle(this.outbound.shift());
    }
  }

  /** Carries a frame to the client. */
  down() {
    const frame = this.server.connection?.frames.shift();
    if (frame) this.step({ type: "frame", text: JSON.stringify(frame) });
  }

  tick() {
    if (this.session.nextAt === Infinity) return;
    this.now = this.session.nextAt;
    this.step({ type: "tick" });
  }

  wait(ms) {
    const end = this.now + ms;
    while (this.session.nextAt <= end) this.tick();
    this.now = end;
  }

  settle() {
    this.server.refusals = [];
    for (let i = 0; i < 10_000; i += 1) {
      const isBusy = this.isOpening || this.outbound.length > 0 || this.server.connection?.frames.length > 0;
      const isInRoom = this.state === "online" && this.server.connection?.position;
      if (!isBusy && isInRoom && this.answers.size === this.requests.length) return;
      if (this.askedAt !== null) this.give("good");
      else if (isBusy) this.up(), this.down();
      else this.tick();
    }
    assert.fail(`${this.answers.size} of ${this.requests.length} calls are settled, ${this.state}`);
  }

  play([name, value]) {
    switch (name) {
      case "up": return this.up();
      case "down": return this.down();
      case "tick": return this.tick();
      case "give": return this.give(value);
      case "announce": return this.server.announce();
      case "expire": return this.expire();
      case "lose": return this.lose();
      case "lead": return this.lead();
      case "send": return this.call({ type: "send", to: ROOM, key: `k${this.requests.length}`, body: `own ${this.requests.length}` });
      case "post": return this.server.post(`other ${this.server.posted}`);
      case "wait": return this.wait(value);
      case "refuse": return this.server.refusals.push(value);
      case "rewind": return this.server.rewind(value);
      case "forget": return this.server.tokens.clear();
    }
  }
}

const one = (weight, name) => ({ weight, arbitrary: fc.constant([name]) });
const codes = fc.constantFrom("rate_limited", "overloaded", "unavailable", "outcome_unknown", "internal", "busy");
const steps = fc.array(
  fc.oneof(
    // The application gives good tokens, as a rule: otherwise the session hardly gets online.
    { weight: 6, arbitrary: fc.constantFrom(..."good good good good expired error".split(" ")).map((kind) => ["give", kind]) },
    one(1, "announce"), one(1, "expire"), one(8, "up"), one(8, "down"), one(4, "send"), one(4, "post"), one(2, "tick"), one(1, "lose"), one(1, "forget"), one(1, "lead"),
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 150 }).map((seconds) => ["wait", seconds * 1_000]) },
    { weight: 1, arbitrary: codes.map((code) => ["refuse", code]) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }).map((count) => ["rewind", count]) },
  ),
  { minLength: 10, maxLength: 150, size: "max" },
);

test("every message is shown once and in order", (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  t.diagnostic(`SEED=${seed}`);
  const property = fc.property(steps, (all) => {
    const world = new World();
    for (const step of all) world.play(step);
    world.settle();
    const { shown, news, server, answers, requests } = world;
    const first = shown[0]?.seq ?? server.log.length + 1;
    assert.deepEqual(shown.map(({ seq }) => seq), server.log.slice(first - 1).map((_, i) => first + i));
    assert.deepEqual(shown.map(({ msg_id }) => msg_id), server.log.slice(first - 1).map(({ msg_id }) => msg_id));
    assert([...news.values()].every((count) => count === 1), "a message is new once");
    const bodies = server.log.map(({ body }) => body);
    assert.equal(new Set(bodies).size, bodies.length, "no send is stored twice");
    requests.forEach(({ type, body }, id) => {
      const { code } = answers.get(id);
      assert(code === undefined || (type === "send" && ["outcome_unknown", "not_in_room"].includes(code)), code);
      if (type === "send" && code === undefined) assert(bodies.includes(body), "an acknowledged send is stored");
    });
  });
  fc.assert(property, { seed, numRuns: Number(process.env.RUNS ?? 2_000) });
});
