// Repeats every message of a room, those that it missed too. Usage: node echo_bot.js URL ROOM

import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { Parley } from "parley-chat";

// Before Node 22 there is no global one: npm install ws
const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;

const fileOf = (key) => `${encodeURIComponent(key)}.json`;
const storage = {
  getItem: (key) => readFileSync(fileOf(key), "utf8"),
  setItem(key, value) {
    writeFileSync("part.json", value);
    renameSync("part.json", fileOf(key));
  },
  removeItem: (key) => rmSync(fileOf(key)),
};

const [url, name] = process.argv.slice(2);
const chat = new Parley(url, { nick: "echo-bot-js", storage, name: "echo-bot", WebSocket });
const room = await chat.join(name);
console.log(`in ${room.name}`);
for await (const { id, body, own } of room) {
  if (!own) await room.send(body, { key: `echo-${id}` });
}
console.log("session ended:", chat.state);
