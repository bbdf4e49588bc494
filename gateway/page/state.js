/**
 * State of the page and its reducer. Pure: actions carry the time, and effects live in `session.js` and `app.js`.
 *
 * Invariant: every key of `order` is one of `conversations`, which also has the direct conversations that were closed. A
 * room's key is its name, a direct conversation's is `@nick`. Direct messages of an application have one with a space.
 */
import * as conversation from "./conversation.js";
import { bodyText, lineOf, mentions } from "./text.js";

/** Announcements shown at a time. */
const ANNOUNCEMENTS_MAX = 3;
/** Typing is shown for this time after the last report. */
export const TYPING_MS = 5000;

export const initialState = {
  lang: "en", nick: "", named: false, entry: { open: true, busy: false, error: null }, now: 0,
  link: { name: "idle", node: null, reason: null, retryAt: null, final: false }, pingMs: null,
  conversations: {}, order: [], open: null, wanted: null, restored: false, pinned: true, attentive: true,
  dialog: null, drawer: false, members: true, toast: null, announcements: [], spoken: "", secrets: {},
  status: { status: "online", text: "" }, sound: false, notify: "default", publicRooms: null,
};

export function reduce(state, action) {
  const step = steps[action.type];
  return step ? step(state, action) : state;
}

/** Number for the title: mentions in rooms and unread direct messages. */
export function badge(state) {
  return state.order.reduce((sum, key) => sum + callsOf(state.conversations[key]), 0);
}

/** Messages of a conversation that call the reader by name. */
export function callsOf({ kind, unread, mentionSeqs }) {
  return kind === "direct" ? unread : Math.min(mentionSeqs.length, unread);
}

/** Next conversation with unread messages after the open one: mentions first. */
export function nextUnread(state) {
  const at = state.order.indexOf(state.open);
  const ring = [...state.order.slice(at + 1), ...state.order.slice(0, Math.max(at, 0))];
  const unread = ring.filter((key) => state.conversations[key].unread > 0);
  return unread.find((key) => callsOf(state.conversations[key]) > 0) ?? unread[0] ?? null;
}

export const roomsOf = ({ order }) => order.filter((key) => key[0] === "#");

/** Names for completion in the open conversation: the last speakers first. */
export function completionNames(state) {
  const { items, members } = state.conversations[state.open];
  const speakers = items.filter(({ kind, fromApi }) => kind === "message" && !fromApi).map(({ from }) => from).reverse();
  const nicks = new Set([...speakers, ...members.map(({ nick }) => nick)]);
  nicks.delete(state.nick);
  return { nicks: [...nicks], rooms: roomsOf(state) };
}

/** Everyone in the rooms of this user, by name. */
export function peopleOf(state) {
  const nicks = new Set(Object.values(state.conversations).flatMap(({ members }) => members.map(({ nick }) => nick)));
  nicks.delete(state.nick);
  return [...nicks].sort();
}

/** Nicknames of the direct conversations that were closed. */
export function closedNicks({ conversations, order }) {
  return Object.keys(conversations).filter((key) => !order.includes(key)).map((key) => key.slice(1));
}

/** True while the reader looks at the end of this conversation. */
export function isAttended(state, key) {
  return state.open === key && state.pinned && state.attentive;
}

const steps = {
  "prefs": (state, { prefs }) => ({ ...state, ...prefs }),
  "entry": (state, { error = null, busy = false }) => ({ ...state, entry: { open: true, busy, error } }),
  "entry/skip": (state) => ({ ...state, entry: { open: false, busy: false, error: null } }),
  "now": (state, { now }) => forgetTyping({ ...state, now }, now),
  "ping": (state, { ms }) => (ms === state.pingMs ? state : { ...state, pingMs: ms }),
  "nick": (state, { nick }) => ({ ...state, nick }),
  "named": (state, { named }) => ({ ...state, named }),
  "status": (state, { status, text }) => ({ ...state, status: { status, text } }),
  "dialog": (state, { name }) => ({ ...state, dialog: name, drawer: false }),
  "drawer": (state, { open }) => ({ ...state, drawer: open }),
  "members/show": (state, { shown }) => ({ ...state, members: shown }),
  "toast": (state, { toast }) => ({ ...state, toast }),
  "announcement": announce,
  "announcement/close": (state, { id }) => ({ ...state, announcements: state.announcements.filter((shown) => shown.id !== id) }),
  "public-rooms": (state, { rooms }) => ({ ...state, publicRooms: rooms }),
  "attentive": attend,
  "pinned": (state, { pinned }) => (state.pinned === pinned ? state : { ...state, pinned }),
  "link": changeLink,
  "joined": join,
  "left": leave,
  "direct": (state, { nick }) => ensure(state, "@" + nick, nick),
  "restored": (state) => ({ ...state, restored: true }),
  "want": (state, { name }) => ({ ...state, wanted: name }),
  "open": open,
  "message": receive,
  "direct/restore": (state, { key, messages }) => change(state, key, (c) => conversation.load(c, messages, { more: false, seq: 0 })),
  "direct/online": (state, { key, online }) => change(state, key, (c) => ({ ...c, online })),
  "history/asked": (state, { key, side, edge }) => change(state, key, (c) => ({ ...c, loading: side, edge })),
  "history/failed": (state, { key }) => change(state, key, (c) => ({ ...c, loading: null })),
  "history": (state, { key, ...page }) => change(state, key, (c) => conversation.extend(c, page)),
  "history/window": (state, { key, messages, more, jump }) =>
    change(state, key, (c) => ({ ...conversation.load(c, messages, { more, seq: 0 }), jump })),
  "jump": (state, { key, jump }) => change(state, key, (c) => ({ ...c, jump })),
  "members": changeMembers,
  "typing": (state, { key, from, now }) => change(state, key, (c) => ({ ...c, typing: { ...c.typing, [from]: now + TYPING_MS } })),
  "gap": (state, { key, fromSeq, toSeq }) => change(state, key, (c) => conversation.append(c, { kind: "gap", id: `gap-${fromSeq}`, fromSeq, toSeq })),
  "rewind": (state, { key, seq }) => change(state, key, (c) => conversation.rewind(c, seq)),
  "api/read": (state, { key, seq }) => change(state, key, (c) => conversation.readApi(c, seq)),
  "read": (state, { key, unread, readSeq }) => change(state, key, (c) => conversation.markRead(c, { unread, readSeq })),
  "pending": (state, { key, entry }) => change(state, key, (c) => conversation.addPending(c, entry)),
  "pending/change": (state, { key, id, change: fields }) => change(state, key, (c) => conversation.changePending(c, id, fields)),
  "pending/drop": (state, { key, id }) => change(state, key, (c) => conversation.dropPending(c, id)),
  "ack": (state, { key, id, ack }) => change(state, key, (c) => conversation.acknowledge({ ...c, online: onlineAfter(c, ack) }, id, ack)),
};

function change(state, key, edit) {
  const before = state.conversations[key];
  if (!before) return state;
  const after = edit(before);
  return after === before ? state : { ...state, conversations: { ...state.conversations, [key]: after } };
}

function ensure(state, key, name) {
  if (state.order.includes(key)) return state;
  const created = state.conversations[key] ?? conversation.createConversation(key, name);
  const rank = (other) => (other[0] === "@" ? 1 : 0);
  const order = [...state.order, key].sort((a, b) => rank(a) - rank(b));
  return { ...state, order, conversations: { ...state.conversations, [key]: created } };
}

function join(state, { key, recent, seq, members, unread, readSeq }) {
  const next = ensure(state, key, key);
  return change(next, key, (c) => {
    const loaded = conversation.load(c, recent, { more: recent.length > 0 && recent[0].seq > 1, seq });
    const known = new Set(recent.map(({ id }) => id));
    // Messages may arrive while the older ones of a private room are being opened.
    const items = [...loaded.items, ...c.items.filter(({ id }) => !known.has(id))];
    return conversation.markRead({ ...loaded, items, atEnd: true, members }, { unread, readSeq });
  });
}

/** A closed direct conversation keeps its messages and returns with the next one; a room is forgotten. */
function leave(state, { key }) {
  const { [key]: left, ...others } = state.conversations;
  const conversations = left?.kind === "direct" ? state.conversations : others;
  const order = state.order.filter((other) => other !== key);
  const at = state.order.indexOf(key);
  const successor = state.open === key ? order[Math.min(at, order.length - 1)] ?? null : state.open;
  return { ...state, conversations, order, open: successor, pinned: true };
}

function open(state, { key, place = null }) {
  if (!state.order.includes(key)) return state;
  const closed = state.open && state.open !== key
    ? change(state, state.open, (c) => ({ ...c, newAfter: null })) : state;
  const next = change(closed, key, (c) => ({
    ...c, jump: c.unread > 0 ? null : place, newAfter: c.unread > 0 && c.newAfter === null ? c.readSeq : c.newAfter,
  }));
  return { ...next, open: key, wanted: null, pinned: true, drawer: false, dialog: null };
}

function announce(state, { announcement }) {
  const others = state.announcements.filter(({ id }) => id !== announcement.id);
  return { ...state, announcements: [...others, announcement].slice(-ANNOUNCEMENTS_MAX), spoken: bodyText(announcement.body) };
}

function attend(state, { attentive }) {
  return state.attentive === attentive ? state : { ...state, attentive };
}

function receive(state, { key, message, name }) {
  const attended = isAttended(state, key);
  const pinned = state.open !== key || state.pinned;
  const mention = key[0] !== "@" && mentions(message.body, state.nick);
  const next = change(ensure(state, key, name ?? key), key, (c) => conversation.receive(c, message, { pinned, mention, attended }));
  return state.open === key && !message.own ? { ...next, spoken: lineOf(message) } : next;
}

/** The own entry is no news. */
function changeMembers(state, { key, members, event, id, now }) {
  const joined = event.joined.filter(({ nick }) => nick !== state.nick);
  return change(state, key, (c) => conversation.notePresence({ ...c, members }, { ...event, joined }, { id, time: now }));
}

function onlineAfter({ kind, online }, ack) {
  return kind === "direct" && ack.delivered !== null ? ack.delivered === "online" : online;
}

/** A resumed session leaves a line in each conversation; the first connection of the page does not. */
function changeLink(state, { state: link, nick, now, id }) {
  const { name } = link;
  if (name === "online") {
    const before = state.link.node;
    let next = { ...state, nick, now, entry: { open: false, busy: false, error: null } };
    next.link = { name, node: link.node, reason: null, retryAt: null, final: false };
    if (before === null) return next;
    const line = { kind: "resumed", id, time: now, from: before, to: link.node, tookMs: link.tookMs, whole: link.resumed };
    for (const key of state.order) next = change(next, key, (c) => conversation.append(c, line));
    return next;
  }
  const retryAt = name === "offline" && link.willRetry ? now + (link.inMs ?? 0) : null;
  const final = name === "offline" && !link.willRetry;
  return { ...state, now, link: { ...state.link, name, reason: link.reason ?? null, retryAt, final } };
}

function forgetTyping(state, now) {
  let next = state;
  for (const key of state.order) {
    const typing = Object.entries(state.conversations[key].typing);
    const live = typing.filter(([, until]) => until > now);
    if (live.length < typing.length) next = change(next, key, (c) => ({ ...c, typing: Object.fromEntries(live) }));
  }
  return next;
}
