// Rooms and direct conversations, as one tab sees them.

import { Conversation } from "./conversation.js";
import { Members } from "./members.js";
import { Cursor } from "./position.js";

/** Returns a message of the wire as the application sees it. */
export function toMessage(item, own) {
  const { msg_id, to, from, from_user: fromUser, from_api: fromApi, seq, time, body, repeated = false } = item;
  return { id: msg_id, to, from, ...(fromUser && { fromUser }), ...(fromApi && { fromApi }), seq, time, body, own, repeated };
}

export class Room extends Conversation {
  #context;
  #members;
  #holds = 0;
  #held = [];
  #isOver = false;
  recent = [];

  /** `position`: {name, epoch, seq} */
  constructor(position, context) {
    const { name, seq } = position;
    super(name, context);
    this.name = name;
    this.#context = context;
    this.cursor = new Cursor(position);
    this.#members = new Members(
      (cursor) => context.link.call({ type: "members", room: name, limit: 1000, cursor }),
      (event) => this.emit("members", event),
    );
    this.startReading(seq);
  }

  get members() {
    return this.#members.map;
  }

  async history({ before, after, limit = 50, signal } = {}) {
    const request = { type: "history", to: this.name, limit, before, after };
    const { items, more } = await this.#context.link.call(request, signal);
    return { items: items.map((item) => this.#toMessage(item)), more };
  }

  async leave({ signal } = {}) {
    if (!this.#isOver) await this.#context.link.call({ type: "leave", room: this.name }, signal);
  }

  #toMessage(item) {
    return toMessage(item, this.#context.isOwn(item));
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
    await Promise.all([this.#members.load(), count > 0 && this.#loadRecent(count, signal)]);
  }

  async #loadRecent(count, signal) {
    let recent = [];
    for (let before = this.cursor.seq + 1, more = true; more && recent.length < count; before = recent[0]?.seq) {
      const page = await this.history({ before, limit: count - recent.length, signal });
      recent = [...page.items, ...recent];
      more = page.more && page.items.length > 0;
    }
    this.recent = recent;
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
    if (event.type === "moderation") {
      const { type, room, ...moderation } = event;
      return this.emit("moderation", moderation);
    }
    if (event.type === "left") {
      this.emit("left");
      return this.end();
    }
    const moved = this.cursor.move(event);
    if (moved?.type === "gap") {
      this.seq = moved.to_seq;
      this.emit("gap", { fromSeq: moved.from_seq, toSeq: moved.to_seq });
    }
    if (moved?.type === "rewound") {
      this.recent = this.recent.filter(({ seq }) => seq <= moved.seq);
      this.uncount(moved.seq);
      this.emit("rewind", { seq: moved.seq });
    }
    if (moved?.type === "message") {
      const message = this.#toMessage(moved);
      this.count(message);
      this.emit("message", message);
    }
  }

  /** Ends the iterators. */
  end() {
    this.#isOver = true;
    this.emit("end");
  }

  async *[Symbol.asyncIterator]() {
    const messages = [];
    let wake;
    const offs = ["message", "end"].map((event) => this.on(event, (message) => {
      if (message?.repeated === false) messages.push(message);
      wake?.();
    }));
    try {
      for (;;) {
        while (messages.length > 0) yield messages.shift();
        if (this.#isOver) return;
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      offs.forEach((off) => off());
    }
  }
}

export class Direct extends Conversation {
  constructor(nick, context) {
    super(nick, context);
    this.nick = nick;
    this.startReading();
  }

  receive(message) {
    if (!message.own) this.count(message);
    this.emit("message", message);
  }
}
