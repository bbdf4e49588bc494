// A session on a bench: a test is its server, its clock and its application.

import assert from "node:assert/strict";
import { Session } from "../src/session.js";

export const REGISTERED = { type: "registered", nick: "ann", session: "s", resume: "t1", rooms: [], inbox: { epoch: "i", seq: 0 }, heartbeat_ms: 30_000, node: "g1", time: 0 };
export const JOINED = { type: "joined", room: "#r", epoch: "e", seq: 5, member_count: 1, recovered: false };
export const message = (seq, more) => ({ type: "message", to: "#r", from: "bob", msg_id: `m${seq}`, seq, time: 0, body: seq, ...more });

/** A session, its effects by kind, and the requests that it has sent. */
export class Bench {
  now = 0;
  random = 0.5;
  saved = null;
  urls = [];
  sent = [];
  answers = {};
  events = [];
  drops = 0;
  /** Number of questions for a token. */
  asks = 0;

  constructor(options) {
    this.session = new Session({ urls: ["a", "b"], nick: "ann", ...options });
    this.step({ type: "start" });
  }

  step(input) {
    for (const { do: kind, ...effect } of this.session.step(input, this.now, this.random)) {
      if (kind === "connect") this.urls.push(effect.url);
      if (kind === "send") this.sent.push(JSON.parse(effect.text));
      if (kind === "save") this.saved = effect.saved;
      if (kind === "emit") this.events.push(effect.event);
      if (kind === "drop") this.drops += 1;
      if (kind === "ask") this.asks += 1;
      if (kind === "answer") {
        assert(!(effect.id in this.answers), `${effect.id} is answered once`);
        this.answers[effect.id] = effect.reply ?? effect.error;
      }
    }
    return this;
  }

  /** Moves the clock to the next deadline. */
  tick() {
    this.now = this.session.nextAt;
    return this.step({ type: "tick" });
  }

  /** Moves the clock until a call is answered or a condition holds. The server answers pings. */
  wait(id, isDone = () => id in this.answers) {
    for (let i = 0; i < 100 && !isDone(); i += 1) this.tick().reply("ping", { type: "pong" });
    return this;
  }

  frame(frame) {
    return this.step({ type: "frame", text: JSON.stringify(frame) });
  }

  /** Answers the newest request of a type. */
  reply(type, reply) {
    return this.frame({ ...reply, id: this.last(type).id });
  }

  refuse(type, code, more) {
    return this.reply(type, { type: "error", code, message: code, ...more });
  }

  close(code, reason = "") {
    return this.step({ type: "closed", code, reason });
  }

  open(registered) {
    return this.step({ type: "open" }).reply("register", { ...REGISTERED, ...registered });
  }

  call(id, request) {
    return this.step({ type: "call", id, request });
  }

  join() {
    return this.call("join", { type: "join", room: "#r" }).reply("join", JOINED);
  }

  /** Answers the question for a token. */
  give(token) {
    return this.step({ type: "token", token });
  }

  last(type) {
    return this.sent.filter((request) => request.type === type).at(-1);
  }

  count(type) {
    return this.sent.filter((request) => request.type === type).length;
  }

  get state() {
    return this.events.filter(({ type }) => type === "state").at(-1).state;
  }

  delivered() {
    return this.events.filter(({ type }) => type === "message").map(({ seq }) => seq);
  }
}

export const online = (options) => new Bench(options).open();
export const send = (key, to = "#r") => ({ type: "send", to, body: key, key });
