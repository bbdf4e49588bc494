// The session as a pure state machine: `step` takes an input, and returns the effects to carry out in their order.
// It has no timers, sockets, clocks or random numbers of its own. Invariant: every call is answered exactly once.
// This file has the connection and the registration; traffic.js has the requests and events.
//
// Inputs:  start · open · frame {text} · closed {code, reason} · tick · wake · abort {id} ·
//          call {id, request, age} · token {token | error}
//          Each is the public method of its type. A call with an age may have been sent by an earlier leader of the
//          tabs. The call `bye` ends the session, and its answer is the last state. A `token` answers an `ask`.
// Effects: connect {url} · drop · send {text} · save {saved} · answer {id, reply | error} · emit {event} · ask
//          A `drop` also ends the question of an `ask`.

import { FINAL_CLOSES, isTemporary, retryWaitMs } from "./codes.js";
import { Positions, fold, isPosition } from "./position.js";
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
/** Time for the application to answer a question for a token. */
const ASK_MS = 10_000;
/** Maximum age at which a token is renewed after `expiring`: half of the time that the server announces. */
const RENEW_MS_MAX = 15_000;
/** Number of the close code of an expired token. */
const TOKEN_EXPIRED = 4005;

/** The times of a session that waits for nothing. */
const NEVER = {
  retry: Infinity, open: Infinity, beat: Infinity, pong: Infinity, renew: Infinity, asked: Infinity,
};

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

  /** The token of the user, or `null` for a guest. It is never saved. */
  #userToken;
  /** True if the application can be asked for a token. */
  #canAsk;
  /** True if a new token of the user is needed before the next use. */
  #needsToken;
  /** Number of tokens in a row that the server has refused. */
  #tokenRefusals = 0;
  #acceptedAt = 0;
  /** False while only the token names the nickname. */
  #isNamed;

  /**
   * `saved`: from an earlier `save` effect. `live`: names of rooms that deliver at once, each with a saved position.
   * `wasOnline`: another tab has led this session. `token`: the first token of the user. `canAsk`: there is a source
   * of tokens.
   */
  constructor({ urls, nick = "", saved, live = [], wasOnline, token = null, canAsk = false }) {
    this.#urls = [...urls];
    this.#userToken = token;
    this.#canAsk = canAsk;
    this.#needsToken = canAsk && token === null;
    this.#isNamed = nick !== "";
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
    this.#enter("opening", { name: this.#onlineAt === null ? "connecting" : "resuming" });
    if (this.#needsToken) this.#ask();
    else this.#dial();
  }

  #dial() {
    this.#due.open = this.#turn.now + OPEN_MS;
    this.#turn.do({ do: "connect", url: this.#urls[0] });
  }

  /** Asks the application for a token, unless a question waits for its answer. */
  #ask() {
    if (this.#due.asked < Infinity) return;
    this.#due.asked = this.#turn.now + ASK_MS;
    this.#turn.do({ do: "ask" });
  }

  /** The answer of the application: a token, `null` for a guest, or the name of an error. */
  token({ token, error }) {
    if (this.#due.asked === Infinity) return;
    this.#due.asked = Infinity;
    const isOnline = this.#phase === "online";
    if (error || typeof (token ?? "") !== "string") {
      const failure = { code: "no_token", message: `getToken: ${error ?? "TypeError"}` };
      return isOnline ? this.#renewLater(failure) : this.#retry(failure);
    }
    this.#userToken = token ?? null;
    this.#needsToken = false;
    if (isOnline) this.#renew();
    else this.#dial();
  }

  /** Renews the token over the connection. A guest cannot: the server closes the connection. */
  #renew() {
    this.#due.renew = Infinity;
    if (this.#needsToken) this.#ask();
    else if (this.#userToken !== null) this.#traffic.transmit({ type: "refresh", token: this.#userToken });
  }

  #renewLater(error) {
    this.#due.renew = this.#turn.now + retryWaitMs(error, this.#failures++, this.#turn.random);
  }

  /** A token with a short life is renewed after half of it: without a pause it would be asked for all the time. */
  #expiring({ expires_in_ms }) {
    if (!this.#canAsk || this.#phase !== "online") return;
    this.#needsToken = true;
    const age = Math.min(expires_in_ms / 2 || 0, RENEW_MS_MAX);
    this.#due.renew = Math.max(this.#turn.now, this.#acceptedAt + age);
  }

  #accepted() {
    this.#acceptedAt = this.#turn.now;
    this.#tokenRefusals = 0;
  }

  /** Returns true if a new token may help: after the first refusal of one, and whenever its time has passed. */
  #mayHelp({ code }) {
    if (!this.#canAsk || !code.startsWith("token_")) return false;
    this.#needsToken = true;
    return this.#tokenRefusals++ === 0 || code === "token_expired";
  }

  /** `reason`: the name of the close code, or nothing. */
  closed({ code, reason } = {}) {
    const error = { code: reason || LOST };
    const isExpired = code === TOKEN_EXPIRED;
    if (isExpired) {
      this.#tokenRefusals = 0;
      this.#needsToken = this.#canAsk;
    }
    const isSpent = isExpired && !this.#canAsk && this.#userToken !== null;
    if (FINAL_CLOSES.includes(code) || isSpent || this.#ended) this.#end(this.#ended ?? error);
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
    const { retry, open, beat, pong, renew, asked } = this.#due;
    if (now >= retry) this.#connect();
    else if (now >= asked) this.token({ error: "TimeoutError" });
    else if (now >= renew) this.#renew();
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
    if (request.type === "nick" && (restarts || this.#onlineAt === null)) {
      this.#traffic.nick = request.nick;
      this.#isNamed = true;
    }
    this.#traffic.call(id, request, age);
    if (this.#phase === "online") this.#due.beat = Math.min(this.#due.beat, this.#turn.now + REPLY_MS);
    if (!restarts) return;
    this.#ended = null;
    this.#isRefused = false;
    this.#failures = 0;
    this.#tokenRefusals = 0;
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
    const request = { type: "register", nick: this.#isNamed ? this.#traffic.nick : undefined };
    if (this.#userToken !== null) request.token = this.#userToken;
    if (this.#token) {
      request.resume = this.#token;
      request.since = this.#positions.named(["@", ...this.#traffic.live]);
    }
    this.#traffic.transmit(request);
  }

  #registered({ nick, user, resume, rooms, inbox, heartbeat_ms, node, time }) {
    const { now } = this.#turn;
    const isResumed = this.#token !== null;
    this.#token = resume;
    this.#heartbeatMs = heartbeat_ms;
    if (!isResumed) this.#positions.place("@", inbox);
    if (!this.#positions.has("@")) this.#positions.place("@", { epoch: inbox.epoch, seq: 0 });
    this.#stopTimes();
    this.#onlineAt = now;
    this.#ownNickAttempts = 0;
    this.#accepted();
    this.#traffic.user = user;
    this.#traffic.rename(nick, time);
    // Before anything else is sent: from then on the previous token is void.
    this.#turn.save();
    this.#turn.emit({ type: "inbox", ...this.#positions.get("@") });
    const names = rooms.map(({ room }) => room);
    this.#enter("online", {
      name: "online", node, resumed: isResumed, tookMs: Math.round(now - this.#lostAt), rooms: names, ...(user && { user }),
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
    if (this.#mayHelp(error)) {
      if (this.#tokenRefusals > 1) return this.#retry(error);
      this.#abandon();
      return this.#connect();
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
    else if (message.type === "expiring") this.#expiring(message);
    else if (message.type === "announcement") this.#turn.emit(message);
    else if (message.id === undefined && !isError) this.#traffic.event(message);
    else this.#reply(message);
  }

  #reply(reply) {
    const type = this.#traffic.reply(reply)?.type;
    const isError = reply.type === "error";
    if (type === "refresh") {
      if (isError) this.#refreshRefused(reply);
      else this.#refreshed(reply);
    }
    if (type !== "register") return;
    if (isError) this.#refused(reply);
    else if (isRegistered(reply)) this.#registered(reply);
  }

  /** `left`: the rooms that the new token does not allow. */
  #refreshed({ left }) {
    this.#accepted();
    this.#failures = 0;
    if (Array.isArray(left)) for (const room of left) this.#traffic.dropRoom(fold(room));
  }

  /** After a refusal that no other token helps against, the server closes the connection when the old one expires. */
  #refreshRefused(error) {
    if (isTemporary(error)) this.#renewLater(error);
    else if (!this.#mayHelp(error)) return;
    else if (this.#tokenRefusals > 1) this.#renewLater(error);
    else this.#ask();
  }
}

/** Returns the state of a session that tries again in `inMs`, or that is over. */
const offline = ({ code, message = null }, inMs = null) =>
  ({ name: "offline", reason: code, message, willRetry: inMs !== null, inMs });

const isRegistered = ({ resume, rooms, inbox, heartbeat_ms }) =>
  typeof resume === "string" && Array.isArray(rooms) && isPosition(inbox) && heartbeat_ms > 0;
