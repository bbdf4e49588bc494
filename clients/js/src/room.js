// Rooms and direct conversations, as one tab sees them.

import { Conversation } from "./conversation.js";
import { Members } from "./members.js";
import { advance, isPosition } from "./position.js";

/** Number of delivered messages that are recognised when they come again after `rewound`. */
const IDS_MAX = 1_000;
const PAGE_MAX = 200;

/** A position, and the ids of the last messages that were delivered. */
export class Cursor {
  #position;
  #ids = new Set();

  constructor({ epoch, seq }) {
    this.#position = { epoch, seq };
  }

  get position() {
    return { ...this.#position };
  }

  /** Moves over an event. Returns the event to deliver, or `null` if it was delivered before. */
  move(event) {
    const moved = advance(this.#position, event);
    if (moved?.type !== "message") return moved;
    const repeated = this.#ids.has(event.msg_id);
    this.#ids.add(event.msg_id);
    if (this.#ids.size > IDS_MAX) this.#ids.delete(this.#ids.values().next().value);
    return { ...event, repeated };
  }
}

/** Returns a message of the wire as the application sees it. */
export function toMessage({ msg_id: id, to, from, seq, time, body, repeated = false }, nick) {
  return { id, to, from, seq, time, body, own: from === nick, repeated };
}

export class Room extends Conversation {
  #context;
  #cursor;
  #members;
  #recent = [];
  #holds = 0;
  #held = [];
  #isLeft = false;
  #iterators = new Set();

  constructor(name, position, context) {
    super(name, context);
    this.name = name;
    this.#context = context;
    this.#cursor = new Cursor(position);
    this.#members = new Members(
      (cursor) => context.link.call({ type: "members", room: name, limit: 1000, ...(cursor && { cursor }) }),
      (event) => this.emit("members", event),
    );
    this.startReading(position.seq);
  }

  get recent() {
    return this.#recent;
  }

  get members() {
    return this.#members.map;
  }

  get position() {
    return this.#cursor.position;
  }

  get seq() {
    return this.position.seq;
  }

  get lastSeq() {
    return this.seq;
  }

  async history({ before, after, limit = 50, signal } = {}) {
    const request = { type: "history", to: this.name, limit };
    if (before !== undefined) request.before = before;
    if (after !== undefined) request.after = after;
    const { items, more } = await this.#context.link.call(request, signal);
    return { items: items.map((item) => toMessage(item, this.#context.nick())), more };
  }

  async leave({ signal } = {}) {
    if (!this.#isLeft) await this.#context.link.call({ type: "leave", room: this.name }, signal);
  }

  /** Holds events back until `release`. */
  hold() {
    this.#holds += 1;
  }

  /** Delivers the held events, after the code that awaits `join` has added its listeners. */
  release() {
    setTimeout(() => {
      this.#holds -= 1;
      while (this.#holds === 0 && this.#held.length > 0) this.#apply(this.#held.shift());
    });
  }

  /** Loads the members, and `count` messages from before the position. Events are held meanwhile. */
  async load(count, signal) {
    await Promise.all([this.#members.load(), count > 0 && this.#loadRecent(Math.min(count, PAGE_MAX), signal)]);
  }

  async #loadRecent(count, signal) {
    let recent = [];
    for (let before = this.seq + 1, more = true; more && recent.length < count; before = recent[0]?.seq) {
      const page = await this.history({ before, limit: count - recent.length, signal });
      recent = [...page.items, ...recent];
      more = page.more && page.items.length > 0;
    }
    this.#recent = recent;
  }

  /** Loads the members again, after changes may have been missed. */
  reload() {
    this.#members.load().catch(() => {});
  }

  receive(event) {
    if (this.#holds > 0) this.#held.push(event);
    else this.#apply(event);
  }

  #apply(event) {
    if (event.type === "presence") return event.resync ? this.reload() : this.#members.apply(event);
    if (event.type === "typing") return this.emit("typing", { from: event.from });
    if (event.type === "left") return this.#leave();
    const moved = this.#cursor.move(event);
    if (moved?.type === "gap") this.emit("gap", { fromSeq: moved.from_seq, toSeq: moved.to_seq });
    if (moved?.type === "rewound") {
      this.#recent = this.#recent.filter(({ seq }) => seq <= moved.seq);
      this.uncount(moved.seq);
      this.emit("rewind", { seq: moved.seq });
    }
    if (moved?.type === "message") {
      const message = toMessage(moved, this.#context.nick());
      this.count(message);
      this.emit("message", message);
    }
  }

  #leave() {
    this.#isLeft = true;
    this.emit("left", undefined);
    this.end();
  }

  /** Ends the iterators. */
  end() {
    for (const end of this.#iterators) end();
  }

  /** Messages as they arrive. Those that come again after `rewind` are left out. */
  [Symbol.asyncIterator]() {
    const messages = [];
    let isDone = this.#isLeft;
    let wake = () => {};
    const finish = () => {
      isDone = true;
      off();
      this.#iterators.delete(finish);
      wake();
    };
    const off = this.on("message", (message) => {
      if (!message.repeated) messages.push(message);
      wake();
    });
    this.#iterators.add(finish);
    return {
      async next() {
        while (messages.length === 0 && !isDone) await new Promise((resolve) => (wake = resolve));
        return messages.length > 0 ? { value: messages.shift(), done: false } : { value: undefined, done: true };
      },
      async return() {
        finish();
        return { value: undefined, done: true };
      },
    };
  }
}

export class Direct extends Conversation {
  #context;

  constructor(nick, context) {
    super(nick, context);
    this.nick = nick;
    this.#context = context;
    this.lastSeq = 0;
    this.startReading(0);
  }

  receive(message) {
    if (message.seq !== null) {
      this.lastSeq = message.seq;
      this.count(message);
    }
    this.emit("message", message);
  }

  read(seq) {
    const before = this.readSeq;
    super.read(seq);
    if (this.readSeq > before) this.#context.link.call({ type: "read", to: "@", seq: this.readSeq }).catch(() => {});
  }
}
