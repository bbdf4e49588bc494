// One session for all tabs of an origin. The tab that holds a Web Lock leads: it runs the session, and the other tabs
// reach it over a BroadcastChannel. The lock is freed when that tab closes or crashes, and the next one leads.
//
// A new leader asks for the positions of all tabs, and resumes from the lowest, so that no tab misses a message. Each
// tab drops what it has seen. Calls without an answer are posted again; sends keep their keys.

import { ParleyError } from "./codes.js";
import { Engine } from "./engine.js";
import { fold, randomText } from "./position.js";

/** Time for the other tabs to report their positions to a new leader. A frozen tab does not answer. */
const REPORT_MS = 150;

/** Above every seq. */
const SEQ_MAX = 9e15;

/** Returns true if tabs with this storage can share a session. */
export function canShare(storage) {
  try {
    return storage !== null && storage === globalThis.localStorage && Boolean(navigator.locks && BroadcastChannel);
  } catch {
    return false;
  }
}

/** The surroundings of a client that shares its session with no other tab. */
export const ALONE = {
  locks: { request: async (name, options, lead) => lead(), query: async () => ({ pending: [] }) },
  Channel: class {
    postMessage() {}
    close() {}
  },
};

export class Tabs {
  #tab = randomText();
  #options;
  #client;
  #locks;
  #name;
  #channel;
  #waiting = new AbortController();
  /** Calls without an answer. */
  #pending = new Map();
  #lastCall = 0;
  /** True if another tab has led: it may have sent the calls of this one. */
  #wasLed = false;
  /** True from the first event. */
  #isPart = false;
  /** The error that ended the session. */
  ended = null;
  /** True unless the end was a refusal of the nickname, after which `nick` starts again. */
  isOver = false;

  // In the tab that leads, from the grant of the lock:
  #engine = null;
  /** Messages of the other tabs from before the session runs. */
  #early = null;
  #reports = [];
  #onReport = () => {};
  #release = () => {};

  /**
   * `client`: {receive(event), nick(), positions(), snapshot()}. Positions are pairs with a name: of its rooms, and of
   * the inbox, `@`, which is `null` before the first connection. A snapshot has the events that bring another tab up to
   * date.
   */
  constructor(options, client, { locks = navigator.locks, Channel = BroadcastChannel } = {}) {
    this.#options = options;
    this.#client = client;
    this.#locks = locks;
    this.#name = `parley-chat:${options.name}`;
    this.#channel = new Channel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#post({ hello: this.#tab, nick: client.nick() });
    const wake = ({ type }) => {
      if (type === "online" || document.visibilityState === "visible") this.post({ type: "wake" });
    };
    globalThis.addEventListener?.("online", wake, this.#waiting);
    globalThis.document?.addEventListener("visibilitychange", wake, this.#waiting);
    const lead = () => new Promise((release) => this.#lead(release));
    locks.request(this.#name, { signal: this.#waiting.signal }, lead).catch(() => {});
  }

  /**
   * Resolves with the result of `accept`, which is given the reply as soon as it arrives. Rejects with a `ParleyError`,
   * with the reason of the signal, or with a `TypeError` if the request is not JSON.
   */
  call(request, signal, accept = (reply) => reply) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.isOver) return reject(toError(this.ended));
      const id = ++this.#lastCall;
      const onAbort = () => {
        this.#pending.delete(id);
        this.post({ type: "abort", id });
        reject(signal.reason);
      };
      const settle = ({ error, reply }) => {
        this.#pending.delete(id);
        signal?.removeEventListener("abort", onAbort);
        if (error) reject(toError(error));
        else resolve(accept(reply));
      };
      // A copy, safe from later changes by the caller. Throws for what is not JSON.
      const message = { type: "call", id, request: JSON.parse(JSON.stringify(request)), at: performance.now() };
      signal?.addEventListener("abort", onAbort);
      this.#pending.set(id, { message, settle });
      this.post(message);
    });
  }

  /** Gives an input to the session, wherever it runs. */
  post(message) {
    if (this.#early) this.#input(this.#tab, message);
    else this.#post({ tab: this.#tab, message });
  }

  /** Gives an event to the other tabs. */
  share(event) {
    this.#post({ event });
  }

  #post(data) {
    if (!this.isOver) this.#channel.postMessage(data);
  }

  #hear({ hello, nick, only = this.#tab, leader, report, tab, message, answer, event }) {
    // The end of an earlier session, which this tab was no part of.
    if (isOver(event) && (this.#early || !this.#isPart)) return;
    this.#wasLed ||= Boolean(leader || answer || event);
    if (hello && this.#engine) {
      // A refused session goes on with the nickname of a new tab.
      const request = { type: "nick", nick };
      if (this.ended && nick && nick !== this.#client.nick()) this.#input(hello, { type: "call", request });
      for (const event of this.#client.snapshot()) this.#post({ only: hello, event });
    }
    if (leader) this.#post({ report: this.#report() });
    if (report) {
      this.#reports.push(report);
      this.#onReport();
    }
    if (message && this.#early) this.#input(tab, message);
    if (answer && tab === this.#tab) this.#settle(answer);
    if (event && only === this.#tab) this.#receive(event);
  }

  #settle(answer) {
    this.#pending.get(answer.id)?.settle(answer);
  }

  #receive(event) {
    this.#isPart = true;
    if (event.type === "state") {
      const { reason: code, message, willRetry } = event.state;
      this.ended = willRetry === false ? { code, message } : null;
      this.isOver = isOver(event);
    }
    this.#client.receive(event);
    if (!this.isOver) return;
    for (const { message, settle } of [...this.#pending.values()]) {
      settle(message.request.type === "bye" ? {} : { error: this.ended });
    }
    this.#waiting.abort();
    this.#engine?.stop();
    this.#channel.close();
    this.#release();
  }

  #report() {
    const messages = [...this.#pending.values()].map(({ message }) => message);
    if (this.#wasLed) for (const message of messages) message.age = performance.now() - message.at;
    return { tab: this.#tab, positions: this.#client.positions(), messages };
  }

  async #lead(release) {
    this.#release = release;
    this.#early = [];
    this.#reports = [];
    const { pending } = await this.#locks.query();
    const others = pending.filter(({ name }) => name === this.#name).length;
    if (others > 0) {
      await new Promise((resolve) => {
        this.#onReport = () => this.#reports.length >= others && resolve();
        setTimeout(resolve, REPORT_MS);
        this.#post({ leader: this.#tab });
      });
    }
    // The session may have ended while the lock was granted.
    if (this.isOver) return release();
    const reports = [...this.#reports, this.#report()];
    const { positions, live } = lowest(reports, this.#options.store.get("session")?.positions);
    this.#engine = new Engine(
      { ...this.#options, nick: this.#client.nick(), positions, live, wasOnline: this.#wasLed },
      (effect) => this.#output(effect),
    );
    for (const { tab, messages } of reports) for (const message of messages) this.#input(tab, message);
    for (const [tab, message] of this.#early) this.#input(tab, message);
  }

  #input(tab, message) {
    // From `bye` on nothing more is heard: a new client begins its own session.
    if (message.request?.type === "bye") this.#channel.onmessage = null;
    if (this.#engine) this.#engine.input({ ...message, id: `${tab} ${message.id}` });
    else this.#early.push([tab, message]);
  }

  /** Handles an effect of the session: `emit` or `answer`. */
  #output({ event, id, reply, error }) {
    if (event) {
      this.#post({ event });
      return this.#receive(event);
    }
    const [tab, call] = id.split(" ");
    const answer = { id: Number(call), reply, error };
    if (tab === this.#tab) this.#settle(answer);
    else this.#post({ tab, answer });
  }
}

/** Returns true for the last event of a session. */
const isOver = (event) => event?.state?.willRetry === false && !event.isRefused;

const toError = ({ code, message, retry_after_ms }) => new ParleyError(code, message, retry_after_ms);

/** Returns the lowest position of each stream, and the names of the rooms. A position of an ended epoch is lower. */
function lowest(reports, stored = {}) {
  const found = new Map();
  for (const [name, position] of reports.flatMap(({ positions }) => positions)) {
    if (!position) continue;
    const rank = position.seq - (position.epoch === stored[name]?.epoch ? 0 : SEQ_MAX);
    const key = fold(name);
    if (!(found.get(key)?.rank <= rank)) found.set(key, { name, position, rank });
  }
  const all = [...found.values()];
  return {
    positions: Object.fromEntries(all.map(({ name, position }) => [name, position])),
    live: all.map(({ name }) => name).filter((name) => name !== "@"),
  };
}
