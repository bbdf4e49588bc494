import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { readLink } from "../address.js";
import { roomName } from "../commands.js";
import { rank } from "../complete.js";
import { isolate, say } from "../words.js";
import { icons } from "./icons.js";
import { avatar, nameOf } from "./name.js";
import { DialogView, intend } from "./view.js";

const SHOWN_MAX = 12;

/** Finds conversations, people and public rooms, and joins a room by its name. */
class Switcher extends DialogView {
  #typed = "";
  #chosen = 0;

  opened() {
    this.#typed = "";
    this.#chosen = 0;
    this.querySelector("input").value = "";
    this.refresh();
  }

  template({ lang }) {
    const choices = this.#choices();
    const active = choices.length > 0 ? `switcher-${this.#chosen}` : nothing;
    return html`<dialog class="switcher" aria-label=${say(lang, "switcher")}>
      <div class="switcher-field">
        ${icons.search}
        <input role="combobox" aria-expanded="true" aria-controls="switcher-list" aria-autocomplete="list" autofocus
          aria-label=${say(lang, "switcher")} aria-activedescendant=${active} placeholder=${say(lang, "switcher.placeholder")}
          dir="auto" autocapitalize="none" autocomplete="off" spellcheck="false" @input=${this.#onInput} @keydown=${this.#onKey}>
        <button class="icon-button" aria-label=${say(lang, "close")} @click=${() => intend(this, "dialog", { name: null })}>${icons.close}</button>
      </div>
      <ul id="switcher-list" role="listbox" aria-label=${say(lang, "switcher")}>
        ${choices.map((choice, index) => html`
          <li id="switcher-${index}" role="option" aria-selected=${index === this.#chosen ? "true" : "false"}
            @pointermove=${() => this.#choose(index)} @click=${() => this.#take(choice)}>${this.#choiceTemplate(choice, lang)}</li>`)}
      </ul>
      ${choices.length === 0 ? html`<p class="switcher-none muted">${say(lang, "switcher.none")}</p>` : nothing}
      <p class="switcher-keys muted">${say(lang, "switcher.keys")}</p>
    </dialog>`;
  }

  #choiceTemplate({ type, name, count, unread }, lang) {
    const room = name[0] === "#";
    const sign = room ? html`<span class="hash" aria-hidden="true">#</span>` : avatar(name, "small");
    const label = type === "join" ? say(lang, "switcher.join", { name: isolate(name) })
      : type === "direct" ? say(lang, "switcher.message", { name: isolate(name) }) : nameOf(room ? name.slice(1) : name);
    return html`${sign}<span class="choice-name">${label}</span>
      ${unread > 0 ? html`<span class="badge">${unread}</span>` : nothing}
      ${count !== undefined ? html`<span class="muted">${say(lang, "switcher.public", { n: count })}</span>` : nothing}`;
  }

  /**
   * Conversations first, those with unread messages before the others; then public rooms, people and the typed name. A
   * link has one choice.
   */
  #choices() {
    const { order, conversations, current, people, publicRooms } = this.props;
    const typed = this.#typed.trim().replace(/^\uff03/u, "#").replace(/^\uff20/u, "@");
    const link = readLink(typed);
    if (link?.name) return [{ type: link.name[0] === "@" ? "direct" : "join", name: link.name.replace(/^@/, ""), link: typed }];
    const known = new Set(order);
    const names = (list) => rank(list, typed);
    const others = order.filter((key) => key !== current || typed !== "");
    const byUnread = [...others.filter((key) => conversations[key].unread > 0), ...others.filter((key) => conversations[key].unread === 0)];
    const opened = names(byUnread.map((key) => conversations[key].name)).map((name) => ({ type: "open", name }));
    const strangers = typed === "" || typed[0] === "#" ? [] : names(people.filter((nick) => !known.has("@" + nick)));
    const counts = new Map((publicRooms ?? []).map(({ room, memberCount }) => [room, memberCount]));
    const rooms = names([...counts.keys()].filter((room) => !known.has(room)));
    const choices = [
      ...opened.map((choice) => {
        const key = choice.name[0] === "#" ? choice.name : "@" + choice.name;
        return { ...choice, key, unread: conversations[key].unread };
      }),
      ...rooms.map((name) => ({ type: "join", name, count: counts.get(name) })),
      ...strangers.map((name) => ({ type: "direct", name })),
    ].slice(0, SHOWN_MAX);
    const taken = choices.some(({ name }) => name.toLowerCase() === roomName(typed).toLowerCase());
    if (typed !== "" && typed[0] !== "@" && !taken) choices.push({ type: "join", name: roomName(typed) });
    if (typed !== "" && typed[0] !== "#" && !choices.some(({ name }) => name.toLowerCase() === typed.toLowerCase())) {
      choices.push({ type: "direct", name: typed.replace(/^@/, "") });
    }
    return choices;
  }

  #onInput = (event) => {
    this.#typed = event.target.value;
    this.#choose(0);
  };

  #onKey = (event) => {
    const choices = this.#choices();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && choices.length > 0) {
      event.preventDefault();
      this.#choose((this.#chosen + step + choices.length) % choices.length);
      this.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && !event.isComposing && choices[this.#chosen]) {
      event.preventDefault();
      this.#take(choices[this.#chosen]);
    }
  };

  #choose(index) {
    this.#chosen = index;
    this.refresh();
  }

  #take({ type, name, key, link }) {
    intend(this, "dialog", { name: null });
    if (link) intend(this, "join", { name: link });
    else if (type === "open") intend(this, "open", { key });
    else if (type === "join") intend(this, "join", { name });
    else intend(this, "direct", { nick: name });
  }
}

customElements.define("parley-switcher", Switcher);
