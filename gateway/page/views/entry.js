import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { isolate, say } from "../words.js";
import { View, intend } from "./view.js";

/** The first screen: one field for the name, unless a token names the user, and one button. */
class Entry extends View {
  template({ lang, nick, room, busy, error, named }) {
    return html`
      <form class="entry" @submit=${this.#submit} novalidate>
        <img class="entry-mark" src="/page/icon.svg" alt="" width="56" height="56">
        <h1>${say(lang, "entry.title")}</h1>
        <p class="muted">${room ? say(lang, "entry.room", { room: isolate(room) }) : say(lang, named ? "entry.named" : "entry.lead")}</p>
        ${named ? nothing : this.#field(lang, nick, error)}
        <p id="entry-error" class="entry-error" role="alert" .textContent=${error ?? ""}></p>
        <button class="button primary" ?disabled=${busy}>${say(lang, busy ? "entry.busy" : "entry.submit")}</button>
      </form>`;
  }

  #field(lang, nick, error) {
    return html`
        <label class="visually-hidden" for="entry-nick">${say(lang, "entry.nick")}</label>
        <input id="entry-nick" class="field" name="nick" autocomplete="nickname" autocapitalize="none" spellcheck="false"
          dir="auto" maxlength="128" autofocus .value=${nick} placeholder=${say(lang, "entry.placeholder")}
          aria-invalid=${error ? "true" : "false"} aria-describedby=${error ? "entry-error" : nothing}>`;
  }

  update(before) {
    super.update(before);
    const field = this.querySelector("input");
    if (!field) return;
    if (!before || before.named || (this.props.error && this.props.error !== before.error)) {
      field.focus();
      field.select();
    }
  }

  #submit = (event) => {
    event.preventDefault();
    const nick = event.target.elements.nick?.value.trim() ?? "";
    if (nick || this.props.named) intend(this, "enter", { nick });
  };
}

customElements.define("parley-entry", Entry);
