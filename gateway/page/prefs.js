/** Preferences of the page, kept in the browser. A storage that throws counts as empty. */

const PREFS = "parley.page";
const DIRECTS = "parley.page.directs";
const PLACES = "parley.page.places";
const PENDING = "parley.page.pending";
/** Size of the messages kept for one direct conversation, in characters. */
const DIRECT_SIZE_MAX = 50_000;
const DIRECTS_MAX = 30;

/** Returns `{ nick, rooms, closed, open, lang, sound, secrets }`, as far as they were kept. */
export const loadPrefs = () => load(() => localStorage, PREFS, {});

export function savePrefs(change) {
  save(() => localStorage, PREFS, { ...loadPrefs(), ...change });
}

/** Direct messages by nickname: the server does not give them out twice. */
export const loadDirects = () => load(() => localStorage, DIRECTS, {});

export function saveDirects(conversations) {
  const directs = conversations.filter(({ kind }) => kind === "direct").slice(-DIRECTS_MAX);
  save(() => localStorage, DIRECTS, Object.fromEntries(directs.map(({ name, items }) => [name, newest(items)])));
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

export function forgetAll() {
  for (const key of [PREFS, DIRECTS]) attempt(() => localStorage.removeItem(key));
  for (const key of [PLACES, PENDING]) attempt(() => sessionStorage.removeItem(key));
}

/** The storage that the tabs share, or `null` where the browser forbids it. */
export const sharedStorage = () => attempt(() => localStorage) ?? null;

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
