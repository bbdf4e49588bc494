// The requests and events of a session: repeats calls until they are answered, and moves the positions.
// Part of the pure state machine in session.js.

import { Calls } from "./calls.js";
import { REQUEST_BYTES_MAX, isTemporary, retryWaitMs } from "./codes.js";
import { advance, fold, isPosition, isRoom, isStreamEvent } from "./position.js";

/** Time in which a send without an answer is repeated. The server remembers its key for five minutes. */
const KEY_MS = 240_000;
/** Number of nicknames whose messages stay own. */
const NAMES_MAX = 16;

const bytesOf = (request) => new Blob([JSON.stringify(request)]).size;

/** True for a call of the session itself. */
const isOwn = (call) => typeof call?.id === "symbol";

export class Traffic {
  nick;
  /** The id of the user that the token names. */
  user;
  /** The nicknames of this session, each with the time of the server up to which it was seen to have it. */
  names;
  /** Keys of the rooms that deliver. */
  live;
  /** True between `registered` and the end of a connection. */
  isOnline = false;
  /** Time at which `runAll` is due. */
  dueAt = Infinity;
  #turn;
  #positions;
  #calls = new Calls();
  /** Requests on the wire by id, in the order of their replies. */
  #wire = new Map();
  #lastId = 0;

  /** `turn`: {now, random, do(effect), emit(event), save()} of the current step. */
  constructor(turn, nick, positions, live, names) {
    this.#turn = turn;
    this.nick = nick;
    this.names = { ...names };
    this.#positions = positions;
    this.live = new Set(live.map(fold).filter((key) => positions.get(key)));
  }

  /** `age`: time since the call, which another session machine may have sent. */
  call(id, request, age = -Infinity) {
    if (request.type === "typing") return this.isOnline && this.transmit(request);
    if (this.#calls.get(id)) return;
    if (bytesOf(request) > REQUEST_BYTES_MAX) {
      return this.#turn.answer(id, { error: { code: "too_large" } });
    }
    const call = this.#calls.add(id, request);
    this.#lost(call, this.#turn.now - age);
    this.#run(call);
  }

  /** Ends a call without an answer. A request on the wire is completed unless it is a send. */
  abort(id) {
    const call = this.#calls.get(id);
    if (call?.request.type === "send" || !(call?.sentAt < Infinity)) this.#settle(call);
  }

  /** Keeps the time of an attempt whose answer is lost. */
  #lost(call, sentAt = call.sentAt) {
    if (call.request.type === "send") call.expires = Math.min(call.expires, sentAt + KEY_MS);
    call.sentAt = Infinity;
  }

  /** Fails all calls, or those that `condition` selects. */
  fail(error, condition = () => true) {
    for (const call of this.#calls.values()) if (condition(call)) this.#settle(call, { error });
    this.dueAt = Infinity;
  }

  /** Continues after `registered` with the rooms that the server lists. */
  begin(rooms) {
    this.isOnline = true;
    const members = new Set(rooms.map(fold));
    for (const key of this.live) if (!members.has(key)) this.#rejoin(key);
    this.runAll();
  }

  /** Forgets what was on the wire. */
  pause() {
    this.isOnline = false;
    this.dueAt = Infinity;
    this.#wire.clear();
    for (const call of this.#calls.values()) {
      this.#lost(call);
      call.held = [];
      this.dueAt = Math.min(this.dueAt, call.expires);
    }
  }

  /** Joins a room again that the server does not list, ahead of the calls to it. */
  #rejoin(key) {
    const first = this.#calls.head(key);
    const request = { type: "join", room: this.#positions.get(key).name };
    this.#run(isOwn(first) ? first : this.#calls.add(Symbol(key), request, true));
  }

  /** Sends the requests of all calls whose turn it is. */
  runAll() {
    this.dueAt = Infinity;
    for (const call of this.#calls.values()) this.#run(call);
  }

  #run(call) {
    const { now } = this.#turn;
    if (call.expires <= now) return this.#settle(call, { error: { code: "outcome_unknown" } });
    this.dueAt = Math.min(this.dueAt, call.expires);
    if (!this.isOnline || call.sentAt <= now || this.#calls.head(call.lane) !== call) return;
    if (call.due > now) {
      this.dueAt = Math.min(this.dueAt, call.due);
      return;
    }
    let { request } = call;
    if (request.type === "join") {
      const key = fold(request.room);
      const position = this.#positions.get(key);
      if (this.live.has(key) && !isOwn(call)) return this.#enter(call, position);
      if (position) request = { ...request, since: { epoch: position.epoch, seq: position.seq } };
    }
    call.sentAt = now;
    this.transmit(request, call);
  }

  transmit(request, call) {
    const id = ++this.#lastId;
    this.#wire.set(id, { type: request.type, call, at: this.#turn.now });
    this.#turn.do({ do: "send", text: JSON.stringify({ ...request, id }) });
  }

  #settle(call, outcome) {
    if (!this.#calls.has(call?.id)) return;
    const next = this.#calls.remove(call);
    if (outcome && !isOwn(call)) this.#turn.answer(call.id, outcome);
    if (next) this.#run(next);
  }

  /** Returns the request that a reply belongs to, after its call was settled. */
  reply(reply) {
    // Replies come in the order of the requests. An error without an id refuses a frame that was not read.
    const id = reply.id ?? this.#wire.keys().next().value;
    const request = this.#wire.get(id);
    this.#wire.delete(id);
    const call = request?.call;
    // Before the answer of a call of `ping`.
    if (request?.type === "ping") this.#turn.emit({ type: "pong", ms: Math.round(this.#turn.now - request.at) });
    if (this.#calls.has(call?.id)) {
      if (reply.type === "error") this.#refused(call, reply);
      else this.#done(call, reply);
    }
    return request;
  }

  #refused(call, error) {
    const { type, room, to } = call.request;
    if (error.code === "outcome_unknown") this.#lost(call);
    call.sentAt = Infinity;
    const isOut = error.code === "not_in_room";
    if (isTemporary(error) || (isOut && isOwn(this.#calls.head(fold(room ?? to))))) {
      call.due = this.#turn.now + retryWaitMs(error, call.tries++, this.#turn.random);
      this.#run(call);
    } else if (type === "leave" && isOut) {
      this.#done(call, { room });
    } else {
      if (isOwn(call)) this.dropRoom(fold(room));
      this.#settle(call, { error });
    }
  }

  #done(call, reply) {
    const { type, body } = call.request;
    if (type === "join") return this.#joined(call, reply);
    if (type === "leave") this.dropRoom(fold(reply.room));
    if (type === "nick") this.rename(reply.nick);
    if (type === "send") {
      const { to, msg_id, seq, time } = reply;
      this.names[this.nick] = time;
      const sender = { from: this.nick, ...(this.user && { from_user: this.user }) };
      if (seq === undefined) this.#turn.emit({ type: "message", to, ...sender, msg_id, seq: null, time, body });
    }
    this.#settle(call, { reply });
  }

  #joined(call, reply) {
    if (!isPosition(reply)) return this.#settle(call, { error: { code: "internal" } });
    const isNew = this.#open(reply);
    this.#enter(call, this.#positions.get(fold(reply.room)));
    if (isNew) this.#turn.emit({ type: "joined", room: reply.room });
    for (const event of call.held) this.event(event);
  }

  /** Notes that a room delivers. Returns true if it did not before. */
  #open(joined) {
    const key = fold(joined.room);
    this.#positions.place(joined.room, this.#positions.get(key) ?? joined);
    const isNew = !this.live.has(key);
    this.live.add(key);
    this.#turn.save();
    return isNew;
  }

  /** Answers a `join` with the position from which the room delivers. */
  #enter(call, position) {
    this.#settle(call, { reply: { ...position } });
  }

  /** Forgets a room that this session is no longer in. */
  dropRoom(key) {
    this.#turn.emit({ type: "left", room: this.#positions.get(key)?.name ?? key });
    this.live.delete(key);
    this.#positions.delete(key);
    this.#turn.save();
  }

  rename(nick, time = this.names[this.nick]) {
    this.nick = nick;
    this.names = Object.fromEntries([...Object.entries(this.names), [nick, time]].slice(-NAMES_MAX));
    this.#turn.emit({ type: "nick", nick, names: { ...this.names } });
  }

  event(event) {
    const target = event.room ?? event.to;
    if (typeof target !== "string") return;
    const key = isRoom(target) ? fold(target) : "@";
    if (event.type === "joined") {
      // The application lets this session enter.
      if (isPosition(event) && this.#open(event)) this.#turn.emit({ type: "joined", room: target });
    } else if (key !== "@" && !this.live.has(key)) {
      // The order of the reply to a `join` and the events of its room is not defined.
      const first = this.#calls.head(key);
      if (first?.sentAt < Infinity && first.request.type === "join") first.held.push(event);
    } else if (event.type === "left") {
      // A moderator has removed this session from the room.
      this.dropRoom(key);
    } else if (event.type === "presence" || event.type === "typing" || event.type === "moderation") {
      this.#turn.emit(event);
    } else if (isStreamEvent(event)) {
      const moved = advance(this.#positions.get(key), event);
      if (!moved) return;
      this.#turn.emit(moved);
      this.#turn.save();
    }
  }
}
