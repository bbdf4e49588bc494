/**
 * End-to-end encryption of rooms with AES-256-GCM, by WebCrypto (`globalThis.crypto`: browsers, Node 20).
 *
 * The server stores and delivers sealed bodies, and never sees the key. It still sees names, times, sizes and the
 * order of messages, and it could drop or repeat them. The sender's name is not authenticated: every owner of the key
 * can seal. There is no forward secrecy: whoever obtains the key or a link with it reads everything, also old messages.
 */

import type { Ack, HistoryOptions, Json, Message, Room, RoomEvents, SendOptions } from "./parley.js";

/** Returns a new random key of 32 bytes. */
export function createKey(): Uint8Array;

/** Returns a key as base64url, and the key of such a text. A text that is no key throws a `TypeError`. */
export function keyToText(key: Uint8Array): string;
export function keyFromText(text: string): Uint8Array;

/** Returns the part of a link from its `#`, such as `#lobby!k=...`. Browsers do not send it to the server. */
export function linkTo(room: string, key: Uint8Array): string;

/** Returns the room and the key of the part from `#`; `key` is `null` if it has none or a damaged one. */
export function parseLink(hash: string): { room: string; key: Uint8Array | null };

/** A body as the server sees it. */
export interface SealedBody {
  e2e: 1;
  /** First 8 bytes of the SHA-256 of the key, base64url. */
  kid: string;
  /** Counter of the sending instance. */
  n: number;
  /** Random prefix of the sending instance: 8 bytes, base64url. */
  s: string;
  /** Ciphertext and tag, base64url. */
  ct: string;
}

/** Body of a message that the key does not open. */
export interface LockedBody {
  locked: true;
}

/** Seals and opens the bodies of one room. */
export class Sealer {
  /** `prefix` and `counter` are for test vectors only: a pair that was used before breaks the encryption. */
  constructor(room: string, key: Uint8Array, fixed?: { prefix?: Uint8Array; counter?: number });
  /** Rejects with a `RangeError` after 2^32 - 1 messages. */
  seal(body: Json): Promise<SealedBody>;
  /** Never rejects: a body that the key does not open is a `LockedBody`. */
  open(sealed: unknown): Promise<Json | LockedBody>;
}

/** A room whose bodies are sealed. */
export interface EncryptedRoom {
  readonly name: string;
  send(body: Json, options?: SendOptions): Promise<Ack>;
  on<E extends keyof RoomEvents>(event: E, listener: (value: RoomEvents[E]) => void): () => void;
  /** The opened messages of the room's `recent`. */
  readonly recent: Promise<Message[]>;
  history(options?: HistoryOptions): Promise<{ items: Message[]; more: boolean }>;
}

/** Returns a room that seals what it sends and opens what it receives, in the order of the room. */
export function encrypted(room: Room, key: Uint8Array): EncryptedRoom;
