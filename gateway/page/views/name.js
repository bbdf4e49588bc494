import { html } from "../vendor/lit-html/lit-html.js";

const HUES = 12;

/** A name whose writing direction does not affect its surroundings. */
export const nameOf = (name) => html`<bdi>${name}</bdi>`;

/** A tile with the first character of a nickname, in a colour that stays with the name. */
export const avatar = (nick, size = "") =>
  html`<span class="avatar ${size} hue-${hueOf(nick)}" aria-hidden="true">${initial(nick)}</span>`;

export function hueOf(nick) {
  let hash = 0;
  for (const character of nick.toLowerCase()) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return hash % HUES;
}

function initial(nick) {
  const [first] = typeof Intl.Segmenter === "function" ? new Intl.Segmenter().segment(nick) : [{ segment: [...nick][0] }];
  return (first?.segment ?? "?").toUpperCase();
}
