import assert from "node:assert/strict";
import { test } from "node:test";
import { applyOption, complete, rank } from "../complete.js";

const nicks = ["bob", "Berta", "ann"];
const rooms = ["#lobby", "#lab"];
const values = (text, options = {}) => complete(text, text.length, { nicks, rooms, ...options })?.options.map(({ value }) => value) ?? null;

test("a slash at the start lists commands", () => {
  assert.deepEqual(values("/m"), ["/msg", "/me"]);
  assert.equal(values("a /m"), null);
});

test("an at sign lists nicknames in order", () => {
  assert.deepEqual(values("hi @b"), ["@bob", "@Berta"]);
  assert.deepEqual(values("hi @"), ["@bob", "@Berta", "@ann"]);
});

test("a number sign lists other rooms", () => {
  assert.deepEqual(values("see #l"), ["#lobby", "#lab"]);
  assert.deepEqual(values("see #lab"), null);
});

test("a bare word is completed with tab only", () => {
  assert.equal(values("be"), null);
  assert.deepEqual(values("be", { tab: true }), ["@Berta"]);
  assert.deepEqual(values("/msg be", { tab: true }), ["Berta"]);
});

test("only the word at the caret counts", () => {
  assert.equal(complete("@bob and", 8, { nicks }), null);
  assert.deepEqual(complete("@b and", 2, { nicks }).options.length, 2);
});

test("an applied option keeps the rest", () => {
  const completion = complete("hi @be, you", 6, { nicks });
  assert.deepEqual(applyOption("hi @be, you", completion, completion.options[0]), { text: "hi @Berta , you", caret: 10 });
  const atEnd = complete("@an", 3, { nicks });
  assert.deepEqual(applyOption("@an", atEnd, atEnd.options[0]), { text: "@ann ", caret: 5 });
});

test("ranking puts beginnings before parts", () => {
  assert.deepEqual(rank(["#the-lab", "#lab", "#x"], "lab"), ["#lab", "#the-lab"]);
  assert.deepEqual(rank(["b", "a"], ""), ["b", "a"]);
});
