// The client of an application: one session, its rooms and its direct conversations, as one tab sees them.

import { ParleyError } from "./codes.js";
import { OwnLink } from "./link.js";
import { Listeners } from "./listeners.js";
import { fold, isRoom } from "./position.js";
import { Cursor, Direct, Room, toMessage } from "./room.js";
import { Store } from "./store.js";
import { Tabs, canShare } from "./tabs.js";

export { ParleyError };

const OWN_IDS_MAX = 1_000;

export class Parley {
  #link;
  #context;
  #listeners = new Listeners((error) => this.#report(error));
  #state = { name: "connecting" };
  #nick;
  #pingMs = null;
  #wasOnline = false;
  #rooms = new Map();
  #joined = new Map();
  #directs = new Map();
  #inbox = null;
  /** Ids of direct messages that this session has sent. */
  #ownIds = new Set();

  constructor(urls, { nick, storage = null, name = "parley", share = canShare(storage), WebSocket = globalThis.WebSocket }) {
    if (!WebSocket) throw new ParleyError("bad_request", "there is no global WebSocket: pass one as an option");
    this.#nick = nick;
    const store = new Store(storage, name);
    const options = { urls: [urls].flat(), nick, name, store, WebSocket };
    const onEvent = (event) => this.#receive(event);
    this.#link = share ? new Tabs(options, onEvent, () => this.#positions()) : new OwnLink(options, onEvent);
    this.#context = { link: this.#link, store, nick: () => this.#nick, report: (error) => this.#report(error) };
  }

  get state() {
    return this.#state;
  }

  get nick() {
    return this.#nick;
  }

  get pingMs() {
    return this.#pingMs;
  }

  get joined() {
    return this.#joined;
  }

  on(event, listener) {
    return this.#listeners.on(event, listener);
  }

  async join(name, { history = 0, signal } = {}) {
    const room = await this.#link.call({ type: "join", room: name }, signal, (reply) => this.#enter(reply));
    try {
      await room.load(history, signal);
    } finally {
      room.release();
    }
    return room;
  }

  direct(nick) {
    const key = fold(nick);
    const direct = this.#directs.get(key) ?? new Direct(nick, this.#context);
    this.#directs.set(key, direct);
    return direct;
  }

  async whois(nick, { signal } = {}) {
    const { nick: shown, online, status, text = "" } = await this.#link.call({ type: "whois", nick }, signal);
    return { nick: shown, online, status, text };
  }

  async rooms({ limit, cursor, signal } = {}) {
    const request = { type: "rooms" };
    if (limit !== undefined) request.limit = limit;
    if (cursor !== undefined) request.cursor = cursor;
    const { items, next_cursor: nextCursor } = await this.#link.call(request, signal);
    return { items: items.map(({ room, member_count: memberCount }) => ({ room, memberCount })), nextCursor };
  }

  async status(status, text) {
    await this.#link.call({ type: "status", status, ...(text !== undefined && { text }) });
  }

  async rename(nick) {
    await this.#link.call({ type: "nick", nick });
  }

  async ping() {
    return (await this.#link.call({ type: "ping" })).ms;
  }

  close() {
    return this.#link.close();
  }

  /** Returns the room of a `joined` reply. Its events are held until `join` has loaded it. */
  #enter({ room: name, epoch, seq }) {
    const key = fold(name);
    const room = this.#rooms.get(key) ?? new Room(name, { epoch, seq }, this.#context);
    room.hold();
    this.#rooms.set(key, room);
    this.#joined.set(room.name, room);
    return room;
  }

  /** Positions of this tab, by name. */
  #positions() {
    const rooms = [...this.#joined].map(([name, { position }]) => [name, position]);
    return Object.fromEntries(this.#inbox ? [...rooms, ["@", this.#inbox.position]] : rooms);
  }

  #receive(event) {
    switch (event.type) {
      case "state": return this.#receiveState(event.state);
      case "nick":
        if (event.nick === this.#nick) return;
        this.#nick = event.nick;
        return this.#listeners.emit("nick", event.nick);
      case "pong":
        this.#pingMs = event.ms;
        return;
      case "inbox":
        this.#inbox ??= new Cursor(event);
        return;
      case "read": return this.#conversation(event.to)?.applyRead(event.seq);
    }
    const target = event.room ?? event.to;
    if (!isRoom(target)) return this.#receiveDirect(event);
    const room = this.#rooms.get(fold(target));
    if (event.type === "left" && room) {
      this.#rooms.delete(fold(target));
      this.#joined.delete(room.name);
    }
    room?.receive(event);
  }

  #receiveState(state) {
    this.#state = state;
    const rooms = [...this.#rooms.values()];
    if (state.name === "online") {
      // Changes of members were missed while the connection was lost.
      if (this.#wasOnline) for (const room of rooms) room.reload();
      this.#wasOnline = true;
    }
    this.#listeners.emit("state", state);
    if (state.name === "offline" && !state.willRetry) for (const room of rooms) room.end();
  }

  #receiveDirect(event) {
    if (event.type === "typing") return this.#directs.get(fold(event.from))?.emit("typing", { from: event.from });
    const isSent = event.seq === null;
    if (isSent && this.#ownIds.has(event.msg_id)) return;
    const moved = isSent ? event : this.#inbox?.move(event);
    if (moved?.type === "gap") this.#listeners.emit("gap", { fromSeq: moved.from_seq, toSeq: moved.to_seq });
    if (moved?.type !== "message") return;
    if (isSent) {
      this.#ownIds.add(event.msg_id);
      if (this.#ownIds.size > OWN_IDS_MAX) this.#ownIds.delete(this.#ownIds.values().next().value);
    }
    const message = toMessage(moved, isSent ? event.from : undefined);
    this.direct(isSent ? message.to : message.from).receive(message);
    this.#listeners.emit("direct", message);
  }

  #conversation(to) {
    return isRoom(to) ? this.#rooms.get(fold(to)) : this.#directs.get(fold(to));
  }

  #report(error) {
    if (!this.#listeners.has("error")) return console.error(error);
    try {
      this.#listeners.emit("error", error);
    } catch {}
  }
}
