/** Events of the window: keys, focus, address, other tabs and the clock. */
import { isPrefsEvent, loadPrefs } from "./prefs.js";
import { nextUnread } from "./state.js";

const MINUTE_MS = 60_000;

/** Returns a function that runs `action` once for many calls: in the next frame, or after `ms`. */
export function askLater(action, ms = null) {
  let asked = false;
  const run = () => {
    asked = false;
    action();
  };
  return () => {
    if (asked) return;
    asked = true;
    if (ms === null) requestAnimationFrame(run);
    else setTimeout(run, ms);
  };
}

export function watchBrowser({ dispatch, intents, read }) {
  const attend = () => dispatch({ type: "attentive", attentive: document.visibilityState === "visible" && document.hasFocus() });
  addEventListener("focus", attend);
  addEventListener("blur", attend);
  document.addEventListener("visibilitychange", attend);
  addEventListener("pagehide", () => intents.flush());
  addEventListener("hashchange", () => intents.followAddress());
  addEventListener("storage", (event) => isPrefsEvent(event) && intents.adopt(loadPrefs()));
  document.addEventListener("keydown", (event) => onKey(event, read(), intents));
  setInterval(() => tick(read(), dispatch), 1000);
  attend();
}

function tick(state, dispatch) {
  const now = Date.now();
  const waits = state.link.retryAt !== null || Object.values(state.conversations).some(({ typing }) => Object.keys(typing).length > 0);
  if (waits || now - state.now > MINUTE_MS) dispatch({ type: "now", now });
}

function onKey(event, state, intents) {
  if (state.entry.open || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    intents.run({ type: "dialog", name: state.dialog === "switcher" ? null : "switcher" });
  } else if (event.altKey && event.code === "KeyA") {
    event.preventDefault();
    const key = nextUnread(state);
    if (key) intents.run({ type: "open", key });
  } else if (event.key === "Escape" && !event.defaultPrevented && state.dialog === null) {
    if (state.drawer) intents.run({ type: "drawer", open: false });
    else if (state.members && matchMedia("(max-width: 999px)").matches) intents.run({ type: "members/show", shown: false });
    else if (state.open && (!state.pinned || !state.conversations[state.open].atEnd)) intents.run({ type: "latest" });
  }
}
