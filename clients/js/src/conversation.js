// The common part of rooms and direct conversations: sending, typing, the read mark and the draft.

import { ParleyError } from "./codes.js";
import { Listeners } from "./listeners.js";
import { fold } from "./position.js";

/** The gateway forwards one `typing` in 3 s. */
const TYPING_MS = 2_500;
/** Number of unread messages whose positions are kept, for a `read` of a part of them. */
const UNREAD_SEQS_MAX = 1_000;

const keyPrefix = () => Math.random().toString(36).slice(2);
/** Keys must differ among the tabs and page loads of one session. */
const KEY_PREFIX = keyPrefix() + keyPrefix();
let keys = 0;

export class Conversation {
  #to;
  #context;
  #listeners;
  #typedAt = -Infinity;
  #readSeq = null;
  /** Number of unread messages at or below `#olderSeq`, and the positions of those above. */
  #older = 0;
  #olderSeq = 0;
  #newer = [];

  /** `context`: {link, store, nick(), report(error)} of the client. */
  constructor(to, context) {
    this.#to = to;
    this.#context = context;
    this.#listeners = new Listeners(context.report);
  }

  on(event, listener) {
    return this.#listeners.on(event, listener);
  }

  emit(event, value) {
    this.#listeners.emit(event, value);
  }

  async send(body, { key = `${KEY_PREFIX}${++keys}`, signal } = {}) {
    const request = { type: "send", to: this.#to, body: copyOf(body), key };
    const ack = await this.#context.link.call(request, signal);
    const { msg_id: id, seq = null, time, delivered = null, duplicate } = ack;
    return { id, seq, time, delivered, duplicate };
  }

  typing() {
    const now = performance.now();
    if (now - this.#typedAt < TYPING_MS) return;
    this.#typedAt = now;
    this.#context.link.post({ type: "call", id: null, request: { type: "typing", to: this.#to } });
  }

  get draft() {
    return this.#context.store.get(`draft:${fold(this.#to)}`) ?? "";
  }

  set draft(text) {
    this.#context.store.put(`draft:${fold(this.#to)}`, text || null);
  }

  get unread() {
    return this.#older + this.#newer.length;
  }

  get readSeq() {
    return this.#readSeq ?? 0;
  }

  read(seq = this.lastSeq) {
    const upTo = Math.min(seq, this.lastSeq);
    if (!(upTo > this.readSeq)) return;
    this.applyRead(upTo);
    this.#context.link.share({ type: "read", to: this.#to, seq: upTo });
  }

  /** Restores the read mark. Without a stored one everything up to `seq` is read. */
  startReading(seq) {
    const stored = this.#context.store.get(this.#readKey);
    const [readSeq, unread] = Array.isArray(stored) ? stored : [seq, 0];
    this.#readSeq = Math.min(readSeq, seq);
    this.#older = unread;
    this.#olderSeq = seq;
  }

  /** Applies a read mark of this or another tab. */
  applyRead(seq) {
    if (seq <= this.readSeq) return;
    this.#readSeq = seq;
    this.#newer = this.#newer.filter((unread) => unread > seq);
    if (seq >= this.#olderSeq) this.#older = 0;
    this.#reportRead();
  }

  /** Counts a message that arrived. */
  count(message) {
    if (message.own || message.seq <= this.readSeq) return;
    this.#newer.push(message.seq);
    if (this.#newer.length > UNREAD_SEQS_MAX) {
      this.#olderSeq = this.#newer.shift();
      this.#older += 1;
    }
    this.#reportRead();
  }

  /** Forgets what was counted after `seq`. */
  uncount(seq) {
    this.#readSeq = Math.min(this.readSeq, seq);
    this.#newer = this.#newer.filter((unread) => unread <= seq);
    this.#reportRead();
  }

  get #readKey() {
    return `read:${fold(this.#to)}`;
  }

  #reportRead() {
    const { unread, readSeq } = this;
    this.#context.store.put(this.#readKey, [readSeq, unread]);
    this.emit("read", { unread, readSeq });
  }
}

/** Returns the value that others will read, safe from later changes by the caller. */
function copyOf(body) {
  try {
    return JSON.parse(JSON.stringify(body));
  } catch {
    throw new ParleyError("bad_request", "the body is not a JSON value");
  }
}
