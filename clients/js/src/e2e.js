// End-to-end encryption of rooms: AES-256-GCM with a key that the server never sees.
//
// A sealed body is {"e2e":1,"kid","n","s","ct"}. The nonce is `s`, 8 random bytes of the sending instance, and the
// counter `n` as 4 bytes, big-endian: it never repeats under one key. The additional data is the UTF-8 text
// `parley-e2e 1 <kid> <room in lower case>`. Names, times, sizes and the order of messages are not hidden.

const VERSION = 1;
const COUNTER_MAX = 2 ** 32 - 1;
const KEY_BYTES = 32;
const PREFIX_BYTES = 8;
const TAG_BITS = 128;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

const randomBytes = (length) => crypto.getRandomValues(new Uint8Array(length));

function toText(bytes) {
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromText(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
}

/** Returns a new random key. */
export function createKey() {
  return randomBytes(KEY_BYTES);
}

export function keyToText(key) {
  return toText(key);
}

/** Returns the key of a text. Throws a `TypeError` if it is not one. */
export function keyFromText(text) {
  if (!/^[\w-]{43}$/.test(text)) throw new TypeError("a key is 32 bytes as base64url");
  return fromText(text);
}

/** Returns the part of a link behind the address: browsers do not send it to a server. */
export function linkTo(room, key) {
  return `#${encodeURIComponent(room.slice(1))}!k=${keyToText(key)}`;
}

/** Returns the room and the key of a link's part from `#`; the key is `null` without a valid one. */
export function parseLink(hash) {
  const [, name, text] = /^#?(.*?)(?:!k=([\w-]*))?$/s.exec(hash);
  let key = null;
  try {
    if (text) key = keyFromText(text);
  } catch {}
  try {
    return { room: name && `#${decodeURIComponent(name)}`, key };
  } catch {
    return { room: "", key };
  }
}

/** Seals and opens the bodies of one room. */
export class Sealer {
  #room;
  #key;
  #prefix;
  #next;

  /** `prefix` and `counter` are for test vectors: a pair that was used before breaks the encryption. */
  constructor(room, key, { prefix = randomBytes(PREFIX_BYTES), counter = 0 } = {}) {
    this.#room = room.toLowerCase();
    this.#key = importKey(key);
    // Each call reports it.
    this.#key.catch(() => {});
    this.#prefix = prefix;
    this.#next = counter;
  }

  /** Returns the sealed body. Throws a `RangeError` after 2^32 - 1 messages of this instance. */
  async seal(body) {
    if (this.#next >= COUNTER_MAX) throw new RangeError("the counter of this key is used up");
    const n = this.#next;
    this.#next += 1;
    const { key, kid } = await this.#key;
    const text = encoder.encode(JSON.stringify(body));
    const ct = await crypto.subtle.encrypt(this.#parameters(kid, this.#prefix, n), key, text);
    return { e2e: VERSION, kid, n, s: toText(this.#prefix), ct: toText(new Uint8Array(ct)) };
  }

  /** Returns the body that was sealed, or `{locked: true}` if this key does not open it. */
  async open(sealed) {
    try {
      const { key, kid } = await this.#key;
      if (sealed.e2e !== VERSION || sealed.kid !== kid) return { locked: true };
      const prefix = fromText(sealed.s);
      const isCounter = Number.isInteger(sealed.n) && sealed.n >= 0 && sealed.n < COUNTER_MAX;
      if (prefix.length !== PREFIX_BYTES || !isCounter) return { locked: true };
      const text = await crypto.subtle.decrypt(this.#parameters(kid, prefix, sealed.n), key, fromText(sealed.ct));
      return JSON.parse(decoder.decode(text));
    } catch {
      return { locked: true };
    }
  }

  #parameters(kid, prefix, n) {
    const iv = new Uint8Array(PREFIX_BYTES + 4);
    iv.set(prefix);
    new DataView(iv.buffer).setUint32(PREFIX_BYTES, n);
    const additionalData = encoder.encode(`parley-e2e ${VERSION} ${kid} ${this.#room}`);
    return { name: "AES-GCM", iv, additionalData, tagLength: TAG_BITS };
  }
}

async function importKey(bytes) {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  const key = await crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
  return { key, kid: toText(new Uint8Array(digest, 0, 8)) };
}

/** Returns a room that seals what it sends and opens what it receives. */
export function encrypted(room, key) {
  return new EncryptedRoom(room, new Sealer(room.name, key));
}

class EncryptedRoom {
  #room;
  #sealer;
  #sealed = Promise.resolve();

  constructor(room, sealer) {
    this.#room = room;
    this.#sealer = sealer;
  }

  get name() {
    return this.#room.name;
  }

  send(body, options) {
    // Sealed one after another, so that the order stays.
    const sealed = this.#sealed.then(() => this.#sealer.seal(body));
    this.#sealed = sealed.catch(() => {});
    return sealed.then((sealed) => this.#room.send(sealed, options));
  }

  on(event, listener) {
    if (event !== "message") return this.#room.on(event, listener);
    // Opened one after another, so that the order stays.
    let last = Promise.resolve();
    return this.#room.on(event, (message) => {
      const opened = this.#open(message);
      last = last.then(async () => listener(await opened)).catch(console.error);
    });
  }

  /** Resolves with the opened messages of `recent`. */
  get recent() {
    return Promise.all(this.#room.recent.map((message) => this.#open(message)));
  }

  async history(options) {
    const { items, more } = await this.#room.history(options);
    return { items: await Promise.all(items.map((message) => this.#open(message))), more };
  }

  async #open(message) {
    return { ...message, body: await this.#sealer.open(message.body) };
  }
}
