/** Preferences of the page, kept in the browser. A storage that throws counts as empty. */

const PREFS = "parley.page";
const DIRECTS = "parley.page.directs";
const PLACES = "parley.page.places";
const PENDING = "parley.page.pending";
/** Marks a tab with a storage of its own. */
const OWN = "parley.page.own";
/** Time for another tab to answer. */
const ASK_MS = 150;
/** Size of the messages kept for one direct conversation, in characters. */
const DIRECT_SIZE_MAX = 50_000;
const DIRECTS_MAX = 30;

/** Returns `{ nick, rooms, closed, open, lang, sound, secrets }`, as far as they were kept. */
export const loadPrefs = () => load(chosen, PREFS, {});

export function savePrefs(change) {
  save(chosen, PREFS, { ...loadPrefs(), ...change });
}

/** Direct messages by nickname: the server does not give them out twice. */
export const loadDirects = () => load(chosen, DIRECTS, {});

export function saveDirects(conversations) {
  const directs = conversations.filter(({ kind }) => kind === "direct").slice(-DIRECTS_MAX);
  save(chosen, DIRECTS, Object.fromEntries(directs.map(({ name, items }) => [name, newest(items)])));
}

/** Scroll places by conversation; each tab has its own. */
export const loadPlaces = () => load(() => sessionStorage, PLACES, {});

export function savePlace(key, place) {
  save(() => sessionStorage, PLACES, { ...loadPlaces(), [key]: place ?? undefined });
}

/** Sends without an answer, by conversation: a reload must not lose them silently. */
export function savePending(conversations) {
  const waiting = conversations.filter(({ pending }) => pending.length > 0);
  save(() => sessionStorage, PENDING, Object.fromEntries(waiting.map(({ key, pending }) => [key, pending])));
}

export const loadPending = () => load(() => sessionStorage, PENDING, {});

/** Forgets everything of this user, also the drafts and read marks of the library. */
export function forgetAll() {
  for (const storage of [() => chosen(), () => sessionStorage]) {
    const keys = attempt(() => Object.keys(storage())) ?? [];
    for (const key of keys.filter((name) => /^parley[.:]/.test(name))) attempt(() => storage().removeItem(key));
  }
}

/** The storage of the session, or `null` where the browser forbids it. */
export const sharedStorage = () => attempt(() => chosen()) ?? null;

/**
 * Chooses the storage of this tab. Tabs share one session by Web Locks, which browsers give only to pages with TLS and to
 * localhost. Without them a second tab would end the session of the first, so it is a person of its own.
 */
export async function chooseStorage() {
  if (navigator.locks || typeof BroadcastChannel !== "function" || attempt(() => sessionStorage.getItem(OWN))) return;
  const channel = new BroadcastChannel("parley.page");
  const isTaken = await new Promise((resolve) => {
    channel.onmessage = ({ data }) => data === "taken" && resolve(true);
    channel.postMessage("free?");
    setTimeout(resolve, ASK_MS, false);
  });
  if (isTaken) {
    channel.close();
    attempt(() => sessionStorage.setItem(OWN, "yes"));
  } else {
    channel.onmessage = ({ data }) => data === "free?" && channel.postMessage("taken");
  }
}

function chosen() {
  return attempt(() => sessionStorage.getItem(OWN)) ? sessionStorage : localStorage;
}

/** True if another tab changed the preferences. */
export const isPrefsEvent = (event) => event.key === PREFS;

function newest(items) {
  let size = 0;
  const messages = items.filter(({ kind }) => kind === "message");
  const first = messages.findLastIndex((item) => (size += JSON.stringify(item).length) > DIRECT_SIZE_MAX);
  return messages.slice(first + 1);
}

function load(storage, key, fallback) {
  return attempt(() => JSON.parse(storage().getItem(key))) ?? fallback;
}

function save(storage, key, value) {
  attempt(() => storage().setItem(key, JSON.stringify(value)));
}

function attempt(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}
