// The client of an application: one session, its rooms and its direct conversations, as one tab sees them.

import { ParleyError } from "./codes.js";
import { Listeners } from "./listeners.js";
import { Cursor, fold, isKnown, isPosition, isRoom } from "./position.js";
import { Direct, Room, toMessage } from "./room.js";
import { Store } from "./store.js";
import { ALONE, Tabs, canShare } from "./tabs.js";

export { ParleyError };

export class Parley extends Listeners {
  #link;
  #context;
  /** Rooms and direct conversations, by the key of their name. */
  #conversations = new Map();
  #inbox = null;
  /** The nicknames of this session, each with the time up to which it had it. */
  #names = {};
  /** Ids of direct messages that this session has sent, and of announcements. */
  #ids = new Set();
  state = { name: "connecting" };
  nick;
  pingMs = null;
  joined = new Map();

  constructor(
    urls,
    {
      nick = "", token, getToken, storage = null, name = "parley", share = canShare(storage),
      WebSocket = globalThis.WebSocket,
    },
  ) {
    super((error) => this.#report(error));
    if (!WebSocket) throw new ParleyError("bad_request", "no WebSocket");
    this.nick = nick;
    const store = new Store(storage, name);
    const options = { urls: [urls].flat(), name, store, WebSocket, token, getToken };
    const client = {
      nick: () => this.nick,
      receive: (event) => {
        try {
          this.#receive(event);
        } catch (error) {
          this.#report(error);
        }
      },
      positions: () => [["@", this.#inbox], ...[...this.joined].map(([name, { cursor }]) => [name, cursor])],
      snapshot: () => [
        { type: "state", state: this.state, isRefused: true },
        { type: "nick", nick: this.nick, names: this.#names },
        { type: "inbox", ...this.#inbox },
      ],
    };
    this.#link = new Tabs(options, client, share ? undefined : ALONE);
    // The name on a message of the application is no user.
    const isOwn = ({ from, from_api, time }) => !from_api && (from === this.nick || time <= this.#names[from]);
    this.#context = { link: this.#link, store, isOwn, report: (error) => this.#report(error) };
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
    if (isRoom(key)) throw new ParleyError("bad_nick");
    const direct = this.#conversations.get(key) ?? new Direct(nick, this.#context);
    this.#conversations.set(key, direct);
    return direct;
  }

  async whois(name, { signal } = {}) {
    const request = { type: "whois", nick: name };
    const { nick, online, status = "away", text = "" } = await this.#link.call(request, signal);
    return { nick, online, status, text };
  }

  async rooms({ limit, cursor, signal } = {}) {
    const { items, next_cursor: nextCursor } = await this.#link.call({ type: "rooms", limit, cursor }, signal);
    return { items: items.map(({ room, member_count: memberCount }) => ({ room, memberCount })), nextCursor };
  }

  async status(status, text) {
    await this.#link.call({ type: "status", status, text });
  }

  async rename(nick) {
    await this.#link.call({ type: "nick", nick });
  }

  async ping() {
    await this.#link.call({ type: "ping" });
    return this.pingMs;
  }

  retry() {
    this.#link.post({ type: "wake" });
  }

  async close() {
    if (!this.#link.isOver) await this.#link.call({ type: "bye" });
  }

  /** Returns the room of a position, {name, epoch, seq}. Its events are held until `join` has loaded it. */
  #enter(position) {
    const key = fold(position.name);
    const room = this.#conversations.get(key) ?? new Room(position, this.#context);
    room.hold();
    this.#conversations.set(key, room);
    this.joined.set(room.name, room);
    return room;
  }

  #receive(event) {
    switch (event.type) {
      case "state": return this.#receiveState(event.state);
      case "nick":
        this.#names = event.names;
        if (event.nick !== this.nick) this.emit("nick", (this.nick = event.nick));
        return;
      case "pong":
        this.pingMs = event.ms;
        return;
      case "inbox":
        if (isPosition(event)) this.#inbox ??= new Cursor(event);
        return;
      case "joined":
        this.#keepRooms(event);
        if (!this.#conversations.has(fold(event.room))) this.emit("joined", event.room);
        return;
      case "announcement": {
        const { type, msg_id: id, body, time } = event;
        if (!isKnown(this.#ids, id)) this.emit(type, { id, body, time });
        return;
      }
      case "read": return this.#conversations.get(fold(event.to))?.applyRead(event.seq);
    }
    const target = event.room ?? event.to;
    if (!isRoom(target)) return this.#receiveDirect(event);
    const room = this.#conversations.get(fold(target));
    if (event.type === "left") {
      this.#keepRooms(event);
      this.#conversations.delete(fold(target));
      this.joined.delete(room?.name);
    }
    room?.receive(event);
  }

  /** Keeps the rooms of the state current, because tabs that are opened later are given it. */
  #keepRooms({ type, room }) {
    const others = (this.state.rooms ?? []).filter((name) => name !== room);
    this.state = { ...this.state, rooms: type === "joined" ? [...others, room] : others };
  }

  #receiveState(state) {
    this.state = state;
    this.emit("state", state);
    for (const room of this.joined.values()) {
      // Changes of members were missed while the connection was lost.
      if (state.name === "online") room.reload();
      if (this.#link.ended) room.end();
    }
  }

  #receiveDirect(event) {
    if (event.type === "typing") return this.#conversations.get(fold(event.from))?.emit("typing", { from: event.from });
    const isSent = event.seq === null;
    const moved = isSent ? !isKnown(this.#ids, event.msg_id) && event : this.#inbox?.move(event);
    if (moved?.type === "rewound") {
      for (const conversation of this.#conversations.values()) {
        if (conversation instanceof Direct) conversation.uncount(moved.seq);
      }
    }
    if (moved?.type === "gap") this.emit("gap", { fromSeq: moved.from_seq, toSeq: moved.to_seq });
    if (moved?.type === "message") {
      const message = toMessage(moved, isSent);
      // An answer to the name of an application would reach a user.
      if (!message.fromApi) this.direct(isSent ? message.to : message.from).receive(message);
      this.emit("direct", message);
    }
  }

  #report(error) {
    if (!this.emit("error", error)) console.error(error);
  }
}
