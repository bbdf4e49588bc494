import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { COMMANDS } from "../commands.js";
import { chooseLanguage, dayName, errorText, isolate, LANGUAGES, nameList, say, seconds } from "../words.js";

const parameters = (entry) => [...new Set(JSON.stringify(entry).match(/\{\w+\}/g) ?? [])].sort();
const page = new URL("../", import.meta.url);
const sources = [page, new URL("views/", page)]
  .flatMap((folder) => readdirSync(folder).filter((name) => name.endsWith(".js") && !name.startsWith("words-")).map((name) => readFileSync(new URL(name, folder), "utf8")))
  .join("\n");

test("every text exists in both languages", () => {
  assert.deepEqual(Object.keys(LANGUAGES.zh), Object.keys(LANGUAGES.en));
});

test("both languages take the same parameters", () => {
  for (const key of Object.keys(LANGUAGES.en)) assert.deepEqual(parameters(LANGUAGES.zh[key]), parameters(LANGUAGES.en[key]), key);
});

test("every text is used by the page", () => {
  const unused = Object.keys(LANGUAGES.en).filter((key) => !/^(command|error)\./.test(key) && !sources.includes(`"${key}"`));
  assert.deepEqual(unused, []);
});

test("every key in the page has a text", () => {
  const keys = [...sources.matchAll(/say\(\w+, "([\w.]+)"/g)].map(([, key]) => key).filter((key) => !key.endsWith("."));
  assert.ok(keys.length > 40);
  assert.deepEqual(keys.filter((key) => !(key in LANGUAGES.en)), []);
});

test("every command has a text", () => {
  for (const { name } of COMMANDS) assert.ok(say("en", `command.${name}`));
});

test("numbers choose the plural form", () => {
  assert.equal(say("en", "members.count", { n: 1 }), "1 member");
  assert.equal(say("en", "members.count", { n: 1200 }), "1,200 members");
  assert.equal(say("zh", "members.count", { n: 1 }), "1 位成员");
});

test("long lists of names are counted", () => {
  const plain = (text) => text.replace(/[\u2068\u2069]/g, "");
  assert.equal(plain(nameList("en", ["ann", "bob"])), "ann and bob");
  assert.equal(plain(nameList("en", ["ann", "bob", "cat", "dan", "eve"])), "ann, bob and 3 others");
  assert.equal(plain(nameList("zh", ["安", "博"])), "安和博");
});

test("names in sentences are isolated", () => {
  assert.equal(isolate("שלום"), "\u2068שלום\u2069");
  assert.match(nameList("en", ["a\u202eb"]), /\u2068a\u202eb\u2069/);
});

test("a parameter is never a template itself", () => {
  assert.equal(say("en", "presence.renamed", { from: "{to}", to: "b" }), "{to} is now b");
});

test("days have names near today", () => {
  const now = new Date(2026, 10, 29, 12).getTime();
  assert.equal(dayName("en", now, now), "Today");
  assert.equal(dayName("en", new Date(2026, 10, 28, 23).getTime(), now), "Yesterday");
  assert.equal(dayName("en", new Date(2026, 10, 20, 1).getTime(), now), "Friday, November 20");
  assert.equal(dayName("zh", new Date(2025, 10, 20, 1).getTime(), now), "2025年11月20日星期四");
});

test("the language follows the browser", () => {
  assert.equal(chooseLanguage(["fr", "zh-TW", "en"]), "zh");
  assert.equal(chooseLanguage(["fr"]), "en");
});

test("durations have one decimal below ten", () => {
  assert.equal(seconds("en", 240), "0.2");
  assert.equal(seconds("en", 12_400), "12");
});

test("refusals have a text for people", () => {
  assert.match(errorText("en", { code: "no_such_user", message: "x" }, "bob"), /bob/);
  assert.match(errorText("en", { code: "strange", message: "odd thing" }), /odd thing/);
  // The library itself ends calls with these, without a message.
  for (const code of ["outcome_unknown", "closed", "kicked", "taken_over"]) {
    for (const lang of Object.keys(LANGUAGES)) assert.doesNotMatch(errorText(lang, { code, message: code }), /_|kicked|closed/);
  }
});
