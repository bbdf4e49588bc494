import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { say } from "../words.js";
import { icons } from "./icons.js";
import { nameOf } from "./name.js";
import { View, intend } from "./view.js";

/** Name of the open conversation and what can be done with it. */
class Header extends View {
  template({ lang, conversation, members, secret, calls }) {
    const room = conversation?.kind === "room";
    return html`
      <button class="icon-button only-narrow" aria-label=${say(lang, "sidebar.open")}
        @click=${() => intend(this, "drawer", { open: true })}>
        ${icons.menu}${calls > 0 ? html`<span class="dot"></span>` : nothing}
      </button>
      <div class="title">
        <h1>${conversation ? nameOf(conversation.name) : say(lang, "title")}</h1>
        ${secret ? html`<span class="chip" title=${say(lang, "private.lead")}>${icons.lock}${say(lang, "private.room")}</span>` : nothing}
        ${conversation ? html`<p class="subtitle">${room
          ? say(lang, "members.count", { n: conversation.members.length })
          : conversation.online === null ? nothing : say(lang, conversation.online ? "online" : "offline")}</p>` : nothing}
      </div>
      ${room ? this.#roomButtons(lang, conversation, members, secret) : nothing}
      ${conversation && !room ? this.#button("leave", say(lang, "direct.close"), () => intend(this, "leave", { key: conversation.key })) : nothing}`;
  }

  #roomButtons(lang, { key }, members, secret) {
    return html`
      ${this.#button("link", say(lang, secret ? "private.copy" : "link.copy"), () => intend(this, "copy-link", { key }))}
      ${this.#button("leave", say(lang, "room.leave"), () => intend(this, "leave", { key }))}
      <button class="icon-button" aria-label=${say(lang, "members")} aria-pressed=${members ? "true" : "false"}
        title=${say(lang, members ? "members.hide" : "members.show")}
        @click=${() => intend(this, "members/show", { shown: !members })}>${icons.people}</button>`;
  }

  #button(name, label, onClick) {
    return html`<button class="icon-button" aria-label=${label} title=${label} @click=${onClick}>${icons[name]}</button>`;
  }
}

customElements.define("parley-header", Header);
