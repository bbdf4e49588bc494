/**
 * The state of the presence page: a reducer over answers of the API and events of its stream, and the rows that the
 * page shows. Pure. Times are Unix milliseconds.
 *
 * Lists come only from answers of the API. An event of the stream is an entry of the feed, and a reason to read again.
 */

/** Maximum number of rows of a list: one page of the API. */
export const LIST_MAX = 1000;
/** Maximum number of entries of the feed. */
export const FEED_MAX = 50;
/** Period over which messages are counted. */
const RATE_WINDOW_MS = 15_000;
/** Maximum time between two reads that are compared. */
const COMPARED_MS_MAX = 60_000;

export const initialState = {
  /** The event stream: `connecting`, `live`, `reconnecting` or `unavailable`, and since when it is not live. */
  stream: { phase: "connecting", since: null },
  /** The first failure of a read since the last success: its code and time. */
  failure: null,
  /** The time of the answers below. */
  readAt: null,
  stats: null,
  gateways: [],
  rooms: [],
  users: [],
  /** True if the API has more users or rooms than were read. */
  hasMoreUsers: false,
  hasMoreRooms: false,
  /** The newest seq of each room, and the messages counted so far at the times of the last reads. */
  seqs: new Map(),
  samples: [],
  /** Events, newest first. */
  feed: [],
  search: "",
};

/** Returns the state after an action. */
export function reduce(state, action) {
  switch (action.type) {
    case "stream": return { ...state, stream: nextStream(state.stream, action) };
    case "event": return { ...state, feed: [entry(action), ...state.feed].slice(0, FEED_MAX) };
    case "gap": return { ...state, feed: feedWithGap(state.feed, action.at) };
    case "failed": return { ...state, failure: state.failure ? { ...state.failure, code: action.code } : { code: action.code, since: action.at } };
    case "read": return afterRead(state, action);
    case "search": return { ...state, search: action.text };
    default: return state;
  }
}

function nextStream(stream, { phase, at }) {
  if (phase === "live") return { phase, since: null };
  return { phase, since: stream.since ?? at };
}

function entry({ kind, id, data }) {
  return { kind, id, ...data };
}

/** Marks a place where events are missing: once, and only between events. */
function feedWithGap(feed, at) {
  if (feed.length === 0 || feed[0].kind === "gap") return feed;
  return [{ kind: "gap", id: `gap-${at}`, time: at }, ...feed].slice(0, FEED_MAX);
}

function afterRead(state, { at, stats, gateways, rooms, users }) {
  return {
    ...state,
    ...countMessages(state, rooms.items, at),
    failure: null,
    readAt: at,
    stats,
    gateways: gateways.items,
    rooms: rooms.items,
    hasMoreRooms: rooms.next_cursor !== null,
    ...users && { users: users.items, hasMoreUsers: users.next_cursor !== null },
  };
}

/**
 * Counts the messages since the last read: the growth of each room's seq. A room that was not read before has no
 * growth, and a seq that fell is a loss in the store, not a message.
 */
function countMessages({ seqs, samples }, rooms, at) {
  const growth = rooms.map(({ room, seq }) => Math.max(0, seq - (seqs.get(room) ?? seq)));
  const last = samples.at(-1);
  const isContinued = last !== undefined && at - last.at <= COMPARED_MS_MAX;
  const sent = isContinued ? last.sent + growth.reduce((sum, messages) => sum + messages, 0) : 0;
  const kept = isContinued ? samples.filter((sample) => sample === last || at - sample.at <= RATE_WINDOW_MS) : [];
  return { seqs: new Map(rooms.map(({ room, seq }) => [room, seq])), samples: [...kept, { at, sent }] };
}

/** Returns the messages a second in the rooms that were read; null until two reads, and while the page is not live. */
export function messageRate(state) {
  const [first, last] = [state.samples[0], state.samples.at(-1)];
  if (connection(state).phase !== "live" || state.samples.length < 2 || last.at <= first.at) return null;
  return ((last.sent - first.sent) * 1000) / (last.at - first.at);
}

/**
 * Returns the state of the connection: `connecting`, `live`, `reconnecting`, `unavailable` (the cluster's store does
 * not answer) or `overloaded`, and since when it is not live.
 */
export function connection({ stream, failure }) {
  if (failure === null) return stream;
  const phase = { unavailable: "unavailable", overloaded: "overloaded" }[failure.code] ?? "reconnecting";
  return { phase: stream.phase === "reconnecting" ? stream.phase : phase, since: Math.min(stream.since ?? Infinity, failure.since) };
}

/** Returns the gateways with their share of all users, 0 to 1. */
export function gatewayRows({ gateways }) {
  const all = gateways.reduce((sum, { users }) => sum + users, 0);
  return gateways.map((gateway) => ({ ...gateway, share: all === 0 ? 0 : gateway.users / all }));
}

/** Returns the rooms by size, then by name, with their size relative to the largest, 0 to 1. */
export function roomRows({ rooms }) {
  const order = (a, b) => b.member_count - a.member_count || (a.room < b.room ? -1 : 1);
  const sorted = [...rooms].sort(order);
  return sorted.map((room) => ({ ...room, share: room.member_count / sorted[0].member_count }));
}

/**
 * Returns the users whose nickname, status text or gateway contains the search text, each with the node id of its
 * gateway: null if the gateway has ended and the session has not resumed yet.
 */
export function userRows({ users, gateways, search }) {
  const nodes = new Map(gateways.map(({ incarnation, node }) => [incarnation, node]));
  const wanted = fold(search.trim());
  const rows = users.map((user) => ({ ...user, gateway: nodes.get(user.incarnation) ?? null }));
  return rows.filter(({ nick, text, gateway }) => [nick, text, gateway].some((part) => fold(part ?? "").includes(wanted)));
}

function fold(text) {
  return text.normalize("NFKC").toLowerCase();
}
