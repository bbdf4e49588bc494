/**
 * Reads the API for the page: its event stream, and its lists after events and every few seconds.
 *
 * Invariant: a hidden page reads no list, and after half a minute it holds no stream. Browsers share six connections
 * among all pages of a server, and a stream is one of them.
 */
import { LIST_MAX } from "./state.js";

const EVENTS = ["online", "offline", "join", "leave", "rename"];
/** Time between two reads without events. */
const PERIOD_MS = 5000;
/** Minimum pause after a read. After a successful one it is also ten times as long as the read, so that a slow server
 * spends little of its time on this page. */
const PAUSE_MS = 2000;
const PAUSE_MAX_MS = 30_000;
/** Delay of a read after an event, so that events which come together cause one read. */
const GATHER_MS = 100;
/** The list of users is the longest: without events it is read less often. A status change is no event. */
const USERS_PERIOD_MS = 15_000;
/** Time limit of an answer. */
const ANSWER_MS = 10_000;
/** Pause before a stream that the browser has given up is opened again. */
const REOPEN_MS = 10_000;
const HIDDEN_MS = 30_000;

/** Starts reading. `dispatch` receives the actions of `state.js`. */
export function start(dispatch) {
  const readSoon = readLists(dispatch);
  const stream = followEvents(dispatch, readSoon);
  let hiding = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(stream.close, HIDDEN_MS);
    } else {
      stream.open();
      readSoon();
    }
  });
  stream.open();
  readSoon();
}

/** Returns `open` and `close` of the event stream. Opening an open stream does nothing. */
function followEvents(dispatch, readSoon) {
  let source = null;
  let reopening = 0;
  let wasOpened = false;

  const report = (phase) => dispatch({ type: "stream", phase, at: Date.now() });
  const live = () => { report("live"); readSoon(); };
  const gap = () => { dispatch({ type: "gap", at: Date.now() }); readSoon(); };
  const close = () => {
    clearTimeout(reopening);
    source?.close();
    source = null;
  };
  const reopenLater = () => {
    close();
    reopening = setTimeout(open, REOPEN_MS);
  };
  const open = () => {
    if (source !== null) return;
    clearTimeout(reopening);
    // A new stream begins at the present, wherever the one before it ended.
    if (wasOpened) gap();
    wasOpened = true;
    source = new EventSource("/v1/events");
    source.onopen = live;
    source.onerror = () => {
      report("reconnecting");
      if (source?.readyState === EventSource.CLOSED) reopenLater();
    };
    for (const kind of EVENTS) {
      source.addEventListener(kind, ({ lastEventId, data }) => {
        dispatch({ type: "event", kind, id: lastEventId, data: JSON.parse(data) });
        readSoon();
      });
    }
    source.addEventListener("unavailable", () => report("unavailable"));
    source.addEventListener("available", live);
    source.addEventListener("gap", gap);
    source.addEventListener("overloaded", () => { report("reconnecting"); reopenLater(); });
  };
  return { open, close };
}

/** Begins to read the lists, and returns a function that requests a read as soon as the last pause is over. */
function readLists(dispatch) {
  let timer = 0;
  let isReading = false;
  let isRequested = false;
  let earliest = 0;
  let usersAt = -Infinity;

  const schedule = (delay) => {
    clearTimeout(timer);
    timer = setTimeout(read, Math.max(delay, earliest - performance.now()));
  };
  const read = async () => {
    if (document.hidden) return;
    const began = performance.now();
    const withUsers = isRequested || began - usersAt >= USERS_PERIOD_MS;
    let pause = PAUSE_MS;
    [isReading, isRequested] = [true, false];
    try {
      const answers = await lists(withUsers);
      dispatch({ type: "read", at: Date.now(), ...answers });
      if (withUsers) usersAt = began;
      pause = Math.min(Math.max(PAUSE_MS, 10 * (performance.now() - began)), PAUSE_MAX_MS);
    } catch (error) {
      isRequested ||= withUsers;
      dispatch({ type: "failed", code: error.code ?? "unreachable", at: Date.now() });
    }
    isReading = false;
    earliest = performance.now() + pause;
    schedule(isRequested ? GATHER_MS : PERIOD_MS);
  };
  return () => {
    isRequested = true;
    if (!isReading) schedule(GATHER_MS);
  };
}

async function lists(withUsers) {
  const [stats, gateways, rooms, users] = await Promise.all([
    get("/v1/stats"),
    get("/v1/gateways"),
    get(`/v1/rooms?limit=${LIST_MAX}`),
    withUsers ? get(`/v1/users?online=true&limit=${LIST_MAX}`) : null,
  ]);
  return { stats, gateways, rooms, users };
}

/** Returns the JSON at a path. An error has the `code` of the refusal, if the server answered with one. */
async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS) });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(path), { code: body.code });
  return body;
}
