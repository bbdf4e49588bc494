/** The intents of the user, carried out: each is a call of the library, an action of the state, or both. */
import { addressOf, copyText, newPrivateRoom, randomKey, readAddress, readLink, socketUrl } from "./address.js";
import { askLater } from "./browser.js";
import { readInput, targetOf, usageOf } from "./commands.js";
import { askPermission } from "./notify.js";
import { createOpening, showAddress } from "./opening.js";
import { createPages } from "./pages.js";
import { forgetAll, loadPrefs, savePlace, savePrefs, sharedStorage } from "./prefs.js";
import { Session } from "./session.js";
import { createSignIn } from "./sign_in.js";
import { closedNicks, roomsOf } from "./state.js";
import { isApiName } from "./text.js";
import { errorText, say } from "./words.js";

const FIRST_ROOM = "#lobby";
const TOAST_MS = 5000;
const DRAFT_MS = 300;
/** Reasons that mean another name is needed, or another sign-in. */
const NICK_WORDS = {
  nick_in_use: "entry.in_use", nick_confusable: "entry.confusable", bad_nick: "entry.bad", token_required: "entry.token_required",
  token_invalid: "entry.token_refused", token_expired: "entry.token_refused",
};

export function createIntents({ dispatch, read }) {
  const signIn = createSignIn();
  let session = null;
  let directs = {};
  let restoring = null;
  let toastTimer = 0;
  const drafts = new Map();
  const pages = createPages({ dispatch, read, history: (key, options) => session.history(key, options) });
  const opening = createOpening({ dispatch, read, pages, session: () => session, complain: (error, name) => complain(error, name) });
  const { secretOf, keepSecret, returnPending, join, openConversation, openDirect } = opening;

  const word = (key, params) => say(read().lang, key, params);
  const toast = (text) => {
    clearTimeout(toastTimer);
    dispatch({ type: "toast", toast: text });
    toastTimer = setTimeout(() => dispatch({ type: "toast", toast: null }), TOAST_MS);
  };
  const refusal = ({ code, message }) => (NICK_WORDS[code] ? word(NICK_WORDS[code]) : word("entry.other", { reason: message ?? code }));
  const complain = (error, name) => toast(errorText(read().lang, error, name));
  const flush = () => {
    for (const [key, text] of drafts) session?.setDraft(key, text);
    drafts.clear();
  };
  const keepDrafts = askLater(flush, DRAFT_MS);

  function enter(nick) {
    session = new Session({ url: socketUrl(), nick, storage: sharedStorage(), secretOf, dispatch, signIn: signIn?.options() });
    const { closed = [] } = loadPrefs();
    for (const [name, messages] of Object.entries(directs)) {
      const isApi = isApiName(name);
      if (!isApi && targetOf(name) !== "@" + name) continue;
      const key = isApi ? session.application(name) : session.direct(name);
      dispatch({ type: "direct/restore", key, messages });
      if (isApi) session.read(key, messages.at(-1)?.seq ?? 0);
      returnPending(key);
      if (closed.includes(name)) dispatch({ type: "left", key });
    }
  }

  /** Begins the session, as soon as the embedding page has said who the user is. */
  async function beginSignedIn() {
    dispatch({ type: "named", named: true });
    dispatch({ type: "entry", busy: true });
    const { nick, isOther } = await signIn.ask();
    if (isOther) {
      directs = {};
      dispatch({ type: "prefs", prefs: { nick: "", secrets: {} } });
    }
    dispatch({ type: "named", named: nick !== null });
    beginWith(nick ?? loadPrefs().nick ?? "");
  }

  const signInOrComplain = () => beginSignedIn().catch(() => dispatch({ type: "entry", error: word("entry.no_token") }));

  /** Begins the session under a nickname, or lets the user choose one. */
  function beginWith(nick) {
    const { name, secret } = readAddress();
    if (secret) keepSecret(name, secret);
    if (name) dispatch({ type: "want", name });
    if (nick === "") return dispatch({ type: "entry" });
    dispatch({ type: "entry/skip" });
    enter(nick);
  }

  /** Joins the rooms of this session and of earlier visits, the wanted one first. */
  async function restore(rooms) {
    const { rooms: kept = [], open } = loadPrefs();
    const wanted = read().wanted ?? open ?? null;
    const first = wanted?.[0] === "#" ? [wanted] : [];
    const names = [...new Set([...first, ...kept, ...rooms])];
    if (names.length === 0 && !wanted) names.push(FIRST_ROOM);
    if (wanted?.[0] === "@") openDirect(wanted.slice(1));
    await Promise.all(names.map(async (name) => {
      const key = await opening.joinRoom(name).catch((error) => complain(error, name));
      if (key && (name === wanted || (!wanted && !read().open))) openConversation(key);
    }));
    dispatch({ type: "restored" });
    savePrefs({ rooms: roomsOf(read()) });
    if (!read().open && read().order.length > 0) openConversation(read().order[0]);
  }

  async function send(key, body) {
    const id = randomKey();
    const { nick, conversations } = read();
    dispatch({ type: "pending", key, entry: { key: id, from: nick, body, time: Date.now(), status: "pending", ticks: null } });
    if (conversations[key].atEnd) dispatch({ type: "jump", key, jump: { id: null } });
    else pages.latest().catch(complain);
    await session.send(key, id, body);
  }

  function submit({ key, text, restore: giveBack }) {
    const input = readInput(text);
    if (input.kind === "error") {
      toast(word(input.word, input.params));
      return giveBack();
    }
    drafts.set(key, "");
    flush();
    if (input.kind === "text") send(key, input.text);
    else commands[input.name](key, ...input.args);
  }

  const commands = {
    join: (key, name) => join(name),
    leave: (key) => run({ type: "leave", key }),
    msg: async (key, typed, text) => {
      const target = targetOf(typed);
      if (!target) return toast(word("command.usage", { usage: usageOf("msg") }));
      const opened = target[0] === "#" || readLink(typed) ? await join(typed) : session.direct(target.slice(1));
      if (!opened) return;
      openConversation(opened);
      send(opened, text);
    },
    me: (key, text) => send(key, { me: text }),
    nick: (key, nick) => run({ type: "rename", nick }),
    away: (key, text = "") => run({ type: "status", status: "away", text }),
    back: () => run({ type: "status", status: "online", text: "" }),
    who: () => dispatch({ type: "members/show", shown: true }),
    rooms: () => run({ type: "dialog", name: "switcher" }),
    help: () => dispatch({ type: "dialog", name: "help" }),
  };

  const handlers = {
    "enter": async ({ nick }) => {
      if (read().named) return session ? location.reload() : signInOrComplain();
      dispatch({ type: "nick", nick });
      dispatch({ type: "entry", busy: true });
      if (!session) return enter(nick);
      const renamed = session.rename(nick).catch((error) => dispatch({ type: "entry", error: refusal(error) }));
      session.retry();
      await renamed;
    },
    "open": ({ key }) => openConversation(key),
    "join": ({ name }) => join(name),
    "direct": ({ nick }) => openDirect(nick),
    "leave": ({ key }) => session.leave(key).catch((error) => complain(error, key)),
    "history": ({ side }) => pages.load(side),
    "latest": () => pages.latest().catch(complain),
    "submit": submit,
    "retry": ({ key, id }) => {
      const { body } = read().conversations[key].pending.find((entry) => entry.key === id);
      dispatch({ type: "pending/change", key, id, change: { status: "pending" } });
      session.send(key, id, body);
    },
    "discard": ({ key, id }) => dispatch({ type: "pending/drop", key, id }),
    "seen": ({ key, seq }) => session.read(key, seq),
    "place": ({ key, place }) => savePlace(key, place),
    "draft": ({ key, text }) => {
      drafts.set(key, text);
      keepDrafts();
      if (text !== "" && !text.startsWith("/")) session.typing(key);
    },
    "dialog": ({ name }) => {
      dispatch({ type: "dialog", name });
      if (name === "switcher") session.publicRooms().then((rooms) => dispatch({ type: "public-rooms", rooms }), () => {});
    },
    "rename": async ({ nick }) => {
      try {
        await session.rename(nick);
        dispatch({ type: "dialog", name: null });
      } catch (error) {
        toast(refusal(error));
      }
    },
    "status": ({ status, text }) => session.status(status, text).then(() => dispatch({ type: "dialog", name: null }), complain),
    "prefs": ({ prefs }) => {
      dispatch({ type: "prefs", prefs });
      savePrefs(prefs);
    },
    "notify": async () => dispatch({ type: "prefs", prefs: { notify: await askPermission() } }),
    "private": () => {
      const room = newPrivateRoom();
      if (!room) return toast(word("private.insecure"));
      keepSecret(room.name, room.secret);
      join(room.name);
    },
    "copy-link": ({ key }) => copyText(addressOf(key, secretOf(key))).then(() => toast(word("copied")), complain),
    "retry-now": () => session.retry(),
    "again": () => location.reload(),
    "sign-out": async () => {
      await session.close();
      drafts.clear();
      dispatch({ type: "entry" });
      forgetAll();
      location.replace(location.pathname);
    },
  };

  function run(intent) {
    const handler = handlers[intent.type] ?? dispatch;
    handler(intent);
  }

  return {
    run,
    flush,
    begin(kept) {
      directs = kept;
      if (signIn) signInOrComplain();
      else beginWith(loadPrefs().nick ?? "");
    },
    linkChanged(before, link) {
      if (link.name === "online") {
        savePrefs({ nick: session.nick });
        restoring ??= restore(link.rooms);
      } else if (link.name === "offline") {
        const { entry } = read();
        const needsName = NICK_WORDS[link.reason] || entry.open;
        if (needsName && !link.willRetry) dispatch({ type: "entry", error: refusal({ code: link.reason, message: link.message }) });
        else if (entry.open) {
          const held = link.reason === "nick_in_use";
          const text = held ? word("entry.held", { n: Math.ceil(link.inMs / 1000) })
            : word(link.reason === "no_token" ? "entry.no_token" : "entry.unreachable");
          dispatch({ type: "entry", error: text, busy: !held });
        }
      }
    },
    orderChanged() {
      if (read().restored) savePrefs({ rooms: roomsOf(read()), closed: closedNicks(read()) });
    },
    openChanged() {
      const { open } = read();
      session.watched = open;
      if (!open) return;
      savePrefs({ open });
      showAddress(open);
    },
    followAddress() {
      const { name, secret } = readAddress();
      if (!name) return;
      if (session) {
        if (secret || name !== read().open) opening.follow({ name, secret });
        return;
      }
      if (secret) keepSecret(name, secret);
      dispatch({ type: "want", name });
    },
    /** Takes over what another tab changed. A joined room with a new secret is loaded again. */
    adopt({ lang, sound, rooms = [], secrets = {} }) {
      const state = read();
      const isChanged = state.order.some((key) => (secrets[key.toLowerCase()] ?? secretOf(key)) !== secretOf(key));
      dispatch({ type: "prefs", prefs: { lang: lang ?? state.lang, sound: sound ?? state.sound, secrets } });
      if (isChanged) return location.reload();
      for (const room of rooms) if (!state.conversations[room] && state.restored) opening.joinRoom(room).catch(() => {});
    },
    draft: (key) => drafts.get(key) ?? session.draft(key),
  };
}
