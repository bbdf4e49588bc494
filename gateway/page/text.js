/**
 * Message bodies as lists of parts: text, links, code and mentions. Pure: views render the parts as text nodes, so
 * nothing in a body can become markup.
 */

const FENCE = /```(?:[a-z0-9+#-]{0,20}\n)?([\s\S]+?)```/giu;
const INLINE = /`([^`\n]+)`|(https?:\/\/[^\s<>"'`\u0000-\u001f\u2066-\u2069\u202a-\u202e]+)/giu;
/** Brackets that close, with those that open. */
const OPENINGS = { ")": "(", "]": "[", "}": "{" };
const SENTENCE_MARK = /[.,;:!?\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f\u3011\u300b\u300d\u300f]/u;
const NAME_CHARACTER = /[\p{L}\p{N}\p{M}_-]/u;
/** Signs that join the parts of a name, such as `john.doe`. Behind a name they usually end it. */
const NAME_JOINT = /[.:/+]/u;

/** Text of an action of `/me`, whose body is `{ me: text }`; or `null`. */
export function actionOf(body) {
  return typeof body?.me === "string" && Object.keys(body).length === 1 ? body.me : null;
}

/** Text of a body; a body that is neither a string nor an action is compact JSON. */
export function bodyText(body) {
  return typeof body === "string" ? body : actionOf(body) ?? JSON.stringify(body);
}

/** Name of the direct messages of an application, as text lines show it. No nickname has a space. */
export const apiName = (from) => `${from} (api)`;

export const isApiName = (name) => name.endsWith(" (api)");

/** Sender of a message: an application is told from a user of the same name. */
export const senderOf = ({ from, fromApi }) => (fromApi ? apiName(from) : from);

/** One line of text for a message: `bob: hi`, or `bob waves`. */
export function lineOf(message) {
  const { body } = message;
  return `${senderOf(message)}${actionOf(body) === null ? ":" : ""} ${bodyText(body)}`;
}

/** Returns parts `{ kind: "text" | "link" | "code" | "block" | "mention", text, href? }`. */
export function parse(body, nick = "") {
  const text = actionOf(body) ?? body;
  if (typeof text !== "string") return [{ kind: "code", text: JSON.stringify(body) }];
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(FENCE)) {
    parts.push(...inline(trimEnd(text.slice(end, match.index)), nick));
    parts.push({ kind: "block", text: match[1].replace(/\n$/, "") });
    end = match.index + match[0].length;
  }
  const rest = text.slice(end);
  parts.push(...inline(end > 0 ? rest.replace(/^\n/, "") : rest, nick));
  return parts;
}

function trimEnd(text) {
  return text.replace(/\n$/, "");
}

function inline(text, nick) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const link = match[2] && trimLink(match[2]);
    if (match[2] && !isSafe(link)) continue;
    parts.push(...mentionParts(text.slice(end, match.index), nick));
    parts.push(link ? { kind: "link", text: link, href: link } : { kind: "code", text: match[1] });
    end = match.index + (link ? link.length : match[0].length);
  }
  parts.push(...mentionParts(text.slice(end), nick));
  return parts;
}

/** Leaves out punctuation that belongs to the sentence, and brackets that the link did not open. */
function trimLink(link) {
  const counts = {};
  for (const character of link) counts[character] = (counts[character] ?? 0) + 1;
  let end = link.length;
  for (; ; end -= 1) {
    const last = link[end - 1];
    const opening = OPENINGS[last];
    if (opening ? counts[last] <= (counts[opening] ?? 0) : !SENTENCE_MARK.test(last)) return link.slice(0, end);
    counts[last] -= 1;
  }
}

function isSafe(link) {
  try {
    const { protocol, hostname, username } = new URL(link);
    return (protocol === "http:" || protocol === "https:") && hostname !== "" && username === "";
  } catch {
    return false;
  }
}

/** True if the body calls `nick`: `@nick` anywhere, or `nick:` at its start. */
export function mentions(body, nick) {
  const text = actionOf(body) ?? body;
  return typeof text === "string" && nick !== "" && places(text, nick).length > 0;
}

function mentionParts(text, nick) {
  const parts = [];
  let end = 0;
  for (const [from, to] of nick ? places(text, nick) : []) {
    if (from > end) parts.push({ kind: "text", text: text.slice(end, from) });
    parts.push({ kind: "mention", text: text.slice(from, to) });
    end = to;
  }
  if (end < text.length) parts.push({ kind: "text", text: text.slice(end) });
  return parts;
}

function places(text, nick) {
  const found = [];
  const low = lowerInPlace(text);
  const name = lowerInPlace(nick);
  for (let at = low.indexOf(name); at >= 0; at = low.indexOf(name, at + name.length)) {
    const end = at + name.length;
    const next = NAME_JOINT.test(low[end] ?? "") ? end + 1 : end;
    if (NAME_CHARACTER.test(characterAt(low, next))) continue;
    if (low[at - 1] === "@" && !NAME_CHARACTER.test(characterBefore(low, at - 1))) found.push([at - 1, end]);
    else if (at === 0 && /[:,]/.test(low[end] ?? "")) found.push([at, end]);
  }
  return found;
}

/** The text in lower case, with each character at its place: that of `İ` would have two. */
function lowerInPlace(text) {
  const low = text.toLowerCase();
  if (low.length === text.length) return low;
  return Array.from(text, (character) => (character.toLowerCase().length === character.length ? character.toLowerCase() : character)).join("");
}

function characterAt(text, index) {
  const point = text.codePointAt(index);
  return point === undefined ? "" : String.fromCodePoint(point);
}

function characterBefore(text, index) {
  return [...text.slice(Math.max(0, index - 2), index)].at(-1) ?? "";
}
