/** Opens conversations: by name, by link and from the list. It keeps the secrets of private rooms. */
import { addressOf, readLink } from "./address.js";
import { roomName, targetOf } from "./commands.js";
import { loadPending, loadPlaces, savePrefs } from "./prefs.js";
import { isApiName } from "./text.js";

/** Puts a conversation into the address bar. */
export function showAddress(key, secret = null) {
  window.history.replaceState(null, "", addressOf(key, secret));
}

/** `session()` returns the session, and `complain(error, name)` shows a refusal. */
export function createOpening({ dispatch, read, pages, session, complain }) {
  /** Sends that the last page load left without an answer. */
  const unsent = loadPending();

  const secretOf = (name) => read().secrets[name.toLowerCase()] ?? null;
  const keepSecret = (name, secret) => {
    const secrets = { ...read().secrets, [name.toLowerCase()]: secret };
    dispatch({ type: "prefs", prefs: { secrets } });
    savePrefs({ secrets });
  };
  const isJoined = (name) => Object.keys(read().conversations).some((key) => key.toLowerCase() === name.toLowerCase());
  const joinRoom = async (name) => {
    // The server is to see no secret, not even that of a damaged link.
    if (name.includes("!k=")) throw Object.assign(new Error("the link is damaged"), { code: "bad_room" });
    return returnPending(await session().join(name));
  };
  /** Shows what the last page load could not send; a retry has the same key, so nothing is sent twice. */
  const returnPending = (key) => {
    for (const entry of unsent[key] ?? []) {
      const failure = entry.status === "failed" ? {} : { status: "failed", code: "interrupted" };
      dispatch({ type: "pending", key, entry: { ...entry, ...failure } });
    }
    delete unsent[key];
    return key;
  };

  function openConversation(key) {
    const { conversations } = read();
    const place = loadPlaces()[key] ?? null;
    dispatch({ type: "open", key, place });
    const conversation = conversations[key];
    if (!conversation) return;
    if (place && conversation.unread === 0 && !conversation.items.some(({ id }) => id === place.id)) {
      pages.showPlace(key, place).catch(() => {});
    }
    if (key[0] === "@") session().look(key).catch(() => {});
  }

  function openDirect(nick) {
    if (isApiName(nick)) return openConversation("@" + nick);
    if (targetOf(nick)?.[0] !== "@" || readLink(nick)) return join(nick);
    if (nick.toLowerCase() === session().nick.toLowerCase()) return dispatch({ type: "dialog", name: "you" });
    openConversation(session().direct(nick));
  }

  /** Opens a room, and returns its key; `null` if that is refused. */
  async function openRoom(name) {
    try {
      const key = await joinRoom(name);
      openConversation(key);
      return key;
    } catch (error) {
      complain(error, name);
      return null;
    }
  }

  /** The same of a room that was typed by its name or its link. */
  async function join(typed) {
    const link = readLink(typed);
    return link?.name ? follow(link) : openRoom(roomName(typed));
  }

  /** Opens the conversation of a link, whose secret leaves the address bar. A room joined without it is loaded again. */
  async function follow({ name, secret }) {
    const isNew = secret !== null && secret !== secretOf(name);
    if (isNew) keepSecret(name, secret);
    if (isNew && isJoined(name)) {
      showAddress(name, secret);
      location.reload();
      return null;
    }
    if (secret) showAddress(name);
    return name[0] === "@" ? openDirect(name.slice(1)) : openRoom(name);
  }

  return { secretOf, keepSecret, returnPending, joinRoom, join, follow, openConversation, openDirect };
}
