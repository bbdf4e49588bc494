// One session for all tabs of an origin. The tab that holds a Web Lock leads: it runs the session, and the other tabs
// reach it over a BroadcastChannel. The lock is freed when that tab closes or crashes, and the next one leads.
//
// A new leader asks for the positions of all tabs, and resumes from the lowest, so that no tab misses a message. Each
// tab drops what it has seen. Calls without an answer are posted again; sends keep their keys.

import { Engine } from "./engine.js";
import { Link } from "./link.js";
import { fold } from "./position.js";

/** Time for the other tabs to report their positions to a new leader. A frozen tab does not answer. */
const REPORT_MS = 150;

/** Returns true if tabs with this storage can share a session. */
export function canShare(storage) {
  try {
    return storage !== null && storage === globalThis.localStorage && Boolean(navigator.locks && BroadcastChannel);
  } catch {
    return false;
  }
}

export class Tabs extends Link {
  #tab = Math.random().toString(36).slice(2);
  #options;
  #locks;
  #lockName;
  #channel;
  #positions;
  #waiting = new AbortController();
  #release = () => {};
  /** In the leading tab: the session, and before it runs the reports and messages that have arrived. */
  #engine = null;
  #reports = null;
  #onReport = () => {};
  #early = [];
  /** True if another tab has led: it may have sent the calls of this one. */
  #wasLed = false;

  /** `positions` returns those of this tab: of its rooms by name, and of the inbox as `@`. */
  constructor(options, onEvent, positions, { locks = navigator.locks, Channel = BroadcastChannel } = {}) {
    super(onEvent);
    this.#options = options;
    this.#positions = positions;
    this.#locks = locks;
    this.#lockName = `parley-chat:${options.name}`;
    this.#channel = new Channel(this.#lockName);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#post({ hello: this.#tab });
    const lead = () => new Promise((release) => this.#lead(release));
    locks.request(this.#lockName, { signal: this.#waiting.signal }, lead).catch(() => {});
  }

  post(message) {
    if (this.#reports) this.#input(this.#tab, message);
    else this.#post({ tab: this.#tab, message });
  }

  /** Gives an event to the other tabs. */
  share(event) {
    this.#post({ event });
  }

  receive(effect) {
    super.receive(effect);
    if (!this.#isOver) return;
    this.#waiting.abort();
    this.#engine?.stop();
    this.#channel.close();
    this.#release();
  }

  #post(data) {
    if (!this.#isOver) this.#channel.postMessage(data);
  }

  get #isOver() {
    return this.ended !== null && !this.isRefused;
  }

  #hear({ hello, only = this.#tab, leader, report, tab, message, effect, event }) {
    this.#wasLed ||= Boolean(leader || effect || event);
    if (hello && this.#engine) for (const event of this.#engine.snapshot()) this.#post({ only: hello, event });
    if (leader) this.#post({ report: this.#report() });
    if (report && this.#reports) {
      this.#reports.push(report);
      this.#onReport();
    }
    if (message && this.#reports) this.#input(tab, message);
    if (effect && tab === this.#tab) this.receive(effect);
    if (event && only === this.#tab) this.receive({ do: "emit", event });
  }

  #report() {
    const messages = this.pending.map((message) => ({ ...message, isRepeated: this.#wasLed }));
    return { tab: this.#tab, positions: this.#positions(), messages };
  }

  async #lead(release) {
    this.#release = release;
    this.#reports = [];
    const { pending } = await this.#locks.query();
    const others = pending.filter(({ name }) => name === this.#lockName).length;
    if (others > 0) {
      await new Promise((resolve) => {
        this.#onReport = () => this.#reports.length >= others && resolve();
        setTimeout(resolve, REPORT_MS);
        this.#post({ leader: this.#tab });
      });
    }
    // The session may have ended while the lock was granted.
    if (this.#isOver) return release();
    const reports = [...this.#reports, this.#report()];
    const { positions, live } = lowest(reports, this.#options.store.get("session")?.positions);
    this.#engine = new Engine({ ...this.#options, positions, live }, (effect) => this.#output(effect));
    for (const { tab, messages } of reports) for (const message of messages) this.#input(tab, message);
    for (const [tab, message] of this.#early) this.#input(tab, message);
  }

  #input(tab, message) {
    if (this.#engine) this.#engine.input({ ...message, id: `${tab} ${message.id}` });
    else this.#early.push([tab, message]);
  }

  #output(effect) {
    if (effect.do === "emit") {
      this.#post({ event: effect.event });
      return this.receive(effect);
    }
    const [tab, id] = effect.id.split(" ");
    const answer = { ...effect, id: Number(id) };
    if (tab === this.#tab) this.receive(answer);
    else this.#post({ tab, effect: answer });
  }
}

/** Returns the lowest position of each stream, and the names of the rooms. A position of an ended epoch is lower. */
function lowest(reports, stored = {}) {
  const found = new Map();
  for (const [name, position] of reports.flatMap(({ positions }) => Object.entries(positions))) {
    const key = fold(name);
    const rank = position.epoch === stored[name]?.epoch ? position.seq : position.seq - Number.MAX_SAFE_INTEGER;
    if (!(found.get(key)?.rank <= rank)) found.set(key, { name, position, rank });
  }
  const all = [...found.values()];
  return {
    positions: Object.fromEntries(all.map(({ name, position }) => [name, position])),
    live: all.map(({ name }) => name).filter((name) => name !== "@"),
  };
}
