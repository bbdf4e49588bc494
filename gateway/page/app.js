/** The rim of the page: it wires the state, the library, the browser and the views. */
import { render } from "./vendor/lit-html/lit-html.js";
import { createIntents } from "./intents.js";
import { askLater, watchBrowser } from "./browser.js";
import { callUser, permission, showBadge } from "./notify.js";
import { chooseStorage, loadPrefs, loadDirects, saveDirects, savePending, savePrefs } from "./prefs.js";
import { completionNames, initialState, isAttended, reduce } from "./state.js";
import { mentions } from "./text.js";
import { chooseLanguage } from "./words.js";
import { shell } from "./views/shell.js";

const SAVE_MS = 500;
const RECENT_MS = 5 * 60_000;
const root = document.querySelector("#app");
let state = initialState;

function dispatch(action) {
  const before = state;
  state = reduce(state, action);
  if (state === before) return;
  // A dialog opens at once, so that it gets the keys that are typed next.
  if (action.type === "dialog") draw();
  else drawSoon();
  showBadge(state);
  react(before, action);
}

function draw() {
  document.documentElement.lang = state.lang;
  render(shell(state, tools), root);
}

const drawSoon = askLater(draw);

function saveNow() {
  const conversations = Object.values(state.conversations);
  saveDirects(conversations);
  savePending(conversations);
}

const keepDirects = askLater(saveNow, SAVE_MS);

/** Effects of actions that the reducer cannot have. */
function react(before, action) {
  if (action.type === "link") intents.linkChanged(before.link, action.state);
  if (action.type === "message" || action.type === "ack") {
    if (action.key[0] === "@") keepDirects();
  }
  if (action.type === "message") announce(before, action);
  if (state.order !== before.order) intents.orderChanged();
  if (state.open !== before.open) intents.openChanged();
  if (state.nick !== before.nick && !state.entry.open) savePrefs({ nick: state.nick });
}

/** Calls the user for a message, but not for one of hours ago that a return delivers. */
function announce(before, { key, message, now }) {
  if (message.own || message.repeated || now - message.time > RECENT_MS) return;
  const attended = isAttended(before, key);
  const calls = key[0] === "@" || mentions(message.body, before.nick);
  if (calls && !(attended && document.hasFocus())) callUser(state, key, message, () => intents.run({ type: "open", key }));
}

const intents = createIntents({ dispatch, read: () => state });
const tools = {
  draft: (key) => intents.draft(key),
  names: () => completionNames(state),
};

function start() {
  const { lang, sound = false, nick = "", secrets = {} } = loadPrefs();
  dispatch({
    type: "prefs",
    prefs: {
      lang: lang ?? chooseLanguage(navigator.languages), sound, nick, secrets, now: Date.now(), notify: permission(),
      members: matchMedia("(min-width: 1000px)").matches,
    },
  });
  root.addEventListener("intent", (event) => intents.run(event.detail));
  watchBrowser({ dispatch, intents, read: () => state });
  addEventListener("pagehide", () => !state.entry.open && !state.link.final && saveNow());
  intents.begin(loadDirects());
}

await chooseStorage();
start();
