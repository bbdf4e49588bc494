// Reconnects under load: clients in rooms lose their gateway again and again, while all of them send.
//
//   npm run bench [reconnects] [clients]
//
// Prints the time from a lost connection to the resumed session, and counts messages that were lost or doubled and
// calls that were never settled. Exits with 1 unless all three are 0.

import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";
import { Parley } from "../src/parley.js";
import { Cluster, eventually } from "./cluster.js";

const RECONNECTS = Number(process.argv[2] ?? 1_000);
const CLIENTS = Number(process.argv[3] ?? 60);
const ROOMS = 6;
const SEND_EVERY_MS = 500;
/** Longer than the time after which a connection counts as stable. */
const STABLE_MS = 2_500;

const cluster = await Cluster.start(3);
const times = [];
let sent = 0;
let pending = 0;
let refused = 0;

/** A client that sends to its room, and records the messages. */
async function open(i) {
  const client = new Parley(cluster.urls(i % 3), { nick: `user${i}`, WebSocket });
  const member = { client, room: `#room${i % ROOMS}`, bodies: [] };
  const room = await client.join(member.room);
  room.on("message", ({ body }) => member.bodies.push(body));
  client.on("state", (state) => state.name === "online" && times.push(state.tookMs));
  member.send = () => {
    pending += 1;
    sent += 1;
    room.send(`${i} ${sent}`).catch(() => (refused += 1)).finally(() => (pending -= 1));
  };
  return member;
}

try {
  const members = await Promise.all(Array.from({ length: CLIENTS }, (_, i) => open(i)));
  const timers = members.map(({ send }) => setInterval(send, SEND_EVERY_MS));
  const started = performance.now();
  for (let kills = 0; times.length < RECONNECTS; kills += 1) {
    const gateway = cluster.gateways[kills % 3];
    const before = times.length;
    await gateway.kill();
    // The clients of the dead gateway are back on the two that are left.
    await eventually(() => members.every(({ client }) => client.state.name === "online"), 60_000);
    await gateway.start();
    // A connection that is lost at once would count as a failed attempt.
    await sleep(STABLE_MS);
    process.stderr.write(`\r${times.length} reconnects, ${kills + 1} kills, ${times.length - before} at once `);
  }
  timers.forEach(clearInterval);
  await eventually(() => pending === 0, 60_000).catch(() => {});
  const rooms = groupBy(members);
  const total = (count) => members.reduce((sum, member) => sum + count(member), 0);
  await eventually(() => [...rooms.values()].every((all) => new Set(all.map(({ bodies }) => bodies.length)).size === 1), 30_000).catch(() => {});
  const expected = new Map([...rooms].map(([room, all]) => [room, new Set(all.flatMap(({ bodies }) => bodies))]));
  const lost = total(({ room, bodies }) => expected.get(room).size - new Set(bodies).size);
  const doubled = total(({ bodies }) => bodies.length - new Set(bodies).size);
  const unseen = sent - refused - [...expected.values()].reduce((sum, { size }) => sum + size, 0);
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  const result = { reconnects: times.length, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1), sent, refused, lost: lost + unseen, doubled, pending };
  console.log(`\n${JSON.stringify({ ...result, seconds: Math.round((performance.now() - started) / 1000) })}`);
  process.exitCode = result.lost === 0 && doubled === 0 && pending === 0 ? 0 : 1;
  await Promise.all(members.map(({ client }) => client.close()));
} finally {
  await cluster.stop();
}

function groupBy(members) {
  const groups = new Map();
  for (const member of members) groups.set(member.room, [...(groups.get(member.room) ?? []), member]);
  return groups;
}
