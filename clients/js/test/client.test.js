// The client of an application on a scripted server: what is hard to provoke on a real one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Members } from "../src/members.js";
import { Parley } from "../src/parley.js";
import { Store } from "../src/store.js";
import { eventually } from "./cluster.js";
import { MemoryStorage } from "./helpers.js";

const message = (seq, id = `m${seq}`, from = "bob") => ({ type: "message", to: "#r", from, msg_id: id, seq, time: 0, body: id });

/** Opens a client whose server is this test: `push` sends it a frame, `handlers` answer its requests by type. */
function scripted(options, handlers = {}) {
  const server = { sockets: [], requests: [] };
  const answers = {
    register: () => ({ type: "registered", nick: "ann", session: "s", resume: "t", rooms: [], inbox: { epoch: "i", seq: 0 }, heartbeat_ms: 30_000, node: "g1" }),
    join: () => ({ type: "joined", room: "#r", epoch: "e", seq: 5, member_count: 1, recovered: false }),
    members: () => ({ type: "members", items: [{ nick: "ann", status: "online" }], next_cursor: null }),
    ping: () => ({ type: "pong" }),
    ...handlers,
  };
  class WebSocket {
    readyState = 1;

    constructor() {
      server.sockets.push(this);
      queueMicrotask(() => this.onopen());
    }

    send(text) {
      const request = JSON.parse(text);
      server.requests.push(request);
      if (request.type === "bye") return queueMicrotask(() => this.onclose({ code: 1000, reason: "bye" }));
      const reply = answers[request.type]?.(request);
      if (reply) queueMicrotask(() => this.onmessage({ data: JSON.stringify({ ...reply, id: request.id }) }));
    }

    close() {}
  }
  server.push = (...frames) => frames.forEach((frame) => server.sockets.at(-1).onmessage({ data: JSON.stringify(frame) }));
  const client = new Parley("ws://test", { nick: "ann", WebSocket, ...options });
  return { client, server };
}

test("rewind discards, and repeated messages are marked", async (t) => {
  const { client, server } = scripted();
  t.after(() => client.close());
  const room = await client.join("#r");
  const events = [];
  room.on("message", ({ id, seq, repeated }) => events.push([id, seq, repeated]));
  room.on("rewind", ({ seq }) => events.push(["rewind", seq]));
  room.on("gap", ({ fromSeq, toSeq }) => events.push(["gap", fromSeq, toSeq]));
  const once = [];
  const iteration = (async () => { for await (const { id } of room) once.push(id); })();
  await eventually(() => room.seq === 5);
  server.push(message(6), message(7), { type: "rewound", to: "#r", epoch: "f", seq: 6 }, message(7, "new"), message(8, "m7"));
  server.push({ type: "gap", to: "#r", from_seq: 9, to_seq: 11 }, message(12));
  await eventually(() => events.length === 7);
  assert.deepEqual(events, [
    ["m6", 6, false], ["m7", 7, false], ["rewind", 6], ["new", 7, false], ["m7", 8, true], ["gap", 9, 11], ["m12", 12, false],
  ]);
  assert.deepEqual([room.unread, room.seq], [4, 12]);
  server.push({ type: "left", room: "#r" });
  await Promise.all([room.leave({ signal: AbortSignal.timeout(1) }).catch(() => {}), client.close()]);
  await iteration;
  assert.deepEqual(once, ["m6", "m7", "new", "m12"]);
});

test("message of the application is never own", async (t) => {
  const items = [{ ...message(4, "m4", "ann"), from_api: true }, message(5, "m5", "ann")];
  const { client, server } = scripted({}, { history: () => ({ type: "history", to: "#r", items, more: false }) });
  t.after(() => client.close());
  const room = await client.join("#r", { history: 2 });
  const seen = ({ id, own, fromApi }) => [id, own, fromApi];
  assert.deepEqual(room.recent.map(seen), [["m4", false, true], ["m5", true, undefined]]);
  const [messages, directs] = [[], []];
  room.on("message", (received) => messages.push(seen(received)));
  client.on("direct", (received) => directs.push(seen(received)));
  client.direct("bob").on("message", ({ id }) => directs.push(["bob", id]));
  await eventually(() => room.seq === 5);
  await new Promise((resolve) => setTimeout(resolve));
  server.push({ ...message(6, "m6", "ann"), from_api: true }, message(7, "m7", "ann"));
  const direct = (seq, from) => ({ ...message(seq, `d${seq}`, from), to: "ann" });
  server.push({ ...direct(1, "ann"), from_api: true }, { ...direct(2, "bob"), from_api: true }, direct(3, "bob"));
  assert.deepEqual(messages, [["m6", false, true], ["m7", true, undefined]]);
  assert.equal(room.unread, 1);
  assert.deepEqual(directs, [["d1", false, true], ["d2", false, true], ["bob", "d3"], ["d3", false, undefined]]);
  assert.equal(client.direct("bob").unread, 1, "an answer would reach bob");
});

test("room that the application lets the session enter is joined", async (t) => {
  const { client, server } = scripted({}, { whois: () => ({ type: "whois", nick: "bob", online: false }) });
  t.after(() => client.close());
  const entered = [];
  client.on("joined", (name) => entered.push(name));
  await client.whois("bob");
  const joined = { type: "joined", room: "#hall", epoch: "e1", seq: 3, member_count: 2 };
  server.push(joined, joined);
  assert.deepEqual(entered, ["#hall"]);
  const room = await client.join("#hall");
  const ids = [];
  room.on("message", ({ id }) => ids.push(id));
  server.push({ ...message(4), to: "#hall" });
  await eventually(() => ids.length === 1);
});

test("announcement is an event and answers nothing", async (t) => {
  const { client, server } = scripted({}, { whois: () => null });
  t.after(() => client.close());
  const announced = [];
  client.on("announcement", (announcement) => announced.push(announcement));
  const asked = client.whois("bob").then(() => "answered", ({ code }) => code);
  await eventually(() => server.requests.some(({ type }) => type === "whois"));
  const { id } = server.requests.find(({ type }) => type === "whois");
  server.push({ type: "announcement", msg_id: "a1", body: { at: 12 }, time: 7, more: true });
  server.push({ type: "announcement", msg_id: "a1", body: { at: 12 }, time: 7 }, { type: "announcement", msg_id: id, body: null, time: 8 });
  server.push({ type: "news of a later version", id: "a2", room: 7 }, { type: "news of a later version", to: null });
  assert.deepEqual(announced, [{ id: "a1", body: { at: 12 }, time: 7 }, { id, body: null, time: 8 }]);
  await client.close();
  assert.equal(await asked, "closed");
});

test("messages wait for listeners after join", async (t) => {
  const { client, server } = scripted({}, {
    // The first messages arrive before the reply that lists the members.
    members: () => (server.push(message(6), message(7)), { type: "members", items: [], next_cursor: null }),
  });
  t.after(() => client.close());
  const room = await client.join("#r");
  await Promise.resolve();
  const ids = [];
  room.on("message", ({ id }) => ids.push(id));
  await eventually(() => ids.length === 2);
  assert.deepEqual(ids, ["m6", "m7"]);
});

test("a partly read room counts the rest", async (t) => {
  const storage = new MemoryStorage();
  const { client, server } = scripted({ storage });
  t.after(() => client.close());
  const room = await client.join("#r");
  const marks = [];
  room.on("read", (mark) => marks.push(mark));
  await eventually(() => room.readSeq === 5);
  await new Promise((resolve) => setTimeout(resolve));
  server.push(message(6), message(7, "own", "ann"), message(8), message(9));
  assert.equal(room.unread, 3);
  room.read(8);
  assert.deepEqual(marks.at(-1), { unread: 1, readSeq: 8 });
  room.read(7);
  assert.equal(room.readSeq, 8);
  room.draft = "not yet";
  const later = scripted({ storage, name: "parley" });
  t.after(() => later.client.close());
  const again = await later.client.join("#r");
  assert.deepEqual([again.unread, again.readSeq, again.draft], [1, 8, "not yet"]);
  again.read();
  assert.equal(again.unread, 0);
  again.draft = "";
  assert.equal(storage.getItem("parley:draft:#r"), null);
});

test("members are loaded again after a reconnect", async (t) => {
  let items = [{ nick: "ann", status: "online" }];
  const { client, server } = scripted({}, { members: () => ({ type: "members", items, next_cursor: null }) });
  t.after(() => client.close());
  const room = await client.join("#r");
  items = [{ nick: "ann", status: "online" }, { nick: "zoe", status: "away", text: "tea" }];
  const reloads = [];
  room.on("members", ({ resync }) => resync && reloads.push([...room.members.keys()]));
  server.sockets.at(-1).onclose({ code: 1006, reason: "" });
  await eventually(() => reloads.length === 1);
  assert.deepEqual(reloads, [["ann", "zoe"]]);
  server.push({ type: "presence", room: "#r", resync: true });
  await eventually(() => reloads.length === 2);
});

test("presence lists apply in protocol order", () => {
  const events = [];
  const members = new Members(() => ({ items: [], next_cursor: null }), (event) => events.push(event));
  members.apply({ joined: [{ nick: "joe", status: "online" }, { nick: "eve", status: "online" }] });
  members.apply({
    joined: [{ nick: "joe", status: "away", text: "new joe" }],
    left: [{ nick: "eve", reason: "closed" }],
    renamed: [{ from: "joe", to: "joey" }],
    status: [{ nick: "joey", status: "away", text: "lunch" }],
  });
  assert.deepEqual([...members.map.values()], [
    { nick: "joey", status: "away", text: "lunch" },
    { nick: "joe", status: "away", text: "new joe" },
  ]);
  assert.deepEqual(events[1].left, [{ nick: "eve", reason: "closed" }]);
});

test("changes during a load apply after it", async () => {
  const pages = [];
  const members = new Members(() => new Promise((resolve) => pages.push(resolve)), () => {});
  const first = members.load();
  members.apply({ left: [{ nick: "eve", reason: "left" }], joined: [{ nick: "bob", status: "online" }] });
  pages[0]({ items: [{ nick: "eve", status: "online" }], next_cursor: "more" });
  await eventually(() => pages.length === 2);
  members.apply({ renamed: [{ from: "ann", to: "anna" }] });
  const second = members.load();
  const atFirst = first.then(() => [...members.map.keys()]);
  members.apply({ joined: [{ nick: "zoe", status: "online" }] });
  pages[1]({ items: [{ nick: "ann", status: "online" }], next_cursor: null });
  await new Promise((resolve) => setTimeout(resolve));
  pages[2]({ items: ["bob", "anna", "cat"].map((nick) => ({ nick, status: "online" })), next_cursor: null });
  await second;
  assert.deepEqual([...members.map.keys()], ["bob", "anna", "cat", "zoe"]);
  assert.deepEqual(await atFirst, ["bob", "anna", "cat", "zoe"]);
});

test("storage that throws is replaced by memory", async (t) => {
  const refuse = () => { throw new Error("QuotaExceededError"); };
  const storage = { getItem: refuse, setItem: refuse, removeItem: refuse };
  const store = new Store(storage, "x");
  store.put("a", { b: 1 });
  assert.deepEqual([store.get("a"), store.get("b")], [{ b: 1 }, null]);
  store.put("a", null);
  assert.equal(store.get("a"), null);
  const { client } = scripted({ storage });
  t.after(() => client.close());
  const room = await client.join("#r");
  room.draft = "kept";
  assert.equal(room.draft, "kept");
});

test("full storage keeps the newest values", () => {
  const items = new Map([["x:draft", '"old"']]);
  const refuse = () => { throw new Error("QuotaExceededError"); };
  const store = new Store({ getItem: (key) => items.get(key), setItem: refuse, removeItem: (key) => items.delete(key) }, "x");
  assert.equal(store.get("draft"), "old");
  store.put("draft", "new");
  assert.equal(store.get("draft"), "new");
  store.put("draft", null);
  assert.equal(store.get("draft"), null);
});

test("damaged read mark is ignored", { timeout: 10_000 }, async (t) => {
  for (const damaged of ["5", "{}", '["a",-1,null]', "[]"]) {
    const storage = new MemoryStorage();
    storage.setItem("parley:read:#r", damaged);
    const { client } = scripted({ storage });
    t.after(() => client.close());
    const room = await client.join("#r");
    assert.deepEqual([room.unread, room.readSeq], [0, room.seq], damaged);
  }
});

test("room names are no nicknames", { timeout: 10_000 }, async (t) => {
  const { client } = scripted();
  t.after(() => client.close());
  for (const name of ["#r", "＃r"]) assert.throws(() => client.direct(name), { name: "ParleyError", code: "bad_nick" });
  assert.equal((await client.join("#r")).name, "#r");
});

test("malformed presence is reported and harmless", async (t) => {
  const { client, server } = scripted();
  t.after(() => client.close());
  const errors = [];
  client.on("error", (error) => errors.push(error));
  const room = await client.join("#r");
  await new Promise((resolve) => setTimeout(resolve));
  server.push({ type: "presence", room: "#r", left: 7 }, message(6));
  await eventually(() => room.seq === 6);
  assert.equal(errors.length, 1);
});

test("error listener that throws goes to the console", async (t) => {
  const { client } = scripted();
  t.after(() => client.close());
  const lines = t.mock.method(console, "error", () => {});
  client.on("error", () => { throw new Error("mine too"); });
  client.on("state", () => { throw new Error("mine"); });
  await eventually(() => client.state.name === "online");
  assert(lines.mock.calls.some(({ arguments: [error] }) => error.message === "mine too"));
});

test("retry ends the wait for the next attempt", async (t) => {
  const { client, server } = scripted();
  t.after(() => client.close());
  await client.ping();
  server.sockets[0].onclose({ code: 1006, reason: "" });
  assert.equal(server.sockets.length, 1);
  client.retry();
  assert.equal(server.sockets.length, 2);
  client.retry();
  assert.equal(server.sockets.length, 2);
  await eventually(() => client.state.name === "online");
});

test("network and sight end the wait too", async (t) => {
  const [page, document] = [new EventTarget(), Object.assign(new EventTarget(), { visibilityState: "hidden" })];
  Object.assign(globalThis, { addEventListener: page.addEventListener.bind(page), document });
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.document;
  });
  const { client, server } = scripted();
  for (const [i, [target, type, visibilityState, attempts]] of [
    [page, "online", "hidden", 1], [document, "visibilitychange", "hidden", 0], [document, "visibilitychange", "visible", 1],
  ].entries()) {
    await eventually(() => client.state.name === "online");
    const { length } = server.sockets;
    server.sockets.at(-1).onclose({ code: 1006, reason: "" });
    document.visibilityState = visibilityState;
    target.dispatchEvent(new Event(type));
    assert.equal(server.sockets.length, length + attempts, `event ${i}`);
  }
  await client.close();
  const { length } = server.sockets;
  page.dispatchEvent(new Event("online"));
  assert.equal(server.sockets.length, length);
});

test("close resolves after the last state", async () => {
  const { client } = scripted();
  await client.ping();
  const states = [];
  client.on("state", ({ name, reason }) => states.push([name, reason]));
  const call = client.rooms();
  await Promise.all([client.close(), client.close(), assert.rejects(call, { code: "closed" })]);
  assert.deepEqual(states, [["offline", "closed"]]);
  await client.close();
});

test("call of ping measures the time", async (t) => {
  const { client } = scripted();
  t.after(() => client.close());
  assert.equal(client.pingMs, null);
  assert.equal(await client.ping(), client.pingMs);
  assert(client.pingMs >= 0);
});

test("user and rooms have their documented fields", async (t) => {
  const { client } = scripted({}, {
    whois: ({ nick }) => ({
      bob: { type: "whois", nick: "Bob", online: true, status: "away", text: "tea" },
      gone: { type: "whois", nick: "gone", online: false },
    })[nick] ?? { type: "error", code: "no_such_user", message: "this nickname is not known" },
    rooms: ({ limit, cursor }) => ({ type: "rooms", items: [{ room: "#r", member_count: limit }], next_cursor: cursor ?? null }),
  });
  t.after(() => client.close());
  assert.deepEqual(await client.whois("gone"), { nick: "gone", online: false, status: "away", text: "" });
  assert.deepEqual(await client.whois("bob"), { nick: "Bob", online: true, status: "away", text: "tea" });
  await assert.rejects(client.whois("eve"), { name: "ParleyError", code: "no_such_user", retryAfterMs: null });
  assert.deepEqual(await client.rooms({ limit: 3, cursor: "c" }), { items: [{ room: "#r", memberCount: 3 }], nextCursor: "c" });
});

test("own direct message of two acks shows once", async (t) => {
  const { client } = scripted({}, { send: ({ to }) => ({ type: "ack", to, msg_id: "d1", delivered: "online", time: 0, duplicate: true }) });
  t.after(() => client.close());
  const [all, bobs] = [[], []];
  client.on("direct", ({ id, own }) => all.push([id, own]));
  const bob = client.direct("bob");
  bob.on("message", ({ id, own }) => bobs.push([id, own]));
  await Promise.all([bob.send("hi", { key: "k" }), bob.send("hi", { key: "k" })]);
  assert.deepEqual([all, bobs, bob.unread], [[["d1", true]], [["d1", true]], 0]);
});

test("read of a direct is reported to the server", async (t) => {
  const { client, server } = scripted({}, { read: ({ seq }) => ({ type: "read", to: "@", seq }) });
  t.after(() => client.close());
  await client.ping();
  server.push({ ...message(1), to: "ann" }, { ...message(2, "m2", "eve"), to: "ann" }, { ...message(3), to: "ann" });
  const [bob, eve] = [client.direct("bob"), client.direct("eve")];
  assert.deepEqual([bob.unread, eve.unread], [2, 1]);
  bob.read();
  assert.deepEqual([bob.unread, bob.readSeq, eve.unread], [0, 3, 1]);
  assert.deepEqual(server.requests.filter(({ type }) => type === "read").map(({ to, seq }) => [to, seq]), [["@", 3]]);
});

test("body is copied when it is sent", async (t) => {
  const { client, server } = scripted();
  t.after(() => client.close());
  const body = { text: "before" };
  const sent = client.direct("bob").send(body).catch(() => {});
  body.text = "after";
  await assert.rejects(client.join(10n), TypeError);
  await eventually(() => server.requests.some(({ type }) => type === "send"));
  assert.deepEqual(server.requests.find(({ type }) => type === "send").body, { text: "before" });
  await client.close();
  await sent;
});

test("many calls of one target stay in order", async (t) => {
  const { client, server } = scripted({}, {
    send: ({ body }) => ({ type: "ack", to: "#r", msg_id: `m${body}`, seq: body, time: 0, duplicate: false }),
  });
  t.after(() => client.close());
  const room = await client.join("#r");
  const started = Date.now();
  await Promise.all(Array.from({ length: 5_000 }, (_, i) => room.send(i)));
  const bodies = server.requests.filter(({ type }) => type === "send").map(({ body }) => body);
  assert.deepEqual(bodies, Array.from({ length: 5_000 }, (_, i) => i));
  t.diagnostic(`${Date.now() - started} ms`);
});

test("users of messages and members are given", async (t) => {
  const members = () => ({ type: "members", items: [{ nick: "ann", status: "online", user: "user:1" }, { nick: "eve", status: "away" }], next_cursor: null });
  const { client, server } = scripted({}, { members });
  t.after(() => client.close());
  const room = await client.join("#r");
  const users = [];
  room.on("message", (entry) => users.push("fromUser" in entry ? entry.fromUser : null));
  await eventually(() => room.members.size === 2);
  server.push({ ...message(6), from_user: "user:7" }, message(7));
  server.push({ type: "presence", room: "#r", joined: [{ nick: "bob", user: "user:7" }], status: [{ nick: "ann", status: "away" }] });
  server.push({ type: "presence", room: "#r", renamed: [{ from: "ann", to: "anna" }] });
  await eventually(() => users.length === 2 && room.members.has("anna"));
  assert.deepEqual(users, ["user:7", null]);
  assert.deepEqual([...room.members.values()].map(({ nick, user }) => [nick, user]).sort(), [["anna", "user:1"], ["bob", "user:7"], ["eve", undefined]]);
});
