/** Pages of history: at both ends of what is loaded, around a kept place, and the newest one. */
import { edgeOf } from "./conversation.js";

const PAGE = 100;
/** Pause after a refused page; the timeline asks again as long as its end is near. */
const PAUSE_MS = 2000;

/** `history`: reads a page by conversation key. */
export function createPages({ dispatch, read, history }) {
  /** Loads the page before or after what is loaded of the open conversation. */
  async function load(side) {
    const key = read().open;
    const conversation = read().conversations[key];
    if (conversation.loading) return;
    const edge = edgeOf(conversation, side);
    dispatch({ type: "history/asked", key, side, edge });
    try {
      const at = side === "older" ? { before: edge ?? undefined } : { after: edge ?? 0 };
      const page = await history(key, { ...at, limit: PAGE });
      dispatch({ type: "history", key, side, edge, messages: page.items, more: page.more });
    } catch {
      setTimeout(() => dispatch({ type: "history/failed", key }), PAUSE_MS);
    }
  }

  /** Goes to the newest message, and loads it if it is not there. */
  async function latest() {
    const key = read().open;
    const jump = { id: null };
    if (read().conversations[key].atEnd) return dispatch({ type: "jump", key, jump });
    const { items, more } = await history(key, { limit: PAGE });
    dispatch({ type: "history/window", key, messages: items, more, jump });
  }

  /** Loads the messages around a place of an earlier visit. */
  async function showPlace(key, place) {
    if (key[0] !== "#") return;
    const { items } = await history(key, { after: Math.max(0, place.seq - PAGE / 2), limit: PAGE });
    if (!items.some(({ id }) => id === place.id)) return;
    // A new object, because the timeline makes each jump once.
    dispatch({ type: "history/window", key, messages: items, more: items[0].seq > 1, jump: { ...place } });
  }

  return { load, latest, showPlace };
}
