import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { isolate, say } from "../words.js";
import { icons } from "./icons.js";
import { DialogView, intend } from "./view.js";

/** Own name, status and settings. */
class You extends DialogView {
  template({ lang, nick, named, status, sound, notify, link, pingMs }) {
    return html`<dialog class="sheet" aria-labelledby="you-title">
      <div class="sheet-head">
        <h2 id="you-title">${say(lang, "you")}</h2>
        <button class="icon-button" aria-label=${say(lang, "close")} @click=${() => intend(this, "dialog", { name: null })}>${icons.close}</button>
      </div>
      ${named ? html`<div class="line"><span>${say(lang, "you.nick")}</span><span>${isolate(nick)}</span></div>`
        : html`<form class="line" @submit=${this.#rename}>
        <label for="you-nick">${say(lang, "you.nick")}</label>
        <input id="you-nick" class="field" name="nick" dir="auto" maxlength="128" autocomplete="off" spellcheck="false" .value=${nick}>
        <button class="button">${say(lang, "you.rename")}</button>
      </form>`}
      <form class="line" @submit=${this.#saveStatus}>
        <label for="you-status">${say(lang, "you.status")}</label>
        <select id="you-status" class="field" name="status">
          ${["online", "away"].map((value) => html`<option value=${value} ?selected=${status.status === value}>${say(lang, value)}</option>`)}
        </select>
        <input class="field wide" name="text" dir="auto" maxlength="80" aria-label=${say(lang, "you.away")}
          placeholder=${say(lang, "you.away")} .value=${status.text}>
        <button class="button">${say(lang, "you.save")}</button>
      </form>
      <div class="line">
        <label for="you-language">${say(lang, "you.language")}</label>
        <select id="you-language" class="field" @change=${(event) => intend(this, "prefs", { prefs: { lang: event.target.value } })}>
          <option value="en" lang="en" ?selected=${lang === "en"}>English</option>
          <option value="zh" lang="zh" ?selected=${lang === "zh"}>中文</option>
        </select>
      </div>
      <div class="line">
        <span>${say(lang, "you.notify")}</span>
        ${notify === "default"
          ? html`<button class="button" @click=${() => intend(this, "notify")}>${say(lang, "you.notify.ask")}</button>`
          : html`<span class="muted">${say(lang, notify === "granted" ? "you.notify.on" : "you.notify.off")}</span>`}
      </div>
      <label class="line">
        <span>${say(lang, "you.sound")}</span>
        <input type="checkbox" class="switch" .checked=${sound} @change=${(event) => intend(this, "prefs", { prefs: { sound: event.target.checked } })}>
      </label>
      <div class="line">
        <span>${say(lang, "you.connection")}</span>
        <span class="muted">${link.name === "online" ? say(lang, "link.label", { node: link.node }) : say(lang, "offline")}${
          link.name === "online" && pingMs !== null ? " · " + say(lang, "link.ping", { n: Math.max(1, Math.round(pingMs)) }) : nothing}</span>
      </div>
      ${named ? nothing : html`<button class="button quiet" @click=${() => intend(this, "sign-out")}>${icons.leave}${say(lang, "you.leave")}</button>`}
    </dialog>`;
  }

  #rename = (event) => {
    event.preventDefault();
    intend(this, "rename", { nick: event.target.elements.nick.value.trim() });
  };

  #saveStatus = (event) => {
    event.preventDefault();
    const { status, text } = event.target.elements;
    intend(this, "status", { status: status.value, text: text.value.trim() });
  };
}

customElements.define("parley-you", You);
