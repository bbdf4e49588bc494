/**
 * Rows of the timeline, derived from one conversation: date lines, the line of new messages, and messages in groups.
 * Pure; `dayOf` names the local day of a time.
 */
import { actionOf } from "./text.js";

/** Messages of one sender within this time form a group under one name. */
const GROUP_MS = 5 * 60 * 1000;

/** Returns rows `{ key, kind, item?, first? }`, oldest first. */
export function rowsOf(conversation, dayOf) {
  const rows = conversation.atStart ? [{ key: "start", kind: "start" }] : [];
  let day = null;
  let before = null;
  let marked = conversation.newAfter === null;
  for (const item of conversation.items) {
    const today = item.time ? dayOf(item.time) : day;
    if (today !== day && item.kind === "message") {
      rows.push({ key: `day-${item.id}`, kind: "day", time: item.time });
      day = today;
      before = null;
    }
    if (!marked && item.kind === "message" && item.seq > conversation.newAfter) {
      rows.push({ key: "new", kind: "new" });
      marked = true;
      before = null;
    }
    rows.push({ key: item.id, kind: item.kind, item, first: !continues(before, item) });
    before = item;
  }
  if (conversation.atEnd) rows.push(...pendingRows(conversation, before));
  return rows;
}

function pendingRows({ pending }, last) {
  let before = last?.own ? last : null;
  return pending.map((entry) => {
    const item = { ...entry, kind: "message", own: true, time: entry.time, seq: null };
    const row = { key: entry.key, kind: "message", item, first: !before || isAction(before), pending: entry.status };
    before = item;
    return row;
  });
}

/** An action names its sender itself, so it is no part of a group. */
function continues(before, item) {
  return before?.kind === "message" && item.kind === "message" && before.from === item.from && before.fromApi === item.fromApi
    && item.time - before.time < GROUP_MS && !isAction(before) && !isAction(item);
}

function isAction({ body }) {
  return actionOf(body) !== null;
}
