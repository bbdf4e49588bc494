// Drives the session: carries out its effects with a socket, a timer and the storage.

import { Session } from "./session.js";

/** Longest time that `setTimeout` accepts. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;
/** Any code but 1000: the session is to stay. */
const ABANDONED = 4000;

export class Engine {
  #session;
  #store;
  #WebSocket;
  #output;
  #socket = null;
  #getToken;
  /** Ends the question for a token. */
  #question;
  #timer;
  #inputs = [];
  #isBusy = false;

  /** `output` receives the effects `answer` and `emit`. */
  constructor(options, output) {
    const { store, positions, getToken } = options;
    const saved = { ...store.get("session") };
    saved.positions = { ...saved.positions, ...positions };
    this.#session = new Session({ ...options, saved, canAsk: Boolean(getToken) });
    this.#getToken = getToken;
    this.#store = store;
    this.#WebSocket = options.WebSocket;
    this.#output = output;
    this.input({ type: "start" });
  }

  /** Ends the connection without a word to the server. */
  stop() {
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Gives an input to the session. Inputs that its effects cause wait until these are carried out. */
  input(input) {
    this.#inputs.push(input);
    if (this.#isBusy) return;
    this.#isBusy = true;
    for (let next; (next = this.#inputs.shift()); ) {
      try {
        for (const effect of this.#session.step(next, performance.now(), Math.random())) this.#perform(effect);
      } catch (error) {
        console.error(error);
      }
    }
    this.#isBusy = false;
    clearTimeout(this.#timer);
    const dueMs = this.#session.nextAt - performance.now();
    if (dueMs < Infinity) this.#timer = setTimeout(() => this.input({ type: "tick" }), Math.min(dueMs, TIMEOUT_MS_MAX));
  }

  #perform(effect) {
    switch (effect.do) {
      case "connect": return this.#connect(effect.url);
      case "drop": return this.#drop();
      case "ask": return this.#ask();
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
      return this.input({ type: "closed" });
    }
    this.#socket = socket;
    const only = (input) => this.#socket === socket && this.input(input);
    socket.onopen = () => only({ type: "open" });
    socket.onmessage = ({ data }) => typeof data === "string" && only({ type: "frame", text: data });
    socket.onclose = ({ code, reason }) => only({ type: "closed", code, reason });
    // A close follows every error.
    socket.onerror = () => {};
  }

  #ask() {
    this.#question?.abort();
    const { signal } = (this.#question = new AbortController());
    const answer = (input) => signal.aborted || this.input({ type: "token", ...input });
    // A function that throws at once has failed like one that rejects.
    new Promise((resolve) => resolve(this.#getToken({ signal }))).then(
      (token) => answer({ token }),
      (error) => answer({ error: String(error?.name) }),
    );
  }

  #drop() {
    this.#question?.abort();
    const socket = this.#socket;
    this.#socket = null;
    if (socket?.readyState < 2) socket.close(ABANDONED);
  }
}
