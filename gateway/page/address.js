/** Addresses: the page's own one with a conversation in its fragment, and that of the gateway. */
import { createKey, keyFromText, keyToText, linkTo, parseLink } from "/parley/e2e.js";

/** Address of the WebSocket of the gateway that served this page. */
export function socketUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}

/** The conversation that the address names, `#room` or `@nick`, or `null`; and the secret of a private room. */
export const readAddress = () => readFragment(location.hash);

/** The same of a link that was typed where a name is expected; `null` if it is no link. */
export function readLink(typed) {
  const [fragment] = /#[^#]*$/.exec(typed) ?? [];
  return fragment && (/^https?:/i.test(typed) || fragment.includes("!k=")) ? readFragment(fragment) : null;
}

/** `#@ann` is the conversation with ann. The room `#@ann` is written `#%40ann`. */
function readFragment(fragment) {
  const { room, key } = parseLink(fragment.trim());
  if (!room) return { name: null, secret: null };
  return { name: fragment.trim().startsWith("#@") ? room.slice(1) : room, secret: key && keyToText(key) };
}

/** Address of this page that opens a conversation. */
export function addressOf(key, secret = null) {
  const name = "#" + (key[0] === "@" ? "@" : "") + encodeURIComponent(key.slice(1));
  const fragment = secret ? linkTo(key, keyFromText(secret)) : name;
  return location.origin + location.pathname + fragment;
}

/** A new private room with its secret, or `null` on a page without TLS, where browsers cannot encrypt. */
export function newPrivateRoom() {
  return crypto.subtle ? { name: "#private-" + randomKey().slice(0, 6), secret: keyToText(createKey()) } : null;
}

/** A random idempotency key; `crypto.randomUUID` is missing on pages without TLS. */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Copies a text, also where there is no clipboard API, or it is forbidden. Throws if nothing was copied. */
export async function copyText(text) {
  try {
    return await navigator.clipboard.writeText(text);
  } catch {
    // The old way needs no permission.
  }
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (!isCopied) throw new Error("the browser forbids copying");
}
