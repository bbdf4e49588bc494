/**
 * The client library as seen by the page: its events become actions, and its calls are made by conversation key.
 * It holds the library's objects and no other state.
 */
import { encrypted, keyFromText } from "/parley/e2e.js";
import { Parley } from "/parley/parley.js";
import { senderOf } from "./text.js";

const PAGE = 50;
/** Time between two measurements of the ping, and two looks at the other side of an open direct conversation. */
const LOOK_EVERY_MS = 10_000;

export class Session {
  #parley;
  #dispatch;
  #conversations = new Map();
  #secretOf;
  /** By key: the secret of a private room, and the conversation with bodies that people can read. */
  #bodies = new Map();
  #notes = 0;
  /** Key of the open conversation. */
  watched = null;
  #lookTimer;

  /**
   * `secretOf`: returns the secret of a room that the page shows as private, otherwise `null`. `signIn`: options of the
   * library about tokens of the user.
   */
  constructor({ url, nick, storage, secretOf, dispatch, signIn = {} }) {
    this.#parley = new Parley(url, { nick, storage, ...signIn });
    this.#secretOf = secretOf;
    this.#dispatch = dispatch;
    this.#parley.on("state", (state) => {
      this.#report({ type: "link", state, nick: this.#parley.nick });
      if (state.name === "online") this.#lookAround();
    });
    this.#parley.on("announcement", (announcement) => dispatch({ type: "announcement", announcement }));
    this.#parley.on("nick", (nick) => dispatch({ type: "nick", nick }));
    this.#parley.on("direct", (message) => this.#receiveDirect(message));
    this.#lookTimer = setInterval(() => this.#lookAround(), LOOK_EVERY_MS);
  }

  get nick() {
    return this.#parley.nick;
  }

  /** Joins a room, and returns its key. */
  async join(name) {
    const room = await this.#parley.join(name, { history: PAGE });
    const key = room.name;
    if (this.#conversations.get(key) === room) return key;
    this.#conversations.set(key, room);
    const { secret, bodies } = this.#readable(key);
    const readable = (message) => ({ ...message, locked: isLocked(message.body, secret) });
    const ends = [
      bodies.on("message", (message) => this.#report({ type: "message", key, message: readable(message) })),
      room.on("typing", ({ from }) => this.#report({ type: "typing", key, from })),
      room.on("members", (event) => this.#report({ type: "members", key, members: [...room.members.values()], event })),
      room.on("gap", (gap) => this.#dispatch({ type: "gap", key, ...gap })),
      room.on("rewind", ({ seq }) => this.#dispatch({ type: "rewind", key, seq })),
      room.on("read", (read) => this.#dispatch({ type: "read", key, ...read })),
      room.on("left", () => {
        for (const end of ends) end();
        this.#conversations.delete(key);
        this.#bodies.delete(key);
        this.#dispatch({ type: "left", key });
      }),
    ];
    const { seq, unread, readSeq } = room;
    const recent = (await bodies.recent).map(readable);
    this.#dispatch({ type: "joined", key, recent, seq, unread, readSeq, members: [...room.members.values()] });
    return key;
  }

  /** Opens a direct conversation, and returns its key. */
  direct(nick) {
    const direct = this.#parley.direct(nick);
    const key = "@" + direct.nick;
    if (this.#conversations.get(key) !== direct) {
      this.#conversations.set(key, direct);
      direct.on("message", (message) => this.#report({ type: "message", key, message, name: direct.nick }));
      direct.on("typing", ({ from }) => this.#report({ type: "typing", key, from }));
      direct.on("read", (read) => this.#dispatch({ type: "read", key, ...read }));
    }
    this.#dispatch({ type: "direct", nick: direct.nick });
    this.#dispatch({ type: "read", key, unread: direct.unread, readSeq: direct.readSeq });
    return key;
  }

  /** Shows the direct messages of an application, and returns their key. An answer would reach a user. */
  application(name) {
    this.#dispatch({ type: "direct", nick: name });
    return "@" + name;
  }

  /** Asks whether the other side of a direct conversation is online. */
  async look(key) {
    const direct = this.#conversations.get(key);
    if (!direct) return;
    const { online } = await this.#parley.whois(direct.nick);
    this.#dispatch({ type: "direct/online", key, online });
  }

  /** Leaves a room, or closes a direct conversation. */
  async leave(key) {
    const conversation = this.#conversations.get(key);
    if (key[0] === "#") return conversation.leave();
    this.#dispatch({ type: "left", key });
  }

  /** Sends a message that is pending in the state under its idempotency key `id`. */
  async send(key, id, body) {
    try {
      const ack = await this.#readable(key).bodies.send(body, { key: id });
      this.#dispatch({ type: "ack", key, id, ack });
    } catch (error) {
      this.#dispatch({ type: "pending/change", key, id, change: { status: "failed", code: error.code ?? "other", reason: error.message } });
    }
  }

  async history(key, options) {
    const { secret, bodies } = this.#readable(key);
    const { items, more } = await bodies.history(options);
    return { items: items.map((message) => ({ ...message, locked: isLocked(message.body, secret) })), more };
  }

  /** Another tab may have stored another secret: nothing is sent in plain text to a room that is shown as private. */
  #readable(key) {
    const conversation = this.#conversations.get(key);
    const secret = this.#secretOf(key);
    const kept = this.#bodies.get(key);
    if (kept && kept.secret === secret) return kept;
    const readable = { secret, bodies: secret ? encrypted(conversation, keyFromText(secret)) : conversation };
    this.#bodies.set(key, readable);
    return readable;
  }

  async publicRooms() {
    const { items } = await this.#parley.rooms({ limit: 100 });
    return items;
  }

  typing(key) {
    this.#conversations.get(key)?.typing();
  }

  read(key, seq) {
    const conversation = this.#conversations.get(key);
    if (conversation) conversation.read(seq);
    else this.#dispatch({ type: "api/read", key, seq });
  }

  draft(key) {
    return this.#conversations.get(key)?.draft ?? "";
  }

  setDraft(key, text) {
    const conversation = this.#conversations.get(key);
    if (conversation && conversation.draft !== text) conversation.draft = text;
  }

  /** Ends the wait for the next attempt to connect. */
  retry() {
    this.#parley.retry();
  }

  rename(nick) {
    return this.#parley.rename(nick);
  }

  async status(status, text) {
    await this.#parley.status(status, text);
    this.#dispatch({ type: "status", status, text });
  }

  /** Ends the session for all tabs. */
  close() {
    clearInterval(this.#lookTimer);
    return this.#parley.close();
  }

  #receiveDirect(message) {
    const key = message.fromApi ? this.application(senderOf(message)) : this.direct(message.own ? message.to : message.from);
    this.#report({ type: "message", key, message, name: key.slice(1) });
  }

  #report(action) {
    this.#notes += 1;
    this.#dispatch({ ...action, now: Date.now(), id: `note-${this.#notes}` });
  }

  async #lookAround() {
    if (this.#parley.state.name !== "online" || document.visibilityState !== "visible") return;
    await this.#parley.ping().catch(() => {});
    this.#dispatch({ type: "ping", ms: this.#parley.pingMs });
    if (this.watched?.[0] === "@") await this.look(this.watched).catch(() => {});
  }
}

/** True for a body that the secret did not open, and for a sealed one without a secret. */
function isLocked(body, secret) {
  return secret ? body?.locked === true : body?.e2e === 1 && typeof body.ct === "string";
}
