import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { badge, peopleOf } from "../state.js";
import { clock, fullTime, isolate, say } from "../words.js";
import { bodyOf } from "./body.js";
import "./composer.js";
import "./entry.js";
import "./header.js";
import "./help.js";
import { icons } from "./icons.js";
import "./members.js";
import "./sidebar.js";
import "./switcher.js";
import "./timeline.js";
import "./you.js";
import { intend } from "./view.js";

const HOUR_MS = 3_600_000;
const NO_PEOPLE = [];

/** The whole page. `tools`: `{ draft, names }`, the same functions at every call. */
export function shell(state, tools) {
  return state.entry.open ? entryTemplate(state) : chatTemplate(state, tools);
}

function entryTemplate({ lang, nick, named, wanted, entry }) {
  return html`<main class="entry-screen">
    <parley-entry .props=${{ lang, nick, named, room: wanted, busy: entry.busy, error: entry.error }}></parley-entry>
  </main>`;
}

function chatTemplate(state, tools) {
  const { lang, nick, status, link, pingMs, order, conversations, open, secrets, dialog, drawer } = state;
  const conversation = conversations[open] ?? null;
  const members = state.members && conversation?.kind === "room";
  return html`
    <div class="chat ${drawer ? "with-drawer" : ""} ${members ? "with-members" : ""}">
      <nav class="sidebar" aria-label=${say(lang, "conversations")}>
        <parley-sidebar .props=${{ lang, nick, status, link, pingMs, order, conversations, open, secrets, drawer }}></parley-sidebar>
      </nav>
      <div class="backdrop" @click=${(event) => intend(event.target, drawer ? "drawer" : "members/show", drawer ? { open: false } : { shown: false })}></div>
      <main class="main" ?inert=${drawer}>
        <parley-header class="header" .props=${{ lang, conversation, members, secret: isSecret(secrets, open), calls: badge(state) }}></parley-header>
        ${linkBanner(state)}
        ${state.announcements.map((announcement) => announcementTemplate(state, announcement))}
        ${conversation ? conversationTemplate(state, conversation, tools) : emptyTemplate(state)}
      </main>
      ${members ? html`<aside class="members" aria-label=${say(lang, "members")}>
        <parley-members .props=${{ lang, members: conversation.members, nick }}></parley-members>
      </aside>` : nothing}
    </div>
    <parley-switcher .props=${{ open: dialog === "switcher", lang, order, conversations, current: open, publicRooms: state.publicRooms, people: dialog === "switcher" ? peopleOf(state) : NO_PEOPLE }}></parley-switcher>
    <parley-you .props=${{ open: dialog === "you", lang, nick, named: state.named, status, sound: state.sound, notify: state.notify, link, pingMs }}></parley-you>
    <parley-help .props=${{ open: dialog === "help", lang }}></parley-help>
    <div class="toast-place" role="status">${state.toast ? html`<p class="toast">${state.toast}</p>` : nothing}</div>
    <p class="visually-hidden" aria-live="polite">${state.spoken}</p>`;
}

function conversationTemplate({ lang, nick, now, secrets, attentive }, conversation, { draft, names }) {
  return html`
    <parley-timeline class="timeline" .props=${{ lang, nick, conversation, attentive, secret: isSecret(secrets, conversation.key), now: now - (now % HOUR_MS) }}></parley-timeline>
    <p class="typing" aria-live="off">${typingText(lang, conversation)}</p>
    ${conversation.isApi ? html`<p class="no-answer">${say(lang, "direct.api")}</p>`
    : html`<parley-composer .props=${{ lang, conversation, draft, names }}></parley-composer>`}`;
}

/** A notice of the application, over whatever is open. */
function announcementTemplate({ lang, nick }, { id, body, time }) {
  return html`<section class="announcement" aria-label=${say(lang, "announcement")}>
    <span class="by-api">${say(lang, "announcement")}</span>
    <div class="text" dir="auto" tabindex="0">${bodyOf(body, nick)}</div>
    <time class="muted" datetime=${new Date(time).toISOString()} title=${fullTime(lang, time)}>${clock(lang, time)}</time>
    <button class="icon-button small" aria-label=${say(lang, "close")} title=${say(lang, "close")}
      @click=${(event) => intend(event.target, "announcement/close", { id })}>${icons.close}</button>
  </section>`;
}

function emptyTemplate({ lang, order, restored }) {
  if (!restored || order.length > 0) return html`<div class="empty"></div>`;
  return html`<div class="empty">
    <h2>${say(lang, "empty.title")}</h2>
    <p class="muted">${say(lang, "empty.lead")}</p>
    <button class="button primary" @click=${(event) => intend(event.target, "dialog", { name: "switcher" })}>${say(lang, "room.join")}</button>
  </div>`;
}

function typingText(lang, { typing, kind, online, name, pending }) {
  const names = Object.keys(typing);
  if (names.length === 0) {
    return kind === "direct" && online === false && pending.length === 0 ? say(lang, "direct.offline", { name: isolate(name) }) : "";
  }
  const [a, b] = names.map(isolate);
  return say(lang, names.length === 1 ? "typing.one" : names.length === 2 ? "typing.two" : "typing.many", { a, b });
}

const isSecret = (secrets, key) => key !== null && key.toLowerCase() in secrets;

const ENDS = { taken_over: "link.taken", kicked: "link.kicked", banned: "link.banned" };

/** One line about a lost connection, with what the user can do. */
function linkBanner({ lang, link, now }) {
  if (link.name === "online" || link.name === "idle") return nothing;
  if (link.name === "connecting" && link.node === null) return nothing;
  const rest = link.retryAt === null ? null : Math.max(0, Math.ceil((link.retryAt - now) / 1000));
  const text = link.final ? say(lang, ENDS[link.reason] ?? "link.ended")
    : rest === null || rest === 0 ? say(lang, link.name === "offline" ? "link.retrying" : "link.resuming")
      : say(lang, "link.retry", { n: rest });
  const [intent, label] = link.final ? ["again", "link.again"] : ["retry-now", "link.now"];
  return html`<div class="banner" role="status">
    <span>${text}</span>
    <button class="text-button" @click=${(event) => intend(event.target, intent)}>${say(lang, label)}</button>
  </div>`;
}
