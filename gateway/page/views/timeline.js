import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { guard } from "../vendor/lit-html/directives/guard.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { rowsOf } from "../rows.js";
import { dayOf, isolate, say } from "../words.js";
import { icons } from "./icons.js";
import { rowTemplate } from "./row.js";
import { View, intend } from "./view.js";

/** Distance to the end within which the list follows new messages. */
const END_PX = 48;
/** Smallest height of a row, from which the number of rendered rows follows. */
const ROW_PX = 24;
const PLACE_MS = 200;

/**
 * The messages of one conversation. Only the rows around the viewport are in the document. The row at the top of the
 * viewport, the anchor, keeps its place through every change; at the end the list follows new messages instead.
 */
class Timeline extends View {
  #rows = [];
  #slice = [0, 0];
  #following = true;
  #anchor = null;
  #frame = 0;
  /** True if a scroll began or ended following the newest messages, which the button shows. */
  #isTurned = false;
  #placeTimer = 0;
  #observer = new ResizeObserver(() => this.#settle());

  template({ lang, conversation }) {
    const shown = this.#rows.slice(...this.#slice);
    const { nick, now } = this.props;
    const context = { ...this.props, element: this };
    const keyOf = (row) => row.key;
    const templateOf = (row) => guard([row.item, row.first, row.pending, row.time, lang, nick, now, conversation.name], () => rowTemplate(row, context));
    return html`
      <div class="scroller" tabindex="0" role="region" aria-label=${say(lang, "timeline", { name: isolate(conversation.name) })}
        @scroll=${this.#onScroll}>
        ${conversation.loading === "older" ? html`<p class="loading">${say(lang, "timeline.loading")}</p>` : nothing}
        <ol class="rows">${repeat(shown, keyOf, templateOf)}</ol>
      </div>
      ${this.#jumpTemplate()}`;
  }

  #jumpTemplate() {
    const { lang, conversation } = this.props;
    if (this.#following && conversation.atEnd) return nothing;
    const { unread } = conversation;
    return html`<button class="jump-latest ${unread > 0 ? "unread" : ""}" @click=${() => intend(this, "latest")}>
      ${icons.down}<span>${unread > 0 ? say(lang, "timeline.latest.count", { n: unread }) : say(lang, "timeline.latest")}</span>
    </button>`;
  }

  connectedCallback() {
    document.addEventListener("visibilitychange", this.#settle);
    addEventListener("focus", this.#settle);
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#settle);
    removeEventListener("focus", this.#settle);
    this.#observer.disconnect();
  }

  update(before) {
    const { conversation } = this.props;
    const { jump } = conversation;
    const other = before?.conversation.key !== conversation.key;
    if (other) this.#following = true;
    else if (!this.#following) this.#anchor = this.#readAnchor() ?? this.#anchor;
    this.#rows = rowsOf(conversation, dayOf);
    if (jump && (other || jump !== before.conversation.jump)) this.#jump(jump);
    else if (other) this.#openAt(conversation);
    this.#render();
    if (other) this.#observe();
  }

  /** Opens at the line of new messages, otherwise at the end. */
  #openAt({ newAfter }) {
    if (newAfter === null || !this.#rows.some((row) => row.key === "new")) return;
    this.#following = false;
    this.#anchor = { key: "new", offset: Math.round(this.clientHeight / 4) };
  }

  /** Goes to a row, or to the end if there is no such row. */
  #jump({ id, offset }) {
    this.#following = !this.#rows.some((row) => row.key === id);
    this.#anchor = this.#following ? null : { key: id, offset };
  }

  #render() {
    this.#slice = this.#chooseSlice();
    this.refresh();
    this.#restore();
    this.#report();
  }

  #chooseSlice() {
    const { length } = this.#rows;
    const reach = Math.ceil((this.clientHeight || innerHeight) / ROW_PX) + 20;
    if (this.#following) return [Math.max(0, length - 2 * reach), length];
    const at = this.#rows.findIndex((row) => row.key === this.#anchor?.key);
    // The anchor is gone, for example a line of joins whose members left again.
    if (at < 0) return this.#slice.map((index) => Math.min(index, length));
    return [Math.max(0, at - reach), Math.min(length, at + 2 * reach)];
  }

  #restore() {
    const scroller = this.#scroller;
    if (this.#following) {
      scroller.scrollTop = scroller.scrollHeight;
      return;
    }
    const element = this.#elementOf(this.#anchor?.key);
    if (!element) return;
    const moved = element.getBoundingClientRect().top - scroller.getBoundingClientRect().top - this.#anchor.offset;
    if (Math.abs(moved) >= 1) scroller.scrollTop += moved;
    this.#following = this.#isAtEnd();
  }

  /** Reads the place at once: a change that is drawn in this frame must not move the reader back. */
  #onScroll = () => {
    const followed = this.#following;
    this.#following = this.#isAtEnd();
    this.#anchor = this.#readAnchor();
    if (followed !== this.#following) this.#isTurned = true;
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.isConnected) return;
      if (this.#needsRows()) this.#render();
      else {
        if (this.#isTurned) this.refresh();
        this.#report();
      }
      this.#isTurned = false;
    });
  };

  /** Keeps the place after a change of size, and reports what is visible. */
  #settle = () => {
    if (!this.isConnected || !this.props) return;
    this.#restore();
    this.#report();
  };

  #needsRows() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const [from, to] = this.#slice;
    const above = scrollTop < clientHeight && from > 0;
    const below = scrollHeight - scrollTop - clientHeight < clientHeight && to < this.#rows.length;
    return above || below;
  }

  /** Reports what is read, and asks for history near the ends of what is loaded. */
  #report() {
    const { conversation, attentive } = this.props;
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const [from, to] = this.#slice;
    intend(this, "pinned", { pinned: this.#following });
    if (!conversation.loading) {
      if (from === 0 && scrollTop < 2 * clientHeight && !conversation.atStart) intend(this, "history", { side: "older" });
      const rest = scrollHeight - scrollTop - clientHeight;
      if (to === this.#rows.length && rest < 2 * clientHeight && !conversation.atEnd) intend(this, "history", { side: "newer" });
    }
    if (attentive && document.visibilityState === "visible") this.#reportSeen();
    clearTimeout(this.#placeTimer);
    this.#placeTimer = setTimeout(() => this.#reportPlace(), PLACE_MS);
  }

  #reportSeen() {
    const { conversation } = this.props;
    const bottom = this.#scroller.getBoundingClientRect().bottom;
    const rows = [...this.querySelectorAll("li[data-seq]")];
    const seen = this.#following ? rows.at(-1) : rows.findLast((row) => row.getBoundingClientRect().bottom <= bottom + 8);
    const seq = Number(seen?.dataset.seq ?? 0);
    if (seq > conversation.readSeq) intend(this, "seen", { key: conversation.key, seq });
  }

  #reportPlace() {
    if (!this.isConnected) return;
    const { key } = this.props.conversation;
    const row = this.#anchor && this.#rows.find((candidate) => candidate.key === this.#anchor.key);
    const place = this.#following || !row?.item?.seq ? null : { id: row.key, seq: row.item.seq, offset: this.#anchor.offset };
    intend(this, "place", { key, place });
  }

  #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return this.#slice[1] === this.#rows.length && scrollHeight - scrollTop - clientHeight < END_PX;
  }

  /** The first visible item, with the distance of its top from the top of the list. Lines between items may move. */
  #readAnchor() {
    const scroller = this.#scroller;
    const list = scroller?.querySelector(".rows");
    if (!list) return null;
    const top = scroller.getBoundingClientRect().top;
    let [low, high] = [0, list.children.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list.children[middle].getBoundingClientRect().bottom <= top) low = middle + 1;
      else high = middle;
    }
    let row = list.children[low];
    while (row?.matches(".day, .new, .start")) row = row.nextElementSibling;
    return row ? { key: row.dataset.key, offset: Math.round(row.getBoundingClientRect().top - top) } : null;
  }

  #observe() {
    this.#observer.disconnect();
    this.#observer.observe(this.#scroller);
    this.#observer.observe(this.querySelector(".rows"));
  }

  #elementOf(key) {
    return key ? this.querySelector(`li[data-key="${CSS.escape(key)}"]`) : null;
  }

  get #scroller() {
    return this.querySelector(".scroller");
  }
}

customElements.define("parley-timeline", Timeline);
