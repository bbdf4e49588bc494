import assert from "node:assert/strict";
import { test } from "node:test";
import { createConversation } from "../conversation.js";
import { rowsOf } from "../rows.js";

const DAY = 86_400_000;
const dayOf = (time) => Math.floor(time / DAY);
const message = (seq, fields = {}) => ({ kind: "message", id: `m${seq}`, seq, from: "bob", time: seq * 1000, body: "x", own: false, ...fields });
const rows = (items, fields = {}) => rowsOf({ ...createConversation("#lobby", "#lobby"), items, ...fields }, dayOf);
const kinds = (list) => list.map(({ kind, first }) => (kind === "message" && !first ? "grouped" : kind));

test("messages of one sender form a group", () => {
  const list = rows([message(1), message(2), message(3, { from: "eve" }), message(4), message(400)]);
  assert.deepEqual(kinds(list), ["day", "message", "grouped", "message", "message", "message"]);
});

test("an application and a user form two groups", () => {
  const list = rows([message(1), message(2, { fromApi: true }), message(3, { fromApi: true }), message(4)]);
  assert.deepEqual(kinds(list), ["day", "message", "message", "grouped", "message"]);
});

test("each day begins with a line", () => {
  const list = rows([message(1), message(2, { time: DAY + 1 })]);
  assert.deepEqual(kinds(list), ["day", "message", "day", "message"]);
  assert.deepEqual(list.filter(({ kind }) => kind === "day").map(({ key }) => key), ["day-m1", "day-m2"]);
});

test("the line of new messages comes once", () => {
  const list = rows([message(1), message(2), message(3)], { newAfter: 1 });
  assert.deepEqual(kinds(list), ["day", "message", "new", "message", "grouped"]);
});

test("notes end a group of messages", () => {
  const list = rows([message(1), { kind: "presence", id: "n1", time: 1500, joined: ["eve"], left: [], renamed: [] }, message(2)]);
  assert.deepEqual(kinds(list), ["day", "message", "presence", "message"]);
});

test("actions stand outside of groups", () => {
  const action = message(2, { body: { me: "waves" } });
  assert.deepEqual(rows([message(1), action, message(3), message(4)]).slice(1).map(({ first }) => first), [true, true, true, false]);
  const entry = { from: "ann", time: 9, status: "pending" };
  const pending = [{ ...entry, key: "k1", body: { me: "waves" } }, { ...entry, key: "k2", body: "b" }];
  assert.deepEqual(rows([message(1, { own: true })], { pending }).slice(2).map(({ first }) => first), [false, true]);
});

test("pending messages come last and grouped", () => {
  const pending = [{ key: "k1", from: "ann", body: "a", time: 9, status: "pending" }, { key: "k2", from: "ann", body: "b", time: 9, status: "failed" }];
  const list = rows([message(1)], { pending });
  assert.deepEqual(kinds(list), ["day", "message", "message", "grouped"]);
  assert.deepEqual(list.map(({ pending: status }) => status), [undefined, undefined, "pending", "failed"]);
  assert.deepEqual(rows([message(1)], { pending, atEnd: false }).length, 2);
});

test("the beginning is shown when it is loaded", () => {
  assert.equal(rows([message(1)], { atStart: true })[0].kind, "start");
});

test("every row has a key of its own", () => {
  const list = rows([message(1), message(2, { time: DAY }), message(3, { time: DAY + 9 })], { newAfter: 1, atStart: true });
  assert.equal(new Set(list.map(({ key }) => key)).size, list.length);
});
