import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { callsOf } from "../state.js";
import { say } from "../words.js";
import { icons } from "./icons.js";
import { avatar, nameOf } from "./name.js";
import { View, intend, moveFocus } from "./view.js";

const SHORTCUT = /mac|iphone|ipad/i.test(navigator.platform) ? "⌘ K" : "Ctrl K";

/** Own name and connection, the search, and the list of conversations. */
class Sidebar extends View {
  template({ lang, nick, status, link, pingMs, order, conversations, open, secrets }) {
    const rooms = order.filter((key) => key[0] === "#");
    const directs = order.filter((key) => key[0] === "@");
    const focusable = open ?? order[0];
    const list = (keys) => html`<ul class="list">${repeat(keys, (key) => key, (key) => html`
      <li>${this.#entry(conversations[key], key === open, key === focusable, lang, key.toLowerCase() in secrets)}</li>`)}</ul>`;
    return html`
      <div class="side-head">
        <button class="you" title=${say(lang, "you")} aria-haspopup="dialog" @click=${() => intend(this, "dialog", { name: "you" })}>
          <span class="presence-mark ${link.name === "online" ? status.status : "offline"}">${avatar(nick)}</span>
          <span class="you-text">
            <span class="you-name">${nameOf(nick)}</span>
            <span class="you-link ${link.name}">${linkText(lang, link, pingMs)}</span>
          </span>
        </button>
        <button class="icon-button only-narrow" aria-label=${say(lang, "sidebar.close")}
          @click=${() => intend(this, "drawer", { open: false })}>${icons.close}</button>
      </div>
      <button class="jump" aria-haspopup="dialog" @click=${() => intend(this, "dialog", { name: "switcher" })}>
        ${icons.search}<span>${say(lang, "jump")}</span><kbd>${SHORTCUT}</kbd>
      </button>
      <div class="side-lists" @keydown=${(event) => moveFocus(event, ".entry-link")}>
        <div class="side-title">
          <h2>${say(lang, "rooms")}</h2>
          <button class="icon-button small" aria-label=${say(lang, "private.new")} title=${say(lang, "private.new")}
            @click=${() => intend(this, "private")}>${icons.lock}</button>
          <button class="icon-button small" aria-label=${say(lang, "room.join")} title=${say(lang, "room.join")}
            @click=${() => intend(this, "dialog", { name: "switcher" })}>${icons.plus}</button>
        </div>
        ${rooms.length > 0 ? list(rooms) : html`<p class="side-empty">${say(lang, "rooms.none")}</p>`}
        ${directs.length > 0 ? html`<div class="side-title"><h2>${say(lang, "directs")}</h2></div>${list(directs)}` : nothing}
      </div>`;
  }

  update(before) {
    super.update(before);
    if (before && before.drawer !== this.props.drawer) this.#moveFocus();
  }

  /** An open drawer takes the focus, and a closed one returns it. */
  #moveFocus() {
    const target = this.props.drawer ? this.querySelector(".entry-link[tabindex='0']") ?? this.querySelector(".jump")
      : document.querySelector("parley-header .only-narrow");
    requestAnimationFrame(() => target?.focus());
  }

  #entry(conversation, current, focusable, lang, secret) {
    const { key, name, kind, unread, online } = conversation;
    const calls = callsOf(conversation);
    const sign = kind === "room"
      ? html`<span class="hash" aria-hidden="true">${secret ? icons.lock : "#"}</span>`
      : html`<span class="presence-mark ${online === null ? "" : online ? "online" : "offline"}">${avatar(name, "small")}</span>`;
    return html`
      <button class="entry-link ${unread > 0 ? "unread" : ""}" aria-current=${current ? "page" : nothing}
        tabindex=${focusable ? 0 : -1} @click=${() => intend(this, "open", { key })}>
        ${sign}<span class="entry-name">${nameOf(kind === "room" ? name.slice(1) : name)}</span>
        ${unread > 0 ? html`<span class="badge ${calls > 0 ? "calls" : ""}">${short(calls || unread)}<span class="visually-hidden">
          ${calls > 0 ? say(lang, "unread.calls", { n: calls }) : say(lang, "unread", { n: unread })}</span></span>` : nothing}
      </button>`;
  }
}

function linkText(lang, link, pingMs) {
  if (link.name === "online") {
    const ping = pingMs === null ? "" : " · " + say(lang, "link.ping", { n: Math.max(1, Math.round(pingMs)) });
    return link.node + ping;
  }
  return say(lang, link.name === "offline" ? "link.offline" : link.name === "resuming" ? "link.resuming" : "link.connecting");
}

function short(count) {
  return count > 999 ? "999+" : count;
}

customElements.define("parley-sidebar", Sidebar);
