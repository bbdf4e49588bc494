import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { say } from "../words.js";
import { icons } from "./icons.js";
import { avatar, nameOf } from "./name.js";
import { View, intend, moveFocus } from "./view.js";

const SHOWN_MAX = 300;

/** Members of the open room: online first, then away, by name. */
class Members extends View {
  template({ lang, members, nick }) {
    const sorted = [...members].sort((a, b) => rankOf(a) - rankOf(b) || collator.compare(a.nick, b.nick));
    const shown = sorted.slice(0, SHOWN_MAX);
    return html`
      <div class="members-head">
        <h2>${say(lang, "members")} <span class="count">${members.length}</span></h2>
        <button class="icon-button" aria-label=${say(lang, "members.hide")}
          @click=${() => intend(this, "members/show", { shown: false })}>${icons.close}</button>
      </div>
      <ul class="list members-list" @keydown=${(event) => moveFocus(event, ".member")}>
        ${repeat(shown, (member) => member.nick, (member, index) => html`<li>${this.#member(member, nick, lang, index)}</li>`)}
      </ul>
      ${members.length > shown.length ? html`<p class="side-empty">${say(lang, "members.more", { n: members.length - shown.length })}</p>` : nothing}`;
  }

  #member({ nick, status, text }, own, lang, index) {
    const you = nick === own;
    const title = you ? nick : say(lang, "member.message", { name: nick });
    return html`
      <button class="member ${status}" title=${title} tabindex=${index === 0 ? 0 : -1}
        @click=${() => intend(this, you ? "dialog" : "direct", you ? { name: "you" } : { nick })}>
        <span class="presence-mark ${status}">${avatar(nick, "small")}</span>
        <span class="member-text">
          <span class="member-name">${nameOf(nick)}${you ? html` <span class="muted">${say(lang, "member.you")}</span>` : nothing}</span>
          ${status === "away" ? html`<span class="member-away" dir="auto">${text || say(lang, "away")}</span>` : nothing}
        </span>
      </button>`;
  }
}

const collator = new Intl.Collator(undefined, { sensitivity: "base", numeric: true });
const rankOf = ({ status }) => (status === "online" ? 0 : 1);

customElements.define("parley-members", Members);
