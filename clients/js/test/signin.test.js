// Users with tokens on a real cluster. The tokens live for 8 seconds, so a test sees several of them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster, eventually } from "./cluster.js";
import { AUTH, MemoryStorage, bodiesOf, clientsOf, isOnline, range, rejectsWith, tokenOf } from "./helpers.js";

let cluster;
before(async () => { cluster = await Cluster.start(2, AUTH); });
after(() => cluster.stop());

const SHORT = 3;
const LONG = 600;

/** Sends numbers to a room, one after another, until `isDone`. Returns how many. */
async function talk(room, isDone) {
  let sent = 0;
  while (!isDone()) {
    await room.send(sent);
    sent += 1;
  }
  return sent;
}

test("two refreshes lose and double no message", async (t) => {
  const open = clientsOf(t);
  const tokens = [];
  const getToken = async () => {
    tokens.push(tokenOf("user:1", SHORT, { nick: "Ann" }));
    return tokens.at(-1);
  };
  const storage = new MemoryStorage();
  const written = [];
  const setItem = storage.setItem.bind(storage);
  storage.setItem = (key, value) => (written.push(value), setItem(key, value));
  const ann = open(cluster.urls(0), { getToken, storage });
  const bob = open(cluster.urls(1), { nick: "bob", token: tokenOf("user:2", LONG) });
  const states = [];
  ann.on("state", ({ name }) => states.push(name));
  const rooms = await Promise.all([ann.join("#refresh"), bob.join("#refresh")]);
  assert.deepEqual([ann.nick, ann.state.user, bob.state.user], ["Ann", "user:1", "user:2"]);
  const heard = rooms.map(bodiesOf);
  const sent = await talk(rooms[1], () => tokens.length >= 4);
  await rooms[0].send("last");
  await eventually(() => heard.every((bodies) => bodies.at(-1) === "last"));
  for (const bodies of heard) assert.deepEqual(bodies, [...range(0, sent), "last"]);
  assert.deepEqual(states, ["connecting", "online"], "one connection for all tokens");
  assert(!tokens.some((token) => written.join().includes(token.split(".")[2])), "a token is not stored");
  t.diagnostic(`${sent} messages, ${tokens.length} tokens`);
});

test("missed refresh ends in a resume without loss", async (t) => {
  const open = clientsOf(t);
  let asks = 0;
  const hung = [];
  const getToken = async ({ signal }) => {
    asks += 1;
    if (asks === 2) return new Promise(() => { hung.push(signal); });
    return tokenOf("user:1", asks === 1 ? SHORT : LONG);
  };
  const ann = open(cluster.urls(0), { nick: "ann", getToken });
  const bob = open(cluster.urls(1), { nick: "bob", token: tokenOf("user:2", LONG) });
  const states = [];
  const rooms = await Promise.all([ann.join("#late"), bob.join("#late")]);
  ann.on("state", (state) => states.push(state));
  const heard = rooms.map(bodiesOf);
  const left = [];
  rooms[1].on("members", (event) => left.push(...event.left));
  const sent = await talk(rooms[1], () => states.at(-1)?.name === "online");
  await eventually(() => heard.every((bodies) => bodies.length === sent));
  for (const bodies of heard) assert.deepEqual(bodies, range(0, sent));
  assert.deepEqual([states.map(({ name }) => name), states[1].resumed], [["resuming", "online"], true]);
  assert.deepEqual([asks, hung[0].aborted, left], [3, true, []]);
});

test("refused tokens end with a clear error", async (t) => {
  const open = clientsOf(t);
  let asks = 0;
  const getToken = async () => tokenOf("user:3", LONG, { number: (asks += 1) }, "not the secret of the gateways, but one as long");
  const eve = open(cluster.urls(), { nick: "eve", getToken });
  await rejectsWith(eve.join("#never"), "token_invalid");
  assert.deepEqual([eve.state.willRetry, asks], [false, 2]);
  const guest = open(cluster.urls(), { nick: "guest", getToken: async () => null });
  await rejectsWith(guest.join("#never"), "token_required");
  const outdated = open(cluster.urls(), { nick: "old", token: tokenOf("user:4", -60) });
  await rejectsWith(outdated.join("#never"), "token_expired");
});

test("another user does not continue a session", async (t) => {
  const open = clientsOf(t);
  const storage = new MemoryStorage();
  const one = open(cluster.urls(), { nick: "uno", storage, token: tokenOf("user:5", LONG) });
  await (await one.join("#mine")).send("hi");
  const copy = new MemoryStorage();
  copy.setItem("parley:session", storage.getItem("parley:session"));
  const two = open(cluster.urls(1), { nick: "duo", storage: copy, getToken: async () => tokenOf("user:6", LONG) });
  await isOnline(two);
  assert.deepEqual([two.state.resumed, two.state.user, one.state.name], [false, "user:6", "online"]);
});

test("close ends a client that waits for a token", async () => {
  const { Parley } = await import("../src/parley.js");
  const { default: WebSocket } = await import("ws");
  const signals = [];
  const client = new Parley(cluster.urls(), { WebSocket, getToken: ({ signal }) => new Promise(() => signals.push(signal)) });
  const call = client.join("#never");
  await eventually(() => signals.length === 1);
  await Promise.all([client.close(), rejectsWith(call, "closed")]);
  assert.deepEqual([signals[0].aborted, client.state.reason], [true, "closed"]);
});
