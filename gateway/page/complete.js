/** Completion in the message field: commands, nicknames and rooms. Pure. */
import { COMMANDS } from "./commands.js";

const OPTIONS_MAX = 9;

/**
 * Returns `{ start, end, options: [{ value, label, kind }] }` for the word before the caret, or `null`. `nicks` come in
 * the order of preference. A bare word is completed only with `tab`.
 */
export function complete(text, caret, { nicks = [], rooms = [], tab = false } = {}) {
  const start = wordStart(text, caret);
  const word = text.slice(start, caret);
  const options = optionsFor(word, start, text, { nicks, rooms, tab });
  return options.length > 0 ? { start, end: caret, options: options.slice(0, OPTIONS_MAX) } : null;
}

/** Applies an option; returns the text and the new place of the caret. */
export function applyOption(text, { start, end }, { value }) {
  const after = text.slice(end);
  const gap = after.startsWith(" ") ? "" : " ";
  return { text: text.slice(0, start) + value + gap + after, caret: start + value.length + 1 };
}

function optionsFor(word, start, text, { nicks, rooms, tab }) {
  if (word.startsWith("/") && start === 0) {
    return COMMANDS.filter(({ name }) => name.startsWith(word.slice(1).toLowerCase()))
      .map(({ name, args }) => ({ value: "/" + name, label: args, kind: "command", name }));
  }
  if (word.startsWith("#")) {
    return matching(rooms, word).filter((room) => room !== word).map((room) => ({ value: room, label: room, kind: "room" }));
  }
  if (word.startsWith("@")) {
    return matching(nicks, word.slice(1)).map((nick) => ({ value: "@" + nick, label: nick, kind: "nick" }));
  }
  if (!tab || word === "") return [];
  const asTarget = /^\/msg\s+$/iu.test(text.slice(0, start));
  return matching(nicks, word).map((nick) => ({ value: asTarget ? nick : "@" + nick, label: nick, kind: "nick" }));
}

function matching(names, typed) {
  const low = typed.toLowerCase();
  return names.filter((name) => name.toLowerCase().startsWith(low));
}

function wordStart(text, caret) {
  const before = text.slice(0, caret);
  const space = Math.max(before.lastIndexOf(" "), before.lastIndexOf("\n"), before.lastIndexOf("\t"));
  return space + 1;
}

/** Ranks names for a typed filter: beginnings first, then parts; keeps the order otherwise. */
export function rank(names, typed) {
  const low = typed.trim().toLowerCase();
  if (low === "") return [...names];
  const begins = (name) => name.toLowerCase().replace(/^[#@]/, "").startsWith(low.replace(/^[#@]/, ""));
  const holds = (name) => name.toLowerCase().includes(low);
  return [...names.filter(begins), ...names.filter((name) => !begins(name) && holds(name))];
}
