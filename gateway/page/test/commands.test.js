import assert from "node:assert/strict";
import { test } from "node:test";
import { COMMANDS, readInput, roomName, targetOf } from "../commands.js";

test("plain text is a message", () => {
  assert.deepEqual(readInput("hello /join"), { kind: "text", text: "hello /join" });
});

test("two slashes send a text with one", () => {
  assert.deepEqual(readInput("//etc/hosts"), { kind: "text", text: "/etc/hosts" });
});

test("several lines are always a message", () => {
  assert.deepEqual(readInput("/etc\n/usr"), { kind: "text", text: "/etc\n/usr" });
});

test("commands are read with their arguments", () => {
  assert.deepEqual(readInput("/JOIN  kitchen "), { kind: "command", name: "join", args: ["kitchen"] });
  assert.deepEqual(readInput("/msg bob  come closer "), { kind: "command", name: "msg", args: ["bob", "come closer"] });
  assert.deepEqual(readInput("/me waves at  bob"), { kind: "command", name: "me", args: ["waves at  bob"] });
  assert.deepEqual(readInput("/away"), { kind: "command", name: "away", args: [] });
  assert.deepEqual(readInput("/away out for lunch"), { kind: "command", name: "away", args: ["out for lunch"] });
});

test("a missing argument shows the usage", () => {
  assert.deepEqual(readInput("/msg bob"), { kind: "error", word: "command.usage", params: { usage: "/msg nick text" } });
  assert.equal(readInput("/join").kind, "error");
});

test("an unknown command is refused", () => {
  assert.deepEqual(readInput("/dance now"), { kind: "error", word: "command.unknown", params: { name: "/dance" } });
  assert.equal(readInput("/").kind, "error");
});

test("command names differ from each other", () => {
  assert.equal(new Set(COMMANDS.map(({ name }) => name)).size, COMMANDS.length);
});

test("a room name gets its sign", () => {
  assert.deepEqual([" lobby", "#lobby", "＃lobby", ""].map(roomName), ["#lobby", "#lobby", "#lobby", ""]);
});

test("a target is a room or a nickname", () => {
  assert.deepEqual(["bob", "@bob", "＠bob", " bob "].map(targetOf), ["@bob", "@bob", "@bob", "@bob"]);
  assert.deepEqual(["#lobby", "＃lobby"].map(targetOf), ["#lobby", "#lobby"]);
  assert.deepEqual(["@", "", " "].map(targetOf), [null, null, null]);
});
