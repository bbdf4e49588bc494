import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { parse } from "../text.js";

/** Renders a message body; every part becomes a text node or the text of an element. */
export function bodyOf(body, nick) {
  return parse(body, nick).map(partOf);
}

function partOf({ kind, text, href }) {
  switch (kind) {
    case "link": return html`<a href=${href} target="_blank" rel="noopener noreferrer">${text}</a>`;
    case "code": return html`<code>${text}</code>`;
    case "block": return html`<pre dir="ltr" tabindex="0"><code>${text}</code></pre>`;
    case "mention": return html`<mark class="mention"><bdi>${text}</bdi></mark>`;
    case "text": return text;
    default: return nothing;
  }
}
