/** Addresses: the page's own one with a conversation in its fragment, and that of the gateway. */

/** Address of the WebSocket of the gateway that served this page. */
export function socketUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}

/** The conversation that the address names: `#room` or `@nick`, or `null`. */
export function readAddress() {
  const { name } = splitFragment(location.hash);
  return name;
}

/** Splits `#lobby!k=..` into the room and its secret. */
export function splitFragment(fragment) {
  const [name, secret = null] = decode(fragment.slice(1)).split("!k=");
  if (name === "") return { name: null, secret: null };
  return { name: name[0] === "@" ? name : "#" + name, secret };
}

/** Address of this page that opens a conversation. */
export function addressOf(key, secret = null) {
  const name = encodeURIComponent(key.replace(/^#/, "")).replace(/^%40/, "@");
  return `${location.origin}${location.pathname}#${name}${secret ? "!k=" + secret : ""}`;
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

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
