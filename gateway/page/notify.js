/** Title, icon, notifications and sound: everything that calls a user who looks elsewhere. */
import { badge } from "./state.js";
import { bodyText, senderOf } from "./text.js";
import { say } from "./words.js";

const TEXT_MAX = 140;

/** Shows the number of messages for the user in the title, and a dot in the icon. */
export function showBadge(state) {
  const count = badge(state);
  const name = state.conversations[state.open]?.name;
  const title = [count > 0 ? `(${count})` : "", name && !state.entry.open ? `${name} ·` : "", say(state.lang, "title")];
  const text = title.filter(Boolean).join(" ");
  if (document.title !== text) document.title = text;
  const icon = document.querySelector("link[rel=icon]");
  const href = count > 0 ? "/page/icon-dot.svg" : "/page/icon.svg";
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}

export function permission() {
  return typeof Notification === "function" ? Notification.permission : "denied";
}

export async function askPermission() {
  return typeof Notification === "function" ? Notification.requestPermission() : "denied";
}

/** Calls the user for one message. Tabs share the tag, so the message appears once. */
export function callUser(state, key, message, onClick) {
  if (state.sound) blip();
  if (permission() !== "granted") return;
  const name = state.conversations[key]?.name ?? key;
  const from = senderOf(message);
  const title = key[0] === "@" ? from : say(state.lang, "notify.mention", { from, room: name });
  const body = bodyText(message.body).slice(0, TEXT_MAX);
  try {
    const shown = new Notification(title, { body, tag: message.id, icon: "/page/icon.svg", silent: true });
    shown.onclick = () => {
      window.focus();
      shown.close();
      onClick();
    };
  } catch {
    // Some phones allow notifications only from a service worker.
  }
}

let audio = null;

/** Two short tones. */
function blip() {
  audio ??= new AudioContext();
  const start = audio.currentTime;
  for (const [index, frequency] of [660, 880].entries()) {
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    tone.frequency.value = frequency;
    const at = start + index * 0.09;
    volume.gain.setValueAtTime(0.0001, at);
    volume.gain.exponentialRampToValueAtTime(0.12, at + 0.015);
    volume.gain.exponentialRampToValueAtTime(0.0001, at + 0.16);
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.18);
  }
}
