// Drives the session: carries out its effects with a socket, a timer and the storage.

import { Session } from "./session.js";

/** Longest time that `setTimeout` accepts. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;
/** Any code but 1000: the session is to stay. */
const ABANDONED = 4000;

const clock = globalThis.performance;

export class Engine {
  #session;
  #store;
  #WebSocket;
  #output;
  #socket = null;
  #timer;
  #inputs = [];
  #isBusy = false;
  #onWake = () => this.input({ type: "wake" });
  #onVisible = () => globalThis.document.visibilityState === "visible" && this.#onWake();

  /** `output` receives the effects `answer` and `emit`. */
  constructor({ urls, nick, WebSocket, store, live, positions }, output) {
    const saved = store.get("session");
    this.#session = new Session({ urls, nick, live, saved: { ...saved, positions: { ...saved?.positions, ...positions } } });
    this.#store = store;
    this.#WebSocket = WebSocket;
    this.#output = output;
    globalThis.addEventListener?.("online", this.#onWake);
    globalThis.document?.addEventListener?.("visibilitychange", this.#onVisible);
    this.input({ type: "start" });
  }

  /** Events that bring a client up to date which connects to this session. */
  snapshot() {
    return this.#session.snapshot();
  }

  /** Ends the connection without a word to the server. */
  stop() {
    globalThis.removeEventListener?.("online", this.#onWake);
    globalThis.document?.removeEventListener?.("visibilitychange", this.#onVisible);
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Gives an input to the session. Inputs that its effects cause wait until these are carried out. */
  input(input) {
    this.#inputs.push(input);
    if (this.#isBusy) return;
    this.#isBusy = true;
    for (let next; (next = this.#inputs.shift()); ) {
      for (const effect of this.#session.step(next, clock.now(), Math.random())) this.#perform(effect);
    }
    this.#isBusy = false;
    clearTimeout(this.#timer);
    const dueMs = this.#session.nextAt - clock.now();
    if (dueMs < Infinity) this.#timer = setTimeout(() => this.input({ type: "tick" }), Math.min(Math.max(dueMs, 0), TIMEOUT_MS_MAX));
  }

  #perform(effect) {
    switch (effect.do) {
      case "connect": return this.#connect(effect.url);
      case "drop": return this.#drop();
      case "send": return this.#socket?.send(effect.text);
      case "save": return this.#store.put("session", effect.saved);
      default: return this.#output(effect);
    }
  }

  #connect(url) {
    let socket;
    try {
      socket = new this.#WebSocket(url, "parley.v1");
    } catch {
      return this.input({ type: "closed", code: 1006 });
    }
    this.#socket = socket;
    const only = (input) => this.#socket === socket && this.input(input);
    socket.onopen = () => only({ type: "open" });
    socket.onmessage = ({ data }) => typeof data === "string" && only({ type: "frame", text: data });
    socket.onclose = ({ code }) => only({ type: "closed", code });
    // A close follows every error.
    socket.onerror = () => {};
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState < 2) socket.close(ABANDONED);
  }
}
