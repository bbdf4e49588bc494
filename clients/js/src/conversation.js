// The common part of rooms and direct conversations: sending, typing, the read mark and the draft.

import { Listeners } from "./listeners.js";
import { fold, isRoom, randomText } from "./position.js";

/** The gateway forwards one `typing` in 3 s. */
const TYPING_MS = 2_500;
/** Number of messages that are counted as unread, at most: as many as a room keeps. */
const UNREAD_MAX = 10_000;

/** Keys must differ among the tabs and page loads of one session. */
const KEY_PREFIX = randomText() + randomText();
let keys = 0;

export class Conversation extends Listeners {
  #to;
  #key;
  #context;
  #typedAt = -Infinity;
  /** Positions of the unread messages. */
  #unread = [];
  readSeq = 0;
  seq = 0;

  /** `context`: {link, store, isOwn(message), report(error)} of the client. */
  constructor(to, context) {
    super(context.report);
    this.#to = to;
    this.#key = fold(to);
    this.#context = context;
  }

  async send(body, { key = `${KEY_PREFIX}${++keys}`, signal } = {}) {
    const request = { type: "send", to: this.#to, body, key };
    const { msg_id, seq = null, time, delivered = null, duplicate } = await this.#context.link.call(request, signal);
    return { id: msg_id, seq, time, delivered, duplicate };
  }

  typing() {
    const now = performance.now();
    if (now - this.#typedAt < TYPING_MS) return;
    this.#typedAt = now;
    this.#context.link.post({ type: "call", id: null, request: { type: "typing", to: this.#to } });
  }

  get draft() {
    return this.#context.store.get(`draft:${this.#key}`) ?? "";
  }

  set draft(text) {
    this.#context.store.put(`draft:${this.#key}`, text || null);
  }

  get unread() {
    return this.#unread.length;
  }

  read(seq = this.seq) {
    const upTo = Math.min(seq, this.seq);
    if (!(upTo > this.readSeq)) return;
    const { link } = this.#context;
    this.applyRead(upTo);
    link.share({ type: "read", to: this.#to, seq: upTo });
    if (!isRoom(this.#to)) link.call({ type: "read", to: "@", seq: upTo }).catch(() => {});
  }

  /** Restores the read mark. Without a stored one everything up to `start` is read. A room starts at its position. */
  startReading(start) {
    const stored = this.#context.store.get(`read:${this.#key}`);
    const [readSeq, unread, seq] = stored?.[2] ? stored : [start ?? 0, 0, 0];
    this.seq = start ?? seq;
    this.readSeq = Math.min(readSeq, this.seq);
    this.#unread = Array(unread).fill(this.seq);
  }

  /** Applies a read mark of this or another tab. */
  applyRead(seq) {
    if (seq > this.readSeq) this.#mark(seq, this.#unread.filter((unread) => unread > seq));
  }

  /** Counts a message that arrived. */
  count({ own, seq }) {
    // The inbox of a new session begins again.
    if (seq <= this.seq) this.uncount(0);
    this.seq = seq;
    if (!own) this.#mark(this.readSeq, [...this.#unread, seq].slice(-UNREAD_MAX));
  }

  /** Forgets what was counted after `seq`. */
  uncount(seq) {
    this.seq = Math.min(this.seq, seq);
    this.#mark(Math.min(this.readSeq, seq), this.#unread.filter((unread) => unread <= seq));
  }

  #mark(readSeq, seqs) {
    this.readSeq = readSeq;
    this.#unread = seqs;
    this.#context.store.put(`read:${this.#key}`, [readSeq, seqs.length, this.seq]);
    this.emit("read", { unread: seqs.length, readSeq });
  }

}
