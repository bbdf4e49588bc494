import { html } from "../vendor/lit-html/lit-html.js";
import { COMMANDS } from "../commands.js";
import { say } from "../words.js";
import { icons } from "./icons.js";
import { DialogView, intend } from "./view.js";

const KEYS = [
  ["Ctrl K", "key.switcher"], ["Alt A", "key.unread"], ["Shift Enter", "key.line"], ["Tab", "key.complete"],
  ["↑", "key.history"], ["Esc", "key.escape"],
];

/** The list of commands and keys. */
class Help extends DialogView {
  template({ lang }) {
    return html`<dialog class="sheet" aria-labelledby="help-title">
      <div class="sheet-head">
        <h2 id="help-title">${say(lang, "help")}</h2>
        <button class="icon-button" aria-label=${say(lang, "close")} @click=${() => intend(this, "dialog", { name: null })}>${icons.close}</button>
      </div>
      <h3>${say(lang, "help.commands")}</h3>
      <dl class="pairs">${COMMANDS.map(({ name, args }) => html`
        <div><dt><code>/${name}</code> <span class="muted">${args}</span></dt><dd>${say(lang, "command." + name)}</dd></div>`)}</dl>
      <h3>${say(lang, "help.keys")}</h3>
      <dl class="pairs">${KEYS.map(([key, word]) => html`
        <div><dt>${key.split(" ").map((part) => html`<kbd>${part}</kbd> `)}</dt><dd>${say(lang, word)}</dd></div>`)}</dl>
      <p class="muted">${say(lang, "help.format")}</p>
    </dialog>`;
  }
}

customElements.define("parley-help", Help);
