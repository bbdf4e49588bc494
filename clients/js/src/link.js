// The way from a client to its session: calls with answers, and events.

import { ParleyError } from "./codes.js";
import { Engine } from "./engine.js";

/** Calls of one client. A subclass carries them to the session: `post(message)`, `receive(message)`. */
export class Link {
  #pending = new Map();
  #lastCall = 0;
  #onEvent;
  /** Reason of the end of the session. */
  ended = null;
  /** True if the end was a refusal of the nickname, after which `nick` starts again. */
  isRefused = false;

  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  /**
   * Resolves with the result of `accept`, which is given the reply as soon as it arrives. Rejects with a `ParleyError`,
   * or with the reason of the signal.
   */
  call(request, signal, accept = (reply) => reply) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.ended && !(this.isRefused && request.type === "nick")) return reject(new ParleyError(this.ended));
      const id = ++this.#lastCall;
      const onAbort = () => {
        this.#pending.delete(id);
        this.post({ type: "abort", id });
        reject(signal.reason);
      };
      const settle = (outcome) => {
        this.#pending.delete(id);
        signal?.removeEventListener("abort", onAbort);
        if (outcome.error) reject(toError(outcome.error));
        else resolve(accept(outcome.reply));
      };
      signal?.addEventListener("abort", onAbort);
      const message = { type: "call", id, request };
      this.#pending.set(id, { message, settle });
      this.post(message);
    });
  }

  /** Handles an `answer` or `emit` effect of the session. */
  receive(effect) {
    if (effect.do === "answer") return this.#pending.get(effect.id)?.settle(effect);
    const { event } = effect;
    if (event.type === "state") {
      const isFinal = event.state.name === "offline" && !event.state.willRetry;
      this.ended = isFinal ? event.state.reason : null;
      this.isRefused = event.isRefused;
      if (isFinal) for (const { settle } of [...this.#pending.values()]) settle({ error: { code: this.ended } });
    }
    this.#onEvent(event);
  }

  /** Ends the session. */
  close() {
    if (this.ended) return Promise.resolve();
    return new Promise((resolve) => {
      const id = ++this.#lastCall;
      this.#pending.set(id, { message: { type: "close", id }, settle: () => resolve(this.#pending.delete(id)) });
      this.post({ type: "close", id });
    });
  }

  /** Messages of the calls without an answer yet. */
  get pending() {
    return [...this.#pending.values()].map(({ message }) => message);
  }
}

/** Link to a session in the same page. */
export class OwnLink extends Link {
  #engine;

  constructor(options, onEvent) {
    super((event) => {
      if (this.ended && !this.isRefused) this.#engine.stop();
      onEvent(event);
    });
    // The first events come after the constructor of the client has returned.
    queueMicrotask(() => {
      this.#engine = new Engine(options, (effect) => this.receive(effect));
      for (const message of this.pending) this.#engine.input(message);
    });
  }

  post(message) {
    this.#engine?.input(message);
  }

  /** Gives an event to the other tabs. */
  share() {}
}

function toError({ code, message, retry_after_ms }) {
  return new ParleyError(code, message, retry_after_ms);
}
