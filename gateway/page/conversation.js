/**
 * One conversation as plain data: its loaded messages, the sends that wait, and its unread state. Pure.
 *
 * `items` is a contiguous part of the stream, oldest first, mixed with notes of this page. `atStart` and `atEnd` are
 * true where nothing older or newer exists.
 */

import { isApiName } from "./text.js";

/** Messages kept in memory for one conversation. */
export const ITEMS_MAX = 2000;

export function createConversation(key, name) {
  return {
    key, name, kind: key[0] === "@" ? "direct" : "room", isApi: isApiName(name), items: [], pending: [], atStart: key[0] === "@", atEnd: true,
    loading: null, edge: null, lastSeq: 0, readSeq: 0, unread: 0, mentionSeqs: [], newAfter: null, members: [], typing: {},
    online: null, jump: null,
  };
}

/** Adds a message that just arrived. `pinned`: the reader is at the end, so old messages make room for it. */
export function receive(conversation, message, { pinned, mention, attended }) {
  const known = conversation.items.some((item) => item.id === message.id);
  if (known) return conversation;
  const waiting = message.own ? waitingFor(conversation.pending, message) : null;
  const next = { ...conversation, pending: conversation.pending.filter((entry) => entry !== waiting) };
  if (message.seq !== null) next.lastSeq = Math.max(conversation.lastSeq, message.seq);
  if (!message.fromApi) next.typing = without(conversation.typing, message.from);
  if (conversation.isApi) Object.assign(next, countApi(conversation, message, attended));
  if (message.own) next.newAfter = null;
  else if (!attended && next.newAfter === null && message.seq !== null) next.newAfter = message.seq - 1;
  if (mention && !message.own && message.seq !== null && message.seq > conversation.readSeq) {
    next.mentionSeqs = [...conversation.mentionSeqs, message.seq];
  }
  if (!conversation.atEnd) return next;
  return append(next, { kind: "message", ...message, ticks: ticksOf(conversation, waiting, message) }, pinned);
}

/** Adds a note of this page after the newest message. */
export function append(conversation, item, pinned = true) {
  if (!conversation.atEnd) return conversation;
  const items = [...conversation.items, item];
  if (items.length <= ITEMS_MAX) return { ...conversation, items };
  if (pinned || conversation.kind === "direct") {
    return { ...conversation, items: items.slice(items.length - ITEMS_MAX), atStart: conversation.kind === "direct" };
  }
  return { ...conversation, items: items.slice(0, ITEMS_MAX), atEnd: false };
}

/** Replaces everything that is loaded. */
export function load(conversation, messages, { more, seq }) {
  const lastSeq = Math.max(seq, conversation.lastSeq);
  const newest = messages.at(-1)?.seq ?? lastSeq;
  return {
    ...conversation, items: messages.map(asItem), atStart: !more, atEnd: newest >= lastSeq, lastSeq, loading: null,
  };
}

/** Seq of the message at one side, from which a page of history continues. */
export function edgeOf({ items }, side) {
  const isNumbered = ({ kind, seq }) => kind === "message" && seq !== null;
  const message = side === "older" ? items.find(isNumbered) : items.findLast(isNumbered);
  return message?.seq ?? null;
}

/**
 * Adds a page of history at one side, and drops the other side beyond the limit. A page that was asked for before other
 * messages took the place of that `edge` would leave a hole: it is ignored.
 */
export function extend(conversation, { side, edge, messages, more }) {
  if (conversation.loading !== side || conversation.edge !== edge) return conversation;
  if (edgeOf(conversation, side) !== edge) return { ...conversation, loading: null };
  const known = new Set(conversation.items.map((item) => item.id));
  const added = messages.filter((message) => !known.has(message.id)).map(asItem);
  if (side === "older") {
    const items = [...added, ...conversation.items];
    const cut = items.length > ITEMS_MAX;
    return {
      ...conversation, items: items.slice(0, ITEMS_MAX), atStart: !more, atEnd: conversation.atEnd && !cut, loading: null,
    };
  }
  const items = [...conversation.items, ...added];
  const cut = items.length > ITEMS_MAX;
  const newest = messages.at(-1)?.seq ?? conversation.lastSeq;
  return {
    ...conversation, items: items.slice(-ITEMS_MAX), atStart: conversation.atStart && !cut,
    atEnd: newest >= conversation.lastSeq, loading: null,
  };
}

/** Drops the messages after `seq`, which the server lost. */
export function rewind(conversation, seq) {
  return {
    ...conversation, lastSeq: seq, readSeq: Math.min(conversation.readSeq, seq),
    items: conversation.items.filter((item) => item.kind !== "message" || item.seq <= seq),
    mentionSeqs: conversation.mentionSeqs.filter((mention) => mention <= seq),
  };
}

/** Merges joins, leaves and new names into the last line if that is one of them too; only the net effect is kept. */
export function notePresence(conversation, { joined, left, renamed }, { id, time }) {
  if (joined.length + left.length + renamed.length === 0) return conversation;
  const last = conversation.items.at(-1);
  const merges = last?.kind === "presence";
  const run = merges ? last : { kind: "presence", id, joined: [], left: [], renamed: [] };
  const next = { ...run, time, joined: [...run.joined], left: [...run.left], renamed: [...run.renamed] };
  for (const { nick } of left) noteLeft(next, nick);
  for (const { from, to } of renamed) noteRenamed(next, from, to);
  for (const { nick } of joined) if (!drop(next.left, nick)) next.joined.push(nick);
  const rest = merges ? { ...conversation, items: conversation.items.slice(0, -1) } : conversation;
  return next.joined.length + next.left.length + next.renamed.length === 0 ? rest : append(rest, next);
}

/** A member that joined meanwhile leaves no trace, and one that was renamed is known by its first name. */
function noteLeft(note, nick) {
  if (drop(note.joined, nick)) return;
  const known = note.renamed.find(({ to }) => to === nick);
  if (known) note.renamed.splice(note.renamed.indexOf(known), 1);
  note.left.push(known?.from ?? nick);
}

function noteRenamed(note, from, to) {
  const at = note.joined.indexOf(from);
  if (at >= 0) note.joined[at] = to;
  if (at >= 0) return;
  const known = note.renamed.findIndex((change) => change.to === from);
  const [before] = known >= 0 ? note.renamed.splice(known, 1) : [{ from }];
  if (before.from !== to) note.renamed.push({ from: before.from, to });
}

/** Removes a value from a list. Returns false if it was not there. */
function drop(list, value) {
  const at = list.indexOf(value);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}

/** `unread` and `readSeq` as the library counts them. */
export function markRead(conversation, { unread, readSeq }) {
  const mentionSeqs = conversation.mentionSeqs.filter((seq) => seq > readSeq);
  return { ...conversation, unread, readSeq, mentionSeqs };
}

/** The library counts what users send; the direct messages of an application are counted here. */
function countApi({ unread, readSeq }, { seq }, attended) {
  // The inbox of a new session begins again.
  return { unread: attended ? unread : unread + 1, readSeq: Math.min(readSeq, seq - 1) };
}

/** Marks the direct messages of an application up to `seq` as read. */
export function readApi(conversation, seq) {
  const unread = conversation.items.filter((item) => item.kind === "message" && item.seq > seq).length;
  return { ...conversation, unread, readSeq: seq };
}

export function addPending(conversation, entry) {
  return { ...conversation, pending: [...conversation.pending, entry], newAfter: null };
}

export function changePending(conversation, key, change) {
  const pending = conversation.pending.map((entry) => (entry.key === key ? { ...entry, ...change } : entry));
  return { ...conversation, pending };
}

export function dropPending(conversation, key) {
  return { ...conversation, pending: conversation.pending.filter((entry) => entry.key !== key) };
}

/** The send is stored. Its message has arrived already, or arrives later with the `id` of the ack. */
export function acknowledge(conversation, key, ack) {
  const ticks = ack.delivered === null ? null : ack.delivered === "online" ? "delivered" : "sent";
  const shown = conversation.items.some((item) => item.id === ack.id);
  if (!shown && conversation.atEnd) return changePending(conversation, key, { id: ack.id, status: "stored", ticks });
  const items = ticks === null ? conversation.items
    : conversation.items.map((item) => (item.id === ack.id ? { ...item, ticks } : item));
  return { ...dropPending(conversation, key), items };
}

/** The send that became this message; the message may arrive before its ack. */
function waitingFor(pending, message) {
  const body = JSON.stringify(message.body);
  const alike = pending.filter((entry) => !entry.id && JSON.stringify(entry.body) === body);
  return pending.find((entry) => entry.id === message.id)
    ?? alike.find(({ status }) => status === "pending") ?? alike[0] ?? null;
}

function ticksOf(conversation, waiting, message) {
  return message.own && conversation.kind === "direct" ? waiting?.ticks ?? "sent" : null;
}

function asItem(message) {
  return { kind: "message", ticks: null, ...message };
}

function without(object, key) {
  if (!(key in object)) return object;
  const { [key]: _, ...rest } = object;
  return rest;
}
