// The session as a pure state machine: `step` takes an input, and returns the effects to carry out in their order.
// It has no timers, sockets, clocks or random numbers of its own. Invariant: every call is answered exactly once.
// This file has the connection and the registration; traffic.js has the requests and events.
//
// Inputs:  start · open · frame {text} · closed {code, reason} · tick · wake · abort {id} ·
//          call {id, request, age}
//          Each is the public method of its type. A call with an age may have been sent by an earlier leader of the
//          tabs. The call `bye` ends the session, and its answer is the last state.
// Effects: connect {url} · drop · send {text} · save {saved} · answer {id, reply | error} · emit {event}

import { FINAL_CLOSES, isTemporary, retryWaitMs } from "./codes.js";
import { Positions, isPosition } from "./position.js";
import { Traffic } from "./traffic.js";

/** Time from the start of a connection to `registered`. */
const OPEN_MS = 10_000;
/** Time until the server must answer a ping. */
const PONG_MS = 10_000;
/** The same after the page became visible or the network came back. */
const WAKE_PONG_MS = 2_000;
/** Silence after a call that leads to a ping. */
const REPLY_MS = 5_000;
/** Time for the server to close the connection after `bye`. */
const BYE_MS = 4_000;
const LOST = "connection_lost";
/** Number of attempts with a nickname that a lost `register` of this session may hold. */
const OWN_NICK_ATTEMPTS = 10;
/** A connection that lasted this long resets the waiting time between attempts. */
const STABLE_MS = 2_000;

/** The times of a session that waits for nothing. */
const NEVER = { retry: Infinity, open: Infinity, beat: Infinity, pong: Infinity };

export class Session {
  #turn;
  #traffic;
  #positions;
  /** idle, waiting, opening, registering, online, leaving or final */
  #phase = "idle";
  /** The error that ended the session. */
  #ended = null;
  /** True if the server refused the nickname: `nick` starts again with another one. */
  #isRefused = false;
  #stateName;

  /** The next one comes first. */
  #urls;
  #token;
  #failures = 0;
  /** Number of attempts in which a lost `register` of this session may hold its nickname. */
  #ownNickAttempts = 0;
  #lostAt = 0;
  #onlineAt = null;
  #goesAway = false;
  #heartbeatMs = 0;
  #due = { ...NEVER };

  /**
   * `saved`: from an earlier `save` effect. `live`: names of rooms that deliver at once, each with a saved position.
   * `wasOnline`: another tab has led this session.
   */
  constructor({ urls, nick, saved, live = [], wasOnline }) {
    this.#urls = [...urls];
    if (wasOnline) this.#onlineAt = -Infinity;
    this.#token = typeof saved?.token === "string" ? saved.token : null;
    this.#positions = new Positions(saved?.positions);
    this.#turn = {
      now: 0,
      random: 0,
      effects: [],
      do: (effect) => this.#turn.effects.push(effect),
      emit: (event) => this.#turn.do({ do: "emit", event }),
      answer: (id, outcome) => this.#turn.do({ do: "answer", id, ...outcome }),
      save: () => {
        const saved = { token: this.#token, positions: this.#positions.named(), names: this.#traffic.names };
        this.#turn.do({ do: "save", saved });
      },
    };
    this.#traffic = new Traffic(this.#turn, nick, this.#positions, live, saved?.names);
  }

  /** Time at which `tick` is due, or `Infinity`. */
  get nextAt() {
    return Math.min(...Object.values(this.#due), this.#traffic.dueAt);
  }

  /** `now`: milliseconds of a clock that never goes back. `random`: a number from 0 to 1. */
  step(input, now, random) {
    Object.assign(this.#turn, { now, random, effects: [] });
    this[input.type](input);
    return this.#turn.effects;
  }

  #enter(phase, state) {
    this.#phase = phase;
    if (!state || (state.name === "resuming" && this.#stateName === state.name)) return;
    this.#stateName = state.name;
    this.#turn.emit({ type: "state", state, isRefused: this.#isRefused });
  }

  start() {
    this.#lostAt = this.#turn.now;
    this.#connect();
  }

  #connect() {
    this.#stopTimes();
    this.#due.open = this.#turn.now + OPEN_MS;
    this.#enter("opening", { name: this.#onlineAt === null ? "connecting" : "resuming" });
    this.#turn.do({ do: "connect", url: this.#urls[0] });
  }

  /** `reason`: the name of the close code, or nothing. */
  closed({ code, reason } = {}) {
    const error = { code: reason || LOST };
    if (FINAL_CLOSES.includes(code) || this.#ended) this.#end(this.#ended ?? error);
    else this.#retry(error, this.#phase === "registering");
  }

  /**
   * Abandons the connection, and opens one to the next address after a random time, at least `retry_after_ms`.
   * `isUnknown`: the server may have registered the session.
   */
  #retry(error, isUnknown) {
    if (isUnknown && !this.#token) this.#ownNickAttempts = OWN_NICK_ATTEMPTS;
    const { now, random } = this.#turn;
    const wasOnline = this.#phase === "online";
    const isAnnounced = this.#goesAway;
    if (wasOnline) this.#lostAt = now;
    if (wasOnline && now - this.#onlineAt >= STABLE_MS) this.#failures = 0;
    this.#abandon();
    this.#urls.push(this.#urls.shift());
    if (isAnnounced) return this.#connect();
    const inMs = retryWaitMs(error, this.#failures, random);
    this.#failures += 1;
    this.#due.retry = now + inMs;
    this.#enter("waiting", wasOnline ? { name: "resuming" } : offline(error, inMs));
  }

  /** Ends the session for good, or with `isRefused` until a call of `nick`. */
  #end(error, isRefused = false) {
    this.#abandon();
    this.#ended = error;
    this.#isRefused = isRefused;
    this.#traffic.fail(error);
    this.#enter("final", offline(error));
  }

  #abandon() {
    this.#stopTimes();
    this.#goesAway = false;
    this.#traffic.pause();
    this.#turn.do({ do: "drop" });
  }

  #stopTimes() {
    this.#due = { ...NEVER };
  }

  tick() {
    const { now } = this.#turn;
    const { retry, open, beat, pong } = this.#due;
    if (now >= retry) this.#connect();
    else if (now >= open || now >= pong) this.closed();
    else if (now >= beat) this.#ping(PONG_MS);
    else this.#traffic.runAll();
  }

  wake() {
    if (this.#phase === "waiting") this.#connect();
    else if (this.#phase === "online") this.#ping(WAKE_PONG_MS);
  }

  /** Sends a ping. An earlier deadline stays. */
  #ping(deadlineMs) {
    this.#due.pong = Math.min(this.#due.pong, this.#turn.now + deadlineMs);
    this.#due.beat = Infinity;
    this.#traffic.transmit({ type: "ping" });
  }

  call({ id, request, age }) {
    if (request.type === "bye") return this.#close();
    const restarts = this.#isRefused && request.type === "nick";
    if (this.#ended && !restarts) return this.#turn.answer(id, { error: this.#ended });
    // Without a session the new nickname is the one to register.
    if (request.type === "nick" && (restarts || this.#onlineAt === null)) this.#traffic.nick = request.nick;
    this.#traffic.call(id, request, age);
    if (this.#phase === "online") this.#due.beat = Math.min(this.#due.beat, this.#turn.now + REPLY_MS);
    if (!restarts) return;
    this.#ended = null;
    this.#isRefused = false;
    this.#failures = 0;
    this.start();
  }

  abort({ id }) {
    this.#traffic.abort(id);
  }

  #close() {
    const isConnected = this.#phase === "online" || this.#phase === "registering";
    this.#ended = { code: "closed" };
    this.#traffic.isOnline = false;
    this.#traffic.fail(this.#ended);
    this.#turn.do({ do: "save", saved: null });
    if (!isConnected) return this.#end(this.#ended);
    this.#stopTimes();
    this.#due.open = this.#turn.now + BYE_MS;
    this.#enter("leaving");
    this.#turn.do({ do: "send", text: '{"type":"bye"}' });
  }

  open() {
    this.#enter("registering");
    const request = { type: "register", nick: this.#traffic.nick };
    if (this.#token) {
      request.resume = this.#token;
      request.since = this.#positions.named(["@", ...this.#traffic.live]);
    }
    this.#traffic.transmit(request);
  }

  #registered({ nick, resume, rooms, inbox, heartbeat_ms, node, time }) {
    const { now } = this.#turn;
    const isResumed = this.#token !== null;
    this.#token = resume;
    this.#heartbeatMs = heartbeat_ms;
    if (!isResumed) this.#positions.place("@", inbox);
    if (!this.#positions.has("@")) this.#positions.place("@", { epoch: inbox.epoch, seq: 0 });
    this.#stopTimes();
    this.#onlineAt = now;
    this.#ownNickAttempts = 0;
    this.#traffic.rename(nick, time);
    // Before anything else is sent: from then on the previous token is void.
    this.#turn.save();
    this.#turn.emit({ type: "inbox", ...this.#positions.get("@") });
    const names = rooms.map(({ room }) => room);
    this.#enter("online", {
      name: "online", node, resumed: isResumed, tookMs: Math.round(now - this.#lostAt), rooms: names,
    });
    // The server keeps a session for its return after its first request.
    this.#ping(PONG_MS);
    this.#traffic.begin(names);
  }

  #refused(error) {
    if (error.code === "resume_failed" && this.#token) {
      this.#token = null;
      // The keys of the lost session are void: a repeated send could be stored twice.
      this.#traffic.fail({ code: "outcome_unknown" }, ({ expires }) => expires < Infinity);
      return this.open();
    }
    const mayBeOwn = error.code === "nick_in_use" && this.#ownNickAttempts-- > 0;
    if (mayBeOwn || isTemporary(error)) this.#retry(error, error.code === "outcome_unknown");
    else this.#end(error, true);
  }

  frame({ text }) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const isError = message?.type === "error";
    if (typeof (isError ? message.code : message?.type) !== "string" || this.#phase === "leaving") return;
    this.#due.pong = Infinity;
    if (this.#phase === "online") this.#due.beat = this.#turn.now + this.#heartbeatMs;
    if (message.type === "going_away") this.#goesAway = true;
    else if (message.id === undefined && !isError) this.#traffic.event(message);
    else this.#reply(message);
  }

  #reply(reply) {
    const request = this.#traffic.reply(reply);
    if (request?.type !== "register") return;
    if (reply.type === "error") this.#refused(reply);
    else if (isRegistered(reply)) this.#registered(reply);
  }
}

/** Returns the state of a session that tries again in `inMs`, or that is over. */
const offline = ({ code, message = null }, inMs = null) =>
  ({ name: "offline", reason: code, message, willRetry: inMs !== null, inMs });

const isRegistered = ({ resume, rooms, inbox, heartbeat_ms }) =>
  typeof resume === "string" && Array.isArray(rooms) && isPosition(inbox) && heartbeat_ms > 0;
