// A client of the fault bench, which starts it, writes commands to its stdin and reads events from its stdout, each as a
// line of JSON. tests/chaos/crowd/library.rs describes them.

import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Parley } from "../src/parley.js";

const report = (event, values) => process.stdout.write(`${JSON.stringify({ event, ...values })}\n`);

async function send(room, key) {
  try {
    const { id, seq } = await room.send(key, { key });
    report("acked", { room: room.name, key, id, seq });
  } catch ({ code }) {
    report("refused", { key, code });
  }
}

const { urls, nick, rooms: names } = JSON.parse(process.argv[2]);
const chat = new Parley(urls, { nick, WebSocket });
chat.on("state", ({ name, node, resumed, reason }) => report("state", { name, node, resumed, reason }));

const rooms = {};
for (const name of names) {
  const room = (rooms[name] = await chat.join(name));
  report("joined", { room: name, seq: room.readSeq });
  room.on("message", ({ id, from, seq, body }) => report("message", { room: name, id, from, seq, key: body }));
  room.on("gap", ({ fromSeq, toSeq }) => report("gap", { room: name, from: fromSeq, to: toSeq }));
  room.on("rewind", ({ seq }) => report("rewind", { room: name, seq }));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { room, key } = JSON.parse(line);
  send(rooms[room], key);
}
await chat.close();
