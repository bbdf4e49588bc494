import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { actionOf, mentions } from "../text.js";
import { clock, dayName, errorText, fullTime, isolate, nameList, say, seconds } from "../words.js";
import { bodyOf } from "./body.js";
import { icons } from "./icons.js";
import { avatar, hueOf, nameOf } from "./name.js";
import { intend } from "./view.js";

/** Renders one row of the timeline. `context`: `{ lang, nick, conversation, now, element }`. */
export function rowTemplate(row, context) {
  return (rowTemplates[row.kind] ?? (() => nothing))(row, context);
}

const rowTemplates = {
  start: (row, { lang, conversation, secret, element }) => html`
    <li class="row start" data-key="start">
      ${conversation.kind === "room"
        ? html`<h2>${say(lang, "timeline.start", { name: isolate(conversation.name) })}</h2><p class="muted">${say(lang, secret ? "private.lead" : "timeline.lead")}</p>
          ${secret ? html`<button class="button" @click=${() => intend(element, "copy-link", { key: conversation.key })}>${icons.lock}${say(lang, "private.copy")}</button>` : nothing}`
        : html`${avatar(conversation.name, "large")}<h2>${nameOf(conversation.name)}</h2>
          <p class="muted">${say(lang, conversation.isApi ? "direct.api" : "timeline.start.direct", { name: isolate(conversation.name) })}</p>`}
    </li>`,

  day: ({ key, time }, { lang, now }) => html`
    <li class="row day" data-key=${key}><span>${dayName(lang, time, now)}</span></li>`,

  new: (row, { lang }) => html`<li class="row new" data-key="new"><span>${say(lang, "timeline.new")}</span></li>`,

  presence: ({ key, item }, { lang }) => html`
    <li class="row note" data-key=${key}>${presenceText(lang, item)}</li>`,

  gap: ({ key, item }, { lang }) => html`
    <li class="row note warn" data-key=${key}>${icons.alert}${say(lang, "timeline.gap", { n: item.toSeq - item.fromSeq + 1 })}</li>`,

  resumed: ({ key, item }, { lang }) => html`
    <li class="row note cluster" data-key=${key}>${icons.swap}${resumedText(lang, item)}</li>`,

  message: messageTemplate,
};

function messageTemplate({ key, item, first: begins, pending }, context) {
  const { lang, nick, conversation, secret, element } = context;
  const action = actionOf(item.body) !== null;
  const first = begins && !action;
  const sender = () => item.fromApi
    ? html`<span class="by-name">${nameOf(item.from)}</span> <span class="by-api">${say(lang, "message.api")}</span>`
    : html`<button class="by-name hue-${hueOf(item.from)}" tabindex="-1" @click=${() => intend(element, "direct", { nick: item.from })}>${nameOf(item.from)}</button>`;
  const called = !item.own && conversation.kind === "room" && mentions(item.body, nick);
  return html`
    <li class="row message ${first ? "first" : ""} ${called ? "called" : ""} ${pending ?? ""}" data-key=${key} data-seq=${item.seq ?? nothing}>
      ${first
        ? html`<div class="gutter">${avatar(item.from)}</div>`
        : html`<time class="gutter" aria-hidden="true">${clock(lang, item.time)}</time>`}
      <div class="content">
        ${first ? html`<div class="by">
          ${sender()}
          <time datetime=${new Date(item.time).toISOString()} title=${fullTime(lang, item.time)}>${clock(lang, item.time)}</time>
        </div>` : nothing}
        <div class="text ${action ? "action" : ""}" dir="auto">${action ? html`${sender()} ` : nothing}${item.locked
          ? html`<span class="muted locked">${icons.lock}${say(lang, secret ? "private.failed" : "private.locked")}</span>` : bodyOf(item.body, nick)}</div>
        ${pending === "failed" ? failedTemplate(item, context) : nothing}
      </div>
      ${markTemplate(item, pending, context)}
    </li>`;
}

function failedTemplate({ key, code, reason }, { lang, conversation, element }) {
  return html`<div class="failure" role="group">
    ${icons.alert}<span>${say(lang, "message.failed", { reason: errorText(lang, { code, message: reason }, conversation.name) })}</span>
    <button class="text-button" @click=${() => intend(element, "retry", { key: conversation.key, id: key })}>${say(lang, "message.retry")}</button>
    <button class="text-button" @click=${() => intend(element, "discard", { key: conversation.key, id: key })}>${say(lang, "message.delete")}</button>
  </div>`;
}

/** State of an own message: a clock while it is sent, and ticks in a direct conversation. */
function markTemplate({ ticks, own }, pending, { lang, conversation }) {
  const mark = (icon, text, kind) => html`<span class="mark ${kind}" role="img" aria-label=${text} title=${text}>${icon}</span>`;
  if (pending === "pending") return mark(icons.clock, say(lang, "message.pending"), "waiting");
  if (!own || conversation.kind !== "direct" || pending === "failed") return nothing;
  if (ticks === "delivered") return mark(icons.checks, say(lang, "message.delivered"), "delivered");
  return mark(icons.check, say(lang, "message.sent", { name: isolate(conversation.name) }), "sent");
}

function presenceText(lang, { joined, left, renamed }) {
  const texts = [];
  if (joined.length > 0) texts.push(say(lang, "presence.joined", { names: nameList(lang, joined) }));
  if (left.length > 0) texts.push(say(lang, "presence.left", { names: nameList(lang, left) }));
  for (const { from, to } of renamed) texts.push(say(lang, "presence.renamed", { from: isolate(from), to: isolate(to) }));
  return texts.join(" · ");
}

function resumedText(lang, { from, to, tookMs, whole }) {
  if (!whole) return say(lang, "resumed.fresh", { to });
  return say(lang, from === to ? "resumed.same" : "resumed.moved", { from, to, seconds: seconds(lang, tookMs) });
}
