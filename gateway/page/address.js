/** Addresses: the page's own one with a conversation in its fragment, and that of the gateway. */
import { createKey, keyFromText, keyToText, linkTo, parseLink } from "/parley/e2e.js";

/** Address of the WebSocket of the gateway that served this page. */
export function socketUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}

/** The conversation that the address names, `#room` or `@nick`, or `null`; and the secret of a private room. */
export function readAddress() {
  const { room, key } = parseLink(location.hash);
  if (!room) return { name: null, secret: null };
  return { name: room.startsWith("#@") ? room.slice(1) : room, secret: key && keyToText(key) };
}

/** Address of this page that opens a conversation. */
export function addressOf(key, secret = null) {
  const fragment = secret ? linkTo(key, keyFromText(secret)) : "#" + encodeURIComponent(key.replace(/^#/, "")).replace(/^%40/, "@");
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

/** Copies a text, also on pages without TLS, where there is no clipboard API. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
