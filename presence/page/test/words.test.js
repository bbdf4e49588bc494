import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { LANGUAGES, chooseLanguage, duration, eventText, say } from "../words.js";

const plain = (text) => text.replace(/[\u2068\u2069]/g, "");

test("every language has every text with the same parameters", () => {
  const parameters = (text) => [...new Set(JSON.stringify(text).match(/\{\w+\}/g) ?? [])].sort();
  const { en, ...others } = LANGUAGES;
  for (const texts of Object.values(others)) {
    assert.deepEqual(Object.keys(texts), Object.keys(en));
    for (const key of Object.keys(en)) assert.deepEqual(parameters(texts[key]), parameters(en[key]), key);
  }
});

test("the page starts with the English texts", () => {
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8");
  const marked = [...html.matchAll(/data-text="([^"]+)">([^<]*)</g)];
  assert.ok(marked.length > 5);
  for (const [, key, text] of marked) assert.equal(text, LANGUAGES.en[key]);
});

test("the first known preference is the language", () => {
  assert.equal(chooseLanguage(["fr-FR", "zh-Hans-CN", "en"]), "zh");
  assert.equal(chooseLanguage(["fr"]), "en");
  assert.equal(chooseLanguage([]), "en");
});

test("counted things have their plural", () => {
  assert.equal(say("en", "room.members", { n: 1 }), "1 member");
  assert.equal(say("en", "room.members", { n: 1234 }), "1,234 members");
  assert.equal(say("zh", "room.members", { n: 1 }), "1 位成员");
});

test("durations have one unit", () => {
  assert.deepEqual([-5, 59_999, 60_000, 7_300_000].map((time) => duration("en", time)), ["0 s", "59 s", "1 min", "2 h"]);
});

test("events are sentences with a reason", () => {
  const sentence = (event, lang = "en") => plain(eventText(lang, event));
  assert.equal(sentence({ kind: "join", nick: "ann", room: "#lobby" }), "ann joined #lobby");
  assert.equal(sentence({ kind: "leave", nick: "ann", room: "#lobby", reason: "left" }), "ann left #lobby");
  assert.equal(sentence({ kind: "offline", nick: "ann", reason: "gateway_lost" }), "ann went offline (gateway lost)");
  assert.equal(sentence({ kind: "rename", from: "ann", to: "anna" }), "ann is now anna");
  assert.equal(sentence({ kind: "gap", id: "gap-1", time: 1 }), "Some events are missing here.");
  assert.equal(sentence({ kind: "offline", nick: "ann", reason: "timeout" }, "zh"), "ann 下线（超时）");
});

test("names stand isolated in sentences", () => {
  assert.ok(eventText("en", { kind: "online", nick: "\u05d0" }).startsWith("\u2068\u05d0\u2069"));
});
