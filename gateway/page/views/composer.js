import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { applyOption, complete } from "../complete.js";
import { isolate, say } from "../words.js";
import { icons } from "./icons.js";
import { avatar, nameOf } from "./name.js";
import { View, intend } from "./view.js";

const HISTORY_MAX = 50;

/**
 * The message field with its completion and its earlier inputs. The text belongs to the element: the page reads it as
 * the draft and writes it only when another conversation opens.
 */
class Composer extends View {
  #completion = null;
  #chosen = 0;
  #sent = [];
  #at = null;

  template({ lang, conversation }) {
    const name = conversation.name;
    const label = say(lang, "composer.placeholder", { name: isolate(name) });
    const open = this.#completion !== null;
    return html`
      <form class="composer" @submit=${(event) => { event.preventDefault(); this.#submit(); }}>
        ${open ? this.#optionsTemplate(lang) : nothing}
        <textarea rows="1" dir="auto" aria-label=${label} placeholder=${label} enterkeyhint="send" spellcheck="true"
          aria-autocomplete="list" aria-haspopup="listbox" aria-controls=${open ? "composer-options" : nothing}
          aria-activedescendant=${open ? `composer-option-${this.#chosen}` : nothing}
          @input=${this.#onInput} @keydown=${this.#onKey} @blur=${() => this.#close()}></textarea>
        <button class="send" aria-label=${say(lang, "composer.send")} title=${say(lang, "composer.send")}>${icons.send}</button>
      </form>`;
  }

  #optionsTemplate(lang) {
    return html`<ul class="options" id="composer-options" role="listbox" aria-label=${say(lang, "composer.options")}>
      ${this.#completion.options.map((option, index) => html`
        <li id="composer-option-${index}" role="option" aria-selected=${index === this.#chosen ? "true" : "false"}
          @pointerdown=${(event) => { event.preventDefault(); this.#apply(index); }}>
          ${option.kind === "command"
            ? html`<b>${option.value}</b> <span class="muted">${option.label}</span><span class="option-text">${say(lang, "command." + option.name)}</span>`
            : option.kind === "nick" ? html`${avatar(option.label, "small")}${nameOf(option.label)}` : nameOf(option.label)}
        </li>`)}
    </ul>`;
  }

  update(before) {
    const { conversation } = this.props;
    super.update(before);
    if (before?.conversation.key !== conversation.key) {
      this.#close();
      this.#at = null;
      this.write(this.props.draft(conversation.key));
      this.#focus();
    }
  }

  connectedCallback() {
    addEventListener("focus", this.#adoptDraft);
    this.#focus();
    this.#grow();
  }

  disconnectedCallback() {
    removeEventListener("focus", this.#adoptDraft);
  }

  /** Another tab may have written meanwhile. */
  #adoptDraft = () => {
    const draft = this.props.draft(this.props.conversation.key);
    if (draft !== this.field.value) this.write(draft);
  };

  /** Replaces the text, for example with a draft. */
  write(text, caret = text.length) {
    this.field.value = text;
    this.field.setSelectionRange(caret, caret);
    this.#grow();
  }

  get field() {
    return this.querySelector("textarea");
  }

  #submit() {
    const text = this.field.value;
    if (text.trim() === "") return;
    this.#sent = [...this.#sent.filter((sent) => sent !== text), text].slice(-HISTORY_MAX);
    this.#at = null;
    this.#close();
    this.write("");
    intend(this, "submit", { key: this.props.conversation.key, text, restore: () => this.write(text) });
  }

  #onInput = () => {
    this.#at = null;
    this.#grow();
    const { conversation } = this.props;
    intend(this, "draft", { key: conversation.key, text: this.field.value });
    this.#suggest(false);
  };

  #suggest(tab) {
    const { value, selectionStart } = this.field;
    const { nicks, rooms } = this.props.names();
    this.#completion = complete(value, selectionStart, { nicks, rooms, tab });
    this.#chosen = 0;
    this.refresh();
  }

  #onKey = (event) => {
    if (event.isComposing) return;
    if (this.#completion && this.#onOptionKey(event)) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "Tab" && !event.shiftKey && this.#hasWord()) {
      this.#suggest(true);
      if (this.#completion) event.preventDefault();
      if (this.#completion?.options.length === 1) this.#apply(0);
    } else if (event.key === "ArrowUp" && (this.field.value === "" || this.#at !== null)) {
      this.#recall(event, -1);
    } else if (event.key === "ArrowDown" && this.#at !== null) {
      this.#recall(event, 1);
    }
  };

  /** Keys of the open list of options; returns true if the key is done. */
  #onOptionKey(event) {
    const { length } = this.#completion.options;
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) this.#chosen = (this.#chosen + steps[event.key] + length) % length;
    else if (event.key === "Escape") this.#completion = null;
    else if (event.key === "Tab" || (event.key === "Enter" && !event.shiftKey && !this.#isComplete())) this.#apply(this.#chosen);
    else return false;
    event.preventDefault();
    event.stopPropagation();
    this.refresh();
    return true;
  }

  /** True if the text holds the chosen option already, so Enter sends. */
  #isComplete() {
    const { start, end, options } = this.#completion;
    return this.field.value.slice(start, end).toLowerCase() === options[this.#chosen].value.toLowerCase();
  }

  #apply(index) {
    const { text, caret } = applyOption(this.field.value, this.#completion, this.#completion.options[index]);
    this.write(text, caret);
    this.#close();
    intend(this, "draft", { key: this.props.conversation.key, text });
  }

  #recall(event, step) {
    const next = (this.#at ?? this.#sent.length) + step;
    if (next < 0) return;
    event.preventDefault();
    this.#at = next < this.#sent.length ? next : null;
    this.write(this.#sent[next] ?? "");
    intend(this, "draft", { key: this.props.conversation.key, text: this.field.value });
  }

  #hasWord() {
    const { value, selectionStart } = this.field;
    return selectionStart > 0 && /\S/.test(value[selectionStart - 1]);
  }

  #close() {
    if (!this.#completion) return;
    this.#completion = null;
    this.refresh();
  }

  /** On a phone the focus would open the keyboard. */
  #focus() {
    if (!matchMedia("(pointer: coarse)").matches) this.field.focus();
  }

  #grow() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}

customElements.define("parley-composer", Composer);
