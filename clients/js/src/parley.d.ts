/**
 * Client of a Parley cluster, for browsers and Node.
 *
 * One `Parley` is one session under one nickname. It keeps its connection alive, resumes the session after a loss, and
 * delivers every message of a joined room once and in order.
 */

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A part of the Web Storage interface, which `localStorage` and `sessionStorage` have. */
export interface StorageLike {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/**
 * Returns a token of the user, as text. Returns `null` if the user has none: the session is then that of a guest, where
 * the server admits guests. `signal` is aborted when the answer is of no use any more.
 */
export type GetToken = (options: { signal: AbortSignal }) => Promise<string | null>;

interface CommonOptions {
  /** Nickname to register under. It may be left out if the token names it. */
  nick?: string;
  /** The first token of the user. Without `getToken` the session ends when it expires. */
  token?: string;
  /**
   * Called for the first token if there is no `token`, before a token expires, and after the server has refused one.
   * There is one question at once. A rejection, and no answer within 10 s, are a failed attempt: the question is
   * repeated after the waiting time between attempts. A token is never stored.
   */
  getToken?: GetToken;
  /**
   * Holds the resume token, the positions in rooms and the drafts. With `null`, the default, they live in memory.
   * A storage that throws is treated as `null`.
   */
  storage?: StorageLike | null;
  /** Separates the stored state and the shared connection of several sessions of one origin. Default `"parley"`. */
  name?: string;
  /**
   * Shares one connection among the tabs of an origin: one tab leads, and another takes over when it closes.
   * Default: true if `storage` is `localStorage` and the browser has Web Locks and BroadcastChannel.
   */
  share?: boolean;
  /** Constructor of sockets, where there is no global `WebSocket`. */
  WebSocket?: typeof WebSocket;
}

/** Options with a nickname, or with a token that names it. */
export type Options = CommonOptions & ({ nick: string } | { token: string } | { getToken: GetToken });

/** State of the connection. */
export type State =
  | { name: "connecting" }
  /**
   * `resumed`: the session from before continues. `tookMs`: time since the connection was lost, or since the start.
   * `rooms`: all rooms of the session, those of other tabs and of earlier page loads too. `user`: the id of the user
   * that the token names.
   */
  | { name: "online"; node: string; resumed: boolean; tookMs: number; rooms: string[]; user?: string }
  /** The connection is lost, and another one is being opened. */
  | { name: "resuming" }
  /**
   * `reason`: an error code or the name of a close code of the protocol, `"closed"` after `close()`, `"no_token"` if
   * `getToken` has failed, `"connection_lost"` otherwise. `message`: what the server wrote about it for people, or `null`. With `willRetry` the next attempt begins
   * in `inMs`. Without it the state is final, and every pending call has been rejected.
   */
  | { name: "offline"; reason: string; message: string | null; willRetry: boolean; inMs: number | null };

/** A message of a room or a direct message. */
export interface Message {
  id: string;
  /** A room, or the nickname of the receiver. */
  to: string;
  from: string;
  /** Id of the sender's user, if it has registered with a token. */
  fromUser?: string;
  /** Present on a message of the application. `from` is then a name that it chose, and no user. */
  fromApi?: true;
  /** Position in the room or in the inbox; `null` for a direct message that this session has sent. */
  seq: number | null;
  /** Unix milliseconds. */
  time: number;
  body: Json;
  /** True if this session has sent it, under its present nickname or an earlier one. */
  own: boolean;
  /** True if it was delivered before and comes again after a `rewind` event, perhaps with another `seq`. */
  repeated: boolean;
}

export interface Member {
  nick: string;
  /** Id of the user, if it has registered with a token. */
  user?: string;
  status: "online" | "away";
  text: string;
}

/** Answer to a stored message. `duplicate`: an earlier attempt had stored it already. */
export interface Ack {
  id: string;
  /** Position in the room; `null` for a direct message. */
  seq: number | null;
  time: number;
  /** For a direct message: the receiver is connected or not. */
  delivered: "online" | "offline" | null;
  duplicate: boolean;
}

export interface SendOptions {
  /** Idempotency key of 1 to 64 bytes. Default: a random one. */
  key?: string;
  /** Aborts waiting. The message may have been stored already. */
  signal?: AbortSignal;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface HistoryOptions extends CallOptions {
  before?: number;
  after?: number;
  /** Number of messages, at most 200. Default 50. */
  limit?: number;
}

export interface RoomsOptions extends CallOptions {
  /** Number of rooms, at most 1000. Default 100. */
  limit?: number;
  cursor?: string;
}

/** A notice of the application to everybody, or to users whose token has a tag. It is not stored. */
export interface Announcement {
  id: string;
  body: Json;
  /** Unix milliseconds. */
  time: number;
}

/** A refusal of the server, or the end of the session. */
export class ParleyError extends Error {
  /** A code of the protocol's error table, or `"closed"`, or the name of a final close code. */
  readonly code: string;
  /** Time until a retry can succeed, or `null`. */
  readonly retryAfterMs: number | null;
}

/** Nickname, presence and rooms that a member changed. Lists that did not change are empty. */
export interface MembersEvent {
  joined: Member[];
  left: { nick: string; reason: string }[];
  renamed: { from: string; to: string }[];
  status: Member[];
  /** True if `members` was loaded again as a whole. */
  resync: boolean;
}

/** A room or a direct conversation. */
interface Conversation<Events> {
  /** Subscribes to an event, and returns the function that ends the subscription. */
  on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void;
  /**
   * Sends a message. Resolves when it is stored. The send is repeated with its key over lost connections and temporary
   * refusals, until it is answered, aborted, or the session ends. Messages to one target are stored in the order of the
   * calls. Rejects with `outcome_unknown` if the server lost the session while the message was on its way, or has not
   * answered four minutes after it was first sent, and with a `TypeError` for a body that is not JSON.
   */
  send(body: Json, options?: SendOptions): Promise<Ack>;
  /** Reports typing to the other side; does nothing while the connection is lost. */
  typing(): void;
  /** Number of messages of others after the position of `read`, at most 10,000. */
  readonly unread: number;
  /** Marks messages up to `seq` as read, by default all. The position is stored, and shared among tabs. */
  read(seq?: number): void;
  /** Position of `read`: messages above it are unread. */
  readonly readSeq: number;
  /** A text not sent yet, kept in `storage`. */
  draft: string;
}

/** An action of a moderator, with the fields of the protocol. */
export interface Moderation {
  action: "kick" | "ban" | "unban" | "mute" | "unmute" | "op" | "deop" | "invite" | "topic";
  nick?: string;
  user?: string;
  by?: string;
  reason?: string;
  /** End of a ban or mute, Unix milliseconds. */
  until?: number;
  role?: "owner" | "moderator";
  /** The topic; empty if it was removed. */
  text?: string;
  time: number;
}

export interface RoomEvents {
  message: Message;
  typing: { from: string };
  members: MembersEvent;
  /** A moderator acted in the room. */
  moderation: Moderation;
  /** Messages that are no longer kept and cannot be delivered. */
  gap: { fromSeq: number; toSeq: number };
  /**
   * The server lost the messages after `seq`: discard them. What follows is valid. Messages that the server recovers
   * come again with the same `id`, and `repeated` is true.
   */
  rewind: { seq: number };
  /** `unread` or `readSeq` changed. */
  read: { unread: number; readSeq: number };
  /** This session left the room, perhaps from another tab. */
  left: undefined;
}

export interface Room extends Conversation<RoomEvents> {
  /** Name with its `#`, as the server shows it. */
  readonly name: string;
  /** Messages from before the first `message` event, oldest first: as many as `join` asked for. */
  readonly recent: Message[];
  /** Members by nickname, kept up to date. */
  readonly members: ReadonlyMap<string, Member>;
  /** Position of the last message: of the newest event, or the one that `join` answered. */
  readonly seq: number;
  /** Returns a page of older (`before`) or newer (`after`) messages, oldest first. */
  history(options?: HistoryOptions): Promise<{ items: Message[]; more: boolean }>;
  leave(options?: CallOptions): Promise<void>;
  /** Messages as they arrive, until the room is left or the session ends. Messages with `repeated` are left out. */
  [Symbol.asyncIterator](): AsyncIterator<Message>;
}

export interface DirectEvents {
  /** A message from the other side, or one that this session sent and the server stored. */
  message: Message;
  typing: { from: string };
  read: { unread: number; readSeq: number };
}

/** A direct conversation with one nickname. */
export interface Direct extends Conversation<DirectEvents> {
  readonly nick: string;
}

/** Answer of `whois`. Offline, `status` is `"away"` and `text` is empty. */
export interface User {
  nick: string;
  online: boolean;
  status: "online" | "away";
  text: string;
}

export interface ParleyEvents {
  state: State;
  /** A direct message of any sender. It alone has those of the application: `direct()` is a conversation with a user. */
  direct: Message;
  /** A notice of the application. Each tab gets it. */
  announcement: Announcement;
  /** This session has another nickname. */
  nick: string;
  /** Name of a room that another tab has joined. `join` returns it in this tab too. */
  joined: string;
  /** Direct messages that are no longer kept and cannot be delivered. */
  gap: { fromSeq: number; toSeq: number };
  /** A listener threw. Without a listener of this event the error is reported to the console. */
  error: unknown;
}

export class Parley {
  /** Opens a connection to one of the addresses (`ws:` or `wss:` URLs). Each failure moves on to the next. */
  constructor(urls: string | string[], options: Options);
  readonly state: State;
  /** Nickname of this session, as the server shows it. Empty until a token has named it. */
  readonly nick: string;
  /** Time of the last answered ping in milliseconds, or `null`. */
  readonly pingMs: number | null;
  /** Rooms that this tab has joined, by name. */
  readonly joined: ReadonlyMap<string, Room>;
  on<E extends keyof ParleyEvents>(event: E, listener: (value: ParleyEvents[E]) => void): () => void;
  /**
   * Joins a room and loads its members. Listeners that are added directly after `await` miss no message. `history`:
   * the number of older messages to load into `recent`, at most 200. A room of an earlier page load continues after
   * its stored position.
   */
  join(room: string, options?: { history?: number } & CallOptions): Promise<Room>;
  /** Returns the conversation with a nickname; the same object for the same name. */
  direct(nick: string): Direct;
  whois(nick: string, options?: CallOptions): Promise<User>;
  /** Returns a page of the rooms that have members. */
  rooms(options?: RoomsOptions): Promise<{ items: { room: string; memberCount: number }[]; nextCursor: string | null }>;
  status(status: "online" | "away", text?: string): Promise<void>;
  /** Takes another nickname. After a refused `register` it tries again with this one. */
  rename(nick: string): Promise<void>;
  /** Measures the time to the server, in milliseconds. */
  ping(): Promise<number>;
  /** Ends the wait for the next attempt at once. While the session is online it checks the connection. */
  retry(): void;
  /**
   * Ends the session: others see it leave at once. Pending calls are rejected with `closed`. In one of several tabs it
   * ends the session for all of them. Await it before you open another client with the same `name`.
   */
  close(): Promise<void>;
}
