// The session as a pure state machine: `step` takes an input, and returns the effects to carry out in their order.
// It has no timers, sockets, clocks or random numbers of its own. Invariant: every call is settled exactly once.
//
// Inputs:  start · open · frame {text} · closed {code} · tick · wake · call {id, request} · abort {id} · close {id}
// Effects: connect {url} · drop · send {text} · save {saved} · answer {id, reply | error} · emit {event}

import { Calls } from "./calls.js";
import { FINAL_CLOSES, FRAME_BYTES_MAX, closeName, isTemporary } from "./codes.js";
import { Positions, fold, isPosition, isRoom, isStreamEvent } from "./position.js";

/** Time from the start of a connection to `registered`. */
const OPEN_MS = 10_000;
/** Time until the server must answer a ping. */
const PONG_MS = 10_000;
/** The same after the page became visible or the network came back. */
const WAKE_PONG_MS = 2_000;
/** Time for the server to close the connection after `bye`. */
const BYE_MS = 4_000;
/** A connection that lasted this long resets the waiting time between attempts. */
const STABLE_MS = 5_000;
const FIRST_WAIT_MS = 500;
const WAIT_MS_MAX = 30_000;

const encoder = new TextEncoder();
const bytesOf = (request) => encoder.encode(JSON.stringify(request)).length;
/** Room for the `id` and `since` that a request gets in addition. */
const EXTRA_BYTES = 256;

const waitMs = (failures, random) => Math.round(random * Math.min(FIRST_WAIT_MS * 2 ** failures, WAIT_MS_MAX));

export class Session {
  #now = 0;
  #random = 0;
  #effects = [];
  /** idle, waiting, opening, registering, online, leaving or final */
  #phase = "idle";
  /** Reason of the end of the session. */
  #ended = null;
  /** True if the server refused the nickname: `nick` starts again with another one. */
  #isRefused = false;
  #closeId = null;
  #lastState = null;

  #urls;
  #url = 0;
  #nick;
  #token;
  #positions;
  /** Keys of the rooms that deliver. */
  #live;
  #calls = new Calls();
  /** Requests on the wire, in the order of their replies. */
  #wire = [];
  #lastWireId = 0;

  #failures = 0;
  #lostAt = 0;
  #onlineAt = null;
  #goesAway = false;
  #heartbeatMs = 30_000;
  #due = { retry: Infinity, open: Infinity, beat: Infinity, pong: Infinity, calls: Infinity };

  /** `saved`: from an earlier `save` effect. `live`: names of rooms that deliver at once, each with a saved position. */
  constructor({ urls, nick, saved, live = [] }) {
    this.#urls = urls;
    this.#nick = nick;
    this.#token = typeof saved?.token === "string" ? saved.token : null;
    this.#positions = new Positions(saved?.positions);
    this.#live = new Set(live.map(fold).filter((key) => this.#positions.get(key)));
  }

  /** Time at which `tick` is due, or `Infinity`. */
  get nextAt() {
    return Math.min(...Object.values(this.#due));
  }

  /** `now`: milliseconds of a clock that never goes back. `random`: a number from 0 to 1. */
  step(input, now, random) {
    this.#now = now;
    this.#random = random;
    this.#effects = [];
    switch (input.type) {
      case "start": this.#start(); break;
      case "open": this.#register(); break;
      case "frame": this.#frame(input.text); break;
      case "closed": this.#closed(input.code); break;
      case "tick": this.#tick(); break;
      case "wake": this.#wake(); break;
      case "call": this.#call(input.id, input.request); break;
      case "abort": this.#settle(this.#calls.get(input.id)); break;
      case "close": this.#close(input.id); break;
    }
    return this.#effects;
  }

  #do(effect) {
    this.#effects.push(effect);
  }

  #emit(event) {
    this.#do({ do: "emit", event });
  }

  #state(state) {
    if (state.name === "resuming" && this.#lastState === state.name) return;
    this.#lastState = state.name;
    this.#emit({ type: "state", state, isRefused: this.#isRefused });
  }

  #save() {
    this.#do({ do: "save", saved: { token: this.#token, positions: this.#positions.saved(this.#live) } });
  }

  // Connection

  #start() {
    this.#lostAt = this.#now;
    this.#connect();
  }

  #connect() {
    this.#phase = "opening";
    this.#stopTimes();
    this.#due.open = this.#now + OPEN_MS;
    this.#state({ name: this.#onlineAt === null ? "connecting" : "resuming" });
    this.#do({ do: "connect", url: this.#urls[this.#url % this.#urls.length] });
  }

  #closed(code) {
    if (this.#phase === "leaving") this.#end("closed");
    else if (FINAL_CLOSES[code]) this.#end(FINAL_CLOSES[code]);
    else this.#retry(closeName(code));
  }

  /** Abandons the connection, and opens one to the next address after a random time, at least `afterMs`. */
  #retry(reason, afterMs = 0) {
    const wasOnline = this.#phase === "online";
    if (wasOnline) {
      this.#lostAt = this.#now;
      if (this.#now - this.#onlineAt >= STABLE_MS) this.#failures = 0;
    }
    const isAnnounced = this.#goesAway;
    this.#abandon();
    this.#phase = "waiting";
    this.#url += 1;
    if (isAnnounced) return this.#connect();
    const inMs = afterMs + waitMs(this.#failures, this.#random);
    this.#failures += 1;
    this.#due.retry = this.#now + inMs;
    this.#state(wasOnline ? { name: "resuming" } : { name: "offline", reason, willRetry: true, inMs });
  }

  /** Ends the session for good, or with `isRefused` until a call of `nick`. */
  #end(reason, isRefused = false) {
    this.#abandon();
    this.#phase = "final";
    this.#ended = reason;
    this.#isRefused = isRefused;
    for (const call of this.#calls.all()) this.#fail(call, { code: reason });
    if (this.#closeId !== null) this.#answer(this.#closeId, { reply: null });
    this.#state({ name: "offline", reason, willRetry: false, inMs: null });
  }

  #abandon() {
    this.#stopTimes();
    this.#do({ do: "drop" });
    this.#wire = [];
    this.#goesAway = false;
    for (const call of this.#calls.all()) Object.assign(call, { isOnWire: false, held: [] });
  }

  #stopTimes() {
    for (const name in this.#due) this.#due[name] = Infinity;
  }

  #tick() {
    const { retry, open, beat, pong, calls } = this.#due;
    const now = this.#now;
    if (now >= retry) this.#connect();
    else if (now >= open && this.#phase === "leaving") this.#end("closed");
    else if (now >= open) this.#retry("connection_lost");
    // Far too late: the page was frozen, and frames may be waiting.
    else if (now >= pong + 1000) this.#ping(WAKE_PONG_MS);
    else if (now >= pong) this.#retry("connection_lost");
    else if (now >= beat) this.#ping(PONG_MS);
    else if (now >= calls) this.#runAll();
  }

  #wake() {
    if (this.#phase === "waiting") this.#connect();
    else if (this.#phase === "online") this.#ping(WAKE_PONG_MS);
  }

  #ping(deadline) {
    const { pong } = this.#due;
    this.#due.pong = Math.min(pong > this.#now ? pong : Infinity, this.#now + deadline);
    this.#due.beat = Infinity;
    this.#transmit({ type: "ping" });
  }

  #close(id) {
    if (this.#ended) return this.#answer(id, { reply: null });
    const isConnected = this.#phase === "online" || this.#phase === "registering";
    this.#phase = "leaving";
    this.#ended = "closed";
    this.#closeId = id;
    for (const call of this.#calls.all()) this.#fail(call, { code: "closed" });
    this.#do({ do: "save", saved: null });
    if (!isConnected) return this.#end("closed");
    this.#stopTimes();
    this.#due.open = this.#now + BYE_MS;
    this.#do({ do: "send", text: '{"type":"bye"}' });
  }

  // Registration

  #register() {
    this.#phase = "registering";
    const request = { type: "register", nick: this.#nick };
    if (this.#token) {
      request.resume = this.#token;
      request.since = this.#positions.named(["@", ...this.#live]);
    }
    this.#transmit(request);
  }

  #registered(reply) {
    const isResumed = this.#token !== null;
    this.#phase = "online";
    this.#stopTimes();
    this.#token = reply.resume;
    this.#heartbeatMs = reply.heartbeat_ms;
    if (!isResumed) this.#positions.set("@", reply.inbox);
    else if (!this.#positions.get("@")) this.#positions.set("@", { ...reply.inbox, seq: 0 });
    // Before anything else is sent: from then on the previous token is void.
    this.#save();
    this.#onlineAt = this.#now;
    this.#rename(reply.nick);
    this.#emit({ type: "inbox", ...this.#positions.get("@") });
    const rooms = reply.rooms.map(({ room }) => room);
    this.#state({ name: "online", node: reply.node, resumed: isResumed, tookMs: Math.round(this.#now - this.#lostAt), rooms });
    // The session is kept for its return after its first request.
    this.#ping(PONG_MS);
    const members = new Set(rooms.map(fold));
    for (const key of this.#live) if (!members.has(key)) this.#rejoin(key);
    this.#runAll();
  }

  #refuse(error) {
    if (error.code === "resume_failed" && this.#token) {
      this.#token = null;
      // The keys of the lost session are void: a repeated send could be stored twice.
      for (const call of this.#calls.all()) {
        if (call.request.type === "send" && call.maybeDone) this.#fail(call, { code: "outcome_unknown" });
      }
      return this.#register();
    }
    if (!isTemporary(error)) return this.#end(error.code, true);
    this.#retry(error.code, error.retry_after_ms);
  }

  /** Joins a room again that the server does not list, ahead of the calls to it. */
  #rejoin(key) {
    const first = this.#calls.head(key);
    const isWaiting = first && isOwn(first);
    this.#run(isWaiting ? first : this.#calls.add(Symbol(key), { type: "join", room: this.#positions.get(key).name }, true));
  }

  #rename(nick) {
    if (nick === this.#nick) return;
    this.#nick = nick;
    this.#emit({ type: "nick", nick });
  }

  // Calls

  #call(id, request) {
    const restarts = this.#isRefused && request.type === "nick";
    if (this.#ended && !restarts) return this.#answer(id, { error: { code: this.#ended } });
    if (request.type === "typing") return this.#phase === "online" && this.#transmit(request);
    if (bytesOf(request) + EXTRA_BYTES > FRAME_BYTES_MAX) return this.#answer(id, { error: { code: "too_large" } });
    const call = this.#calls.add(id, request);
    if (request.type === "nick" && (restarts || this.#onlineAt === null)) this.#nick = request.nick;
    if (restarts) {
      this.#ended = null;
      this.#isRefused = false;
      this.#failures = 0;
      this.#start();
    }
    this.#run(call);
  }

  #runAll() {
    this.#due.calls = Infinity;
    for (const call of this.#calls.all()) this.#run(call);
  }

  /** Sends the request of a call, if it is its turn. */
  #run(call) {
    if (this.#phase !== "online" || call.isOnWire || !this.#calls.isFirst(call)) return;
    if (call.due > this.#now) {
      this.#due.calls = Math.min(this.#due.calls, call.due);
      return;
    }
    const request = { ...call.request };
    if (request.type === "join") {
      const key = fold(request.room);
      const position = this.#positions.get(key);
      if (this.#live.has(key) && !isOwn(call)) return this.#enter(call, position);
      if (position) request.since = { epoch: position.epoch, seq: position.seq };
    }
    call.isOnWire = true;
    call.maybeDone = true;
    this.#transmit(request, call);
  }

  #transmit(request, call) {
    const id = ++this.#lastWireId;
    this.#wire.push({ id, type: request.type, call, at: this.#now });
    this.#do({ do: "send", text: JSON.stringify({ ...request, id }) });
  }

  #settle(call, outcome) {
    if (!call) return;
    const next = this.#calls.remove(call);
    if (outcome && !isOwn(call)) this.#answer(call.id, outcome);
    if (next) this.#run(next);
  }

  #fail(call, error) {
    this.#settle(call, { error });
  }

  #answer(id, outcome) {
    this.#do({ do: "answer", id, ...outcome });
  }

  // Frames

  #frame(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof message?.type !== "string") return;
    this.#due.pong = Infinity;
    if (this.#phase === "online") this.#due.beat = this.#now + this.#heartbeatMs;
    if (message.id !== undefined || message.type === "error") this.#reply(message);
    else if (message.type === "going_away") this.#goesAway = true;
    else this.#event(message);
  }

  #reply(reply) {
    // Replies come in the order of the requests. An error without an id refuses a frame that was not read.
    const index = reply.id === undefined ? 0 : this.#wire.findIndex(({ id }) => id === reply.id);
    const [entry] = index < 0 ? [] : this.#wire.splice(index, 1);
    if (!entry) return;
    const { type, call, at } = entry;
    const isError = reply.type === "error";
    if (type === "register") {
      if (isError) this.#refuse(reply);
      else if (isRegistered(reply)) this.#registered(reply);
      return;
    }
    if (type === "ping") this.#emit({ type: "pong", ms: Math.round(this.#now - at) });
    if (!call || this.#calls.get(call.id) !== call) return;
    call.isOnWire = false;
    if (isError) this.#error(call, reply);
    else this.#done(call, reply, at);
  }

  #error(call, error) {
    const { type, room, to } = call.request;
    if (error.code !== "outcome_unknown") call.maybeDone = false;
    const head = this.#calls.head(fold(String(room ?? to ?? "")));
    const isOut = error.code === "not_in_room";
    if (isTemporary(error) || (isOut && head !== call && head && isOwn(head))) {
      call.due = this.#now + (error.retry_after_ms ?? 0) + waitMs(call.tries++, this.#random);
      this.#run(call);
    } else if (type === "leave" && isOut) {
      this.#done(call, { room });
    } else {
      if (isOwn(call)) this.#left(fold(room));
      this.#fail(call, error);
    }
  }

  #done(call, reply, at) {
    const { type, body } = call.request;
    if (type === "join") return this.#joined(call, reply);
    if (type === "leave") this.#left(fold(reply.room));
    if (type === "nick") this.#rename(reply.nick);
    if (type === "send" && reply.seq === undefined) {
      const { to, msg_id, time } = reply;
      this.#emit({ type: "message", to, from: this.#nick, msg_id, seq: null, time, body });
    }
    this.#settle(call, { reply: type === "ping" ? { ms: Math.round(this.#now - at) } : reply });
  }

  #joined(call, reply) {
    const key = fold(reply.room);
    this.#positions.set(reply.room, this.#positions.get(key) ?? reply);
    this.#live.add(key);
    this.#save();
    this.#enter(call, this.#positions.get(key));
    for (const event of call.held) this.#event(event);
  }

  #enter(call, { name, epoch, seq }) {
    this.#settle(call, { reply: { room: name, epoch, seq } });
  }

  #left(key) {
    this.#emit({ type: "left", room: this.#positions.get(key)?.name });
    this.#live.delete(key);
    this.#positions.delete(key);
    this.#save();
  }

  #event(event) {
    const target = event.room ?? event.to;
    if (typeof target !== "string") return;
    const key = isRoom(target) ? fold(target) : "@";
    const first = this.#calls.head(key);
    if (key !== "@" && !this.#live.has(key)) {
      // The order of the reply to a `join` and the events of the room is not defined.
      if (first?.isOnWire && first.request.type === "join") first.held.push(event);
      return;
    }
    if (event.type === "presence" || event.type === "typing") return this.#emit(event);
    const moved = isStreamEvent(event) && this.#positions.advance(key, event);
    if (!moved) return;
    this.#emit(moved);
    this.#save();
  }
}

const isRegistered = ({ nick, resume, rooms, inbox, heartbeat_ms }) =>
  typeof nick === "string" && typeof resume === "string" && Array.isArray(rooms) && isPosition(inbox) && heartbeat_ms > 0;

/** True for a call of the session itself. */
const isOwn = (call) => typeof call.id === "symbol";
