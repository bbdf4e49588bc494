// Stories of clients on a cluster of real gateways and a real Redis.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { WebSocketServer } from "ws";
import { Cluster, eventually } from "./cluster.js";
import { MemoryStorage, Proxy, bodiesOf, clientsOf, isOnline, range, rejectsWith } from "./helpers.js";

let cluster;
before(async () => { cluster = await Cluster.start(3); });
after(() => cluster.stop());

test("clients on two gateways talk", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  const annsRoom = await ann.join("#talk");
  const bobsRoom = await bob.join("#TALK");
  const heard = bodiesOf(bobsRoom);
  await eventually(() => annsRoom.members.has("bob"));
  const ack = await annsRoom.send({ text: "hi" });
  assert.deepEqual([ack.seq, ack.duplicate, ack.delivered], [1, false, null]);
  await eventually(() => heard.length === 1);
  assert.deepEqual(heard, [{ text: "hi" }]);
  assert.equal(bobsRoom.name, "#talk");
  assert.equal(bobsRoom.unread, 1);
  bobsRoom.read();
  assert.deepEqual([bobsRoom.unread, bobsRoom.readSeq], [0, 1]);

  const typing = [];
  bobsRoom.on("typing", ({ from }) => typing.push(from));
  annsRoom.typing();
  await eventually(() => typing.includes("ann"));
  await bob.status("away", "lunch");
  await eventually(() => annsRoom.members.get("bob").text === "lunch");
  await bob.rename("robert");
  await eventually(() => annsRoom.members.has("robert") && !annsRoom.members.has("bob"));
  assert.equal(bob.nick, "robert");
  assert((await ann.rooms()).items.some(({ room, memberCount }) => room === "#talk" && memberCount === 2));
  assert((await ann.ping()) >= 0);
  await bobsRoom.leave();
  await eventually(() => !annsRoom.members.has("robert"));
  assert.equal(bob.joined.size, 0);
});

test("direct messages reach the other side", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  await isOnline(bob);
  const [sent, received] = [[], []];
  ann.on("direct", (message) => sent.push(message));
  bob.on("direct", (message) => received.push(message));
  const ack = await ann.direct("bob").send("psst");
  assert.deepEqual([ack.seq, ack.delivered], [null, "online"]);
  await eventually(() => received.length === 1);
  assert.deepEqual([sent[0].own, sent[0].seq, sent[0].to], [true, null, "bob"]);
  assert.deepEqual([received[0].own, received[0].from, received[0].body], [false, "ann", "psst"]);
  const conversation = bob.direct("ANN");
  assert.equal(conversation, bob.direct("ann"));
  assert.equal(conversation.unread, 1);
  conversation.read();
  assert.equal(conversation.unread, 0);
  await rejectsWith(ann.direct("nobody-yet").send("psst"), "no_such_user");
});

test("join loads history before new messages", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  const annsRoom = await ann.join("#old");
  await Promise.all(range(0, 20).map((i) => annsRoom.send(i)));
  const room = await bob.join("#old", { history: 5 });
  const heard = bodiesOf(room);
  assert.deepEqual(room.recent.map(({ body }) => body), range(15, 20));
  await annsRoom.send(20);
  await eventually(() => heard.length === 1);
  const { items, more } = await room.history({ before: 16, limit: 10 });
  assert.deepEqual([items.map(({ body }) => body), more], [range(5, 15), true]);
  const again = await bob.join("#old", { history: 2 });
  assert.equal(again, room);
  assert.deepEqual(room.recent.map(({ body }) => body), [19, 20]);
});

test("gateway dies while both send", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  const rooms = await Promise.all([ann.join("#kill"), bob.join("#kill")]);
  const heard = rooms.map(bodiesOf);
  const acks = [];
  const states = [];
  ann.on("state", (state) => states.push(state));
  for (const i of range(0, 200)) {
    acks.push(rooms[i % 2].send(i));
    if (i === 100) cluster.gateways[0].signal("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await Promise.all(acks);
  await eventually(() => heard.every((bodies) => bodies.length === 200));
  for (const bodies of heard) assert.deepEqual([...bodies].sort((a, b) => a - b), range(0, 200));
  assert.deepEqual(heard[0], heard[1]);
  const back = states.find(({ name }) => name === "online");
  assert(back.resumed);
  t.diagnostic(`back after ${back.tookMs} ms`);
  await cluster.gateways[0].start();
});

test("gateways restart one after another", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  const rooms = await Promise.all([ann.join("#roll"), bob.join("#roll")]);
  const heard = rooms.map(bodiesOf);
  const left = [];
  rooms[1].on("members", (event) => left.push(...event.left));
  let sent = 0;
  const acks = [];
  const timer = setInterval(() => acks.push(rooms[sent % 2].send(sent++)), 10);
  t.after(() => clearInterval(timer));
  for (const gateway of cluster.gateways.slice(0, 2)) {
    gateway.signal("SIGTERM");
    await gateway.ended;
    await gateway.start();
  }
  clearInterval(timer);
  await Promise.all(acks);
  await eventually(() => heard.every((bodies) => bodies.length === sent));
  for (const bodies of heard) assert.deepEqual([...bodies].sort((a, b) => a - b), range(0, sent));
  assert.deepEqual(left, []);
  t.diagnostic(`${sent} messages`);
});

test("calls wait while Redis is away", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  const rooms = await Promise.all([ann.join("#away"), bob.join("#away")]);
  const heard = rooms.map(bodiesOf);
  await cluster.redis.pause();
  const acks = range(0, 10).map((i) => rooms[0].send(i));
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  cluster.redis.signal("SIGCONT");
  await Promise.all(acks);
  await eventually(() => heard.every((bodies) => bodies.length === 10));
  assert.deepEqual(heard, [range(0, 10), range(0, 10)]);
});

test("kick rejects every pending call", async (t) => {
  const open = clientsOf(t);
  const proxy = await Proxy.start(cluster.urls(0)[0]);
  t.after(() => proxy.stop());
  const ann = open(proxy.url, { nick: "ann" });
  const room = await ann.join("#kick");
  const iteration = (async () => { for await (const _ of room) assert.fail("no message was sent"); })();
  proxy.isHolding = true;
  const calls = [room.send("one"), room.send("two"), room.history(), room.leave(), ann.rooms(), ann.ping(), ann.rename("anna")];
  const settled = Promise.all(calls.map((call) => rejectsWith(call, "kicked")));
  await cluster.ctl("kick", "ann");
  await settled;
  assert.deepEqual(ann.state, { name: "offline", reason: "kicked", message: null, willRetry: false, inMs: null });
  await rejectsWith(room.send("late"), "kicked");
  await rejectsWith(ann.rename("anna"), "kicked");
  await iteration;
});

test("second client with the token takes over", async (t) => {
  const open = clientsOf(t);
  const storage = new MemoryStorage();
  const first = open(cluster.urls(0), { nick: "ann", storage });
  const room = await first.join("#over");
  await room.send("one");
  await eventually(() => room.seq === 1);
  const second = open(cluster.urls(1), { nick: "ann", storage });
  const again = await second.join("#over", { history: 10 });
  await eventually(() => first.state.reason === "taken_over");
  await rejectsWith(room.send("late"), "taken_over");
  assert.deepEqual([second.state.resumed, second.state.rooms], [true, ["#over"]]);
  assert.deepEqual(again.recent.map(({ body }) => body), ["one"]);
});

test("reload loses and doubles no message", async (t) => {
  const open = clientsOf(t);
  const storage = new MemoryStorage();
  const bob = open(cluster.urls(1), { nick: "bob" });
  const bobsRoom = await bob.join("#load");
  const before = open(cluster.urls(0), { nick: "ann", storage });
  const old = await before.join("#load");
  const heard = bodiesOf(old);
  await bobsRoom.send("one");
  await bob.direct("ann").send("psst one");
  await eventually(() => heard.length === 1 && before.direct("bob").unread === 1);
  // The page goes away: its socket closes, and it runs no more code.
  const snapshot = new MemoryStorage();
  for (const key of ["parley:session", "parley:read:#load", "parley:read:bob"]) snapshot.setItem(key, storage.getItem(key));
  await bobsRoom.send("two");
  await bob.direct("ann").send("psst two");
  const later = open(cluster.urls(2), { nick: "ann", storage: snapshot });
  const directs = [];
  later.on("direct", ({ body }) => directs.push(body));
  const room = await later.join("#load", { history: 10 });
  const more = bodiesOf(room);
  await eventually(() => more.length === 1 && directs.length === 1);
  assert.deepEqual([room.recent.map(({ body }) => body), more, directs], [["one"], ["two"], ["psst two"]]);
  assert.deepEqual([room.unread, later.direct("bob").unread], [2, 2]);
  later.direct("bob").read();
  assert.equal(later.direct("bob").unread, 0);
});

test("stopped gateway is abandoned after wake", async (t) => {
  // As in a browser, which reports that the network is back.
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  t.after(() => delete globalThis.addEventListener);
  const ann = clientsOf(t)(cluster.urls(0), { nick: "ann" });
  const room = await ann.join("#halfopen");
  const heard = bodiesOf(room);
  const stopped = Date.now();
  await cluster.gateways[0].pause();
  t.after(() => cluster.gateways[0].signal("SIGCONT"));
  const ack = room.send("kept");
  page.dispatchEvent(new Event("online"));
  await ack;
  await eventually(() => heard.length === 1);
  assert.equal(ann.state.resumed, true);
  assert(Date.now() - stopped < 10_000);
  t.diagnostic(`back after ${ann.state.tookMs} ms`);
});

test("own messages stay own after a rename", async (t) => {
  const open = clientsOf(t);
  const storage = new MemoryStorage();
  const ann = open(cluster.urls(0), { nick: "ann", storage });
  const room = await ann.join("#own");
  for (const body of [0, 1]) await room.send(body);
  await ann.rename("anna");
  await room.send(2);
  // Another user takes the nickname that is free now.
  const eve = open(cluster.urls(1), { nick: "eve" });
  const evesRoom = await eve.join("#own");
  await eve.rename("ann");
  await evesRoom.send(3);
  const expected = [["ann", true], ["ann", true], ["anna", true], ["ann", false]];
  const isOwn = ({ items }) => items.map(({ from, own }) => [from, own]);
  assert.deepEqual(isOwn(await room.history()), expected);
  // The next page load, with the new nickname.
  const reloaded = open(cluster.urls(0), { nick: "anna", storage });
  assert.deepEqual(isOwn(await (await reloaded.join("#own")).history()), expected);
});

test("nickname in use is refused", async (t) => {
  const open = clientsOf(t);
  const ann = open(cluster.urls(0), { nick: "ann" });
  await isOnline(ann);
  const other = open(cluster.urls(1), { nick: "ANN" });
  const waiting = other.join("#wait");
  await rejectsWith(waiting, "nick_in_use");
  const message = "this nickname is in use";
  assert.deepEqual(other.state, { name: "offline", reason: "nick_in_use", message, willRetry: false, inMs: null });
  await assert.rejects(waiting, { message });
  await rejectsWith(other.join("#wait"), "nick_in_use");
  await other.rename("annie");
  assert.equal(other.state.name, "online");
  assert.equal((await other.join("#wait")).members.size, 1);
});

test("frames of a hostile server are ignored", async (t) => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  t.after(() => server.close());
  await once(server, "listening");
  const frames = ["", "null", "7", "[]", "{", '{"type":7}', '{"type":"message"}', '{"type":"message","to":5,"seq":1}',
    '{"type":"message","to":"#r","from":"x","seq":-1,"msg_id":"x"}', '{"type":"presence","room":{}}', '{"type":"error"}',
    '{"type":"joined","id":99}', '{"type":"registered","id":1}', '{"type":"rewound","to":"#r"}', '{"type":"typing","to":[]}',
    '{"type":"error","code":5}', '{"type":"going_away"}', '{"type":"presence","room":"#r","left":7}', "\u0000"];
  let received = 0;
  server.on("connection", (socket) => {
    socket.on("message", () => { received += 1; });
    for (const frame of frames) socket.send(frame);
    socket.send(Buffer.from([1, 2, 3]));
    socket.on("message", () => frames.forEach((frame) => socket.send(frame)));
  });
  const client = clientsOf(t)(`ws://127.0.0.1:${server.address().port}`, { nick: "ann" });
  const errors = [];
  client.on("error", (error) => errors.push(error));
  await eventually(() => received > 0);
  // A frame that is not ignored would end the session, or throw.
  for (const socket of server.clients) socket.close(4003, "kicked");
  await eventually(() => client.state.reason === "kicked");
  assert.deepEqual(errors, []);
});

test("listener that throws disturbs no other", async (t) => {
  const ann = clientsOf(t)(cluster.urls(0), { nick: "ann" });
  const errors = [];
  ann.on("error", (error) => errors.push(error.message));
  const room = await ann.join("#throw");
  room.on("message", () => { throw new Error("mine"); });
  const heard = bodiesOf(room);
  await room.send(1);
  await eventually(() => heard.length === 1);
  assert.deepEqual(errors, ["mine"]);
});

test("aborted calls reject with their reason", async (t) => {
  const ann = clientsOf(t)("ws://127.0.0.1:9/ws", { nick: "ann" });
  const controller = new AbortController();
  const call = ann.join("#never", { signal: controller.signal });
  controller.abort(new Error("enough"));
  await assert.rejects(call, /enough/);
  await assert.rejects(ann.join("#never", { signal: controller.signal }), /enough/);
  const closed = ann.join("#never");
  ann.close();
  await rejectsWith(closed, "closed");
});

test("messages too large are refused at once", async (t) => {
  const ann = clientsOf(t)(cluster.urls(0), { nick: "ann" });
  const room = await ann.join("#large");
  await rejectsWith(room.send("x".repeat(70_000)), "too_large");
  await rejectsWith(room.send(undefined), "bad_request");
  await assert.rejects(room.send(10n), TypeError);
  let deep = 1;
  for (let i = 0; i < 40; i += 1) deep = [deep];
  await rejectsWith(room.send(deep), "bad_request");
  assert.equal((await room.send("after")).seq, 1);
});
