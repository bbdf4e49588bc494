import { render } from "../vendor/lit-html/lit-html.js";

/**
 * An element that renders a template of its `props` into itself. It renders only if a prop changed by identity.
 */
export class View extends HTMLElement {
  #props = null;

  get props() {
    return this.#props;
  }

  set props(next) {
    const before = this.#props;
    if (before && sameFields(before, next)) return;
    this.#props = next;
    this.update(before);
  }

  /** Renders; a subclass adds the work around it. `before` holds the props of the last time, or `null`. */
  update() {
    this.refresh();
  }

  refresh() {
    render(this.template(this.#props), this);
  }
}

/** A modal dialog that is open while the prop `open` is true. The browser returns the focus when it closes. */
export class DialogView extends View {
  update(before) {
    if (!this.props.open && !before?.open) return;
    this.refresh();
    const dialog = this.querySelector("dialog");
    if (this.props.open && !dialog.open) {
      dialog.showModal();
      this.opened?.();
    } else if (!this.props.open && dialog.open) {
      dialog.close();
    }
  }

  connectedCallback() {
    this.addEventListener("close", () => this.props.open && intend(this, "dialog", { name: null }), true);
    this.addEventListener("pointerdown", (event) => {
      if (event.target.localName === "dialog") event.target.close();
    });
  }
}

/** Reports what the user wants to do; `app.js` does it. */
export function intend(element, type, detail = {}) {
  element.dispatchEvent(new CustomEvent("intent", { bubbles: true, detail: { ...detail, type } }));
}

/** Moves the focus in a list with the arrow keys, Home and End. */
export function moveFocus(event, selector) {
  const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  const items = [...event.currentTarget.querySelectorAll(selector)];
  const at = items.indexOf(event.target.closest(selector));
  if (at < 0) return;
  event.preventDefault();
  items[Math.max(0, Math.min(items.length - 1, at + steps[event.key]))].focus();
}

function sameFields(a, b) {
  const keys = Object.keys(b);
  return keys.length === Object.keys(a).length && keys.every((key) => Object.is(a[key], b[key]));
}
