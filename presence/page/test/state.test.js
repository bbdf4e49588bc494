import assert from "node:assert/strict";
import { test } from "node:test";
import { FEED_MAX, connection, gatewayRows, initialState, messageRate, reduce, roomRows, userRows } from "../state.js";

const run = (actions, state = live) => actions.reduce(reduce, state);
const live = reduce(initialState, { type: "stream", phase: "live", at: 0 });
const page = (items, next_cursor = null) => ({ items, next_cursor });
const read = (at, { rooms = [], users = [], gateways = [], more = null } = {}) => ({
  type: "read", at,
  stats: { users_online: users?.length ?? 0, rooms: rooms.length, gateways: gateways.length },
  gateways: page(gateways), rooms: page(rooms, more), users: users && page(users, more),
});
const room = (name, seq, member_count = 1) => ({ room: name, seq, member_count });
const online = (id, nick) => ({ type: "event", kind: "online", id, data: { nick, time: 5 } });
const failed = (at, code) => ({ type: "failed", at, code });
const stream = (phase, at) => ({ type: "stream", phase, at });

test("the feed keeps the newest fifty events", () => {
  const state = run(Array.from({ length: FEED_MAX + 10 }, (_, n) => online(`${n}-0`, `user${n}`)));
  assert.equal(state.feed.length, FEED_MAX);
  assert.deepEqual(state.feed[0], { kind: "online", id: "59-0", nick: "user59", time: 5 });
});

test("a gap is marked once between events", () => {
  const gap = { type: "gap", at: 9 };
  assert.deepEqual(run([gap]).feed, []);
  assert.deepEqual(run([online("1-0", "ann"), gap, gap, online("2-0", "bob")]).feed.map(({ kind }) => kind), ["online", "gap", "online"]);
});

test("an event changes no list", () => {
  const before = run([read(1)]);
  const after = reduce(before, online("1-0", "ann"));
  assert.equal(after.users, before.users);
  assert.equal(after.stats, before.stats);
});

test("messages are counted from the growth of seqs", () => {
  const state = run([read(0, { rooms: [room("#a", 10), room("#b", 5)] }), read(5000, { rooms: [room("#a", 20), room("#b", 10)] })]);
  assert.equal(messageRate(state), 3);
});

test("rooms that appear and seqs that fall count nothing", () => {
  const state = run([read(0, { rooms: [room("#a", 10)] }), read(5000, { rooms: [room("#a", 4), room("#new", 900)] })]);
  assert.equal(messageRate(state), 0);
  assert.equal(messageRate(run([read(10_000, { rooms: [room("#a", 14), room("#new", 900)] })], state)), 1);
});

test("the rate covers the last fifteen seconds", () => {
  const steps = Array.from({ length: 7 }, (_, n) => read(n * 5000, { rooms: [room("#a", n < 3 ? n * 1000 : 2000 + (n - 3) * 10)] }));
  assert.equal(messageRate(run(steps)), 2);
});

test("the rate starts again after a long pause", () => {
  const rateAfter = (at) => messageRate(run([read(0, { rooms: [room("#a", 0)] }), read(at, { rooms: [room("#a", 600)] })]));
  assert.equal(rateAfter(60_000), 10);
  assert.equal(rateAfter(60_001), null);
});

test("the rate is unknown before two reads and while the page is not live", () => {
  const first = run([read(0, { rooms: [room("#a", 0)] })]);
  assert.equal(messageRate(initialState), null);
  assert.equal(messageRate(first), null);
  const second = run([read(1000, { rooms: [room("#a", 1)] })], first);
  assert.equal(messageRate(second), 1);
  assert.equal(messageRate(reduce(second, failed(2000, "unavailable"))), null);
  assert.equal(messageRate(reduce(second, stream("unavailable", 2000))), null);
});

test("the connection is live once the stream is open", () => {
  const connecting = reduce(initialState, stream("connecting", 1));
  assert.deepEqual(connection(connecting), { phase: "connecting", since: 1 });
  assert.deepEqual(connection(reduce(connecting, stream("live", 2))), { phase: "live", since: null });
});

test("an outage lasts from its first sign to its end", () => {
  const away = run([stream("reconnecting", 10), stream("unavailable", 20), failed(15, "unavailable"), failed(30, "unreachable")]);
  assert.deepEqual(connection(away), { phase: "reconnecting", since: 10 });
  const readable = run([read(40)], away);
  assert.deepEqual(connection(readable), { phase: "unavailable", since: 10 });
  assert.deepEqual(connection(reduce(readable, stream("live", 41))), { phase: "live", since: null });
});

test("a failed read is an outage although the stream is open", () => {
  const phase = (code) => connection(run([failed(7, "unavailable"), failed(20, code)]));
  assert.deepEqual(phase("unavailable"), { phase: "unavailable", since: 7 });
  assert.deepEqual(phase("overloaded"), { phase: "overloaded", since: 7 });
  assert.deepEqual(phase("unreachable"), { phase: "reconnecting", since: 7 });
});

test("a failed read keeps the last answers", () => {
  const before = run([read(2, { users: [{ nick: "ann" }] })]);
  const after = reduce(before, failed(7, "unavailable"));
  assert.deepEqual([after.users, after.readAt], [before.users, 2]);
});

test("a read without users keeps the users", () => {
  const state = run([read(1, { users: [{ nick: "ann" }], more: "x" }), read(2, { users: null })]);
  assert.deepEqual([state.users, state.hasMoreUsers, state.hasMoreRooms], [[{ nick: "ann" }], true, false]);
});

test("rooms are sorted by size and then by name", () => {
  const state = run([read(1, { rooms: [room("#b", 0, 2), room("#a", 0, 2), room("#big", 0, 4)], more: "x" })]);
  assert.deepEqual(roomRows(state).map(({ room, share }) => [room, share]), [["#big", 1], ["#a", 0.5], ["#b", 0.5]]);
  assert.equal(state.hasMoreRooms, true);
});

test("gateways have their share of all users", () => {
  const gateways = [{ node: "g1", users: 3 }, { node: "g2", users: 1 }];
  assert.deepEqual(gatewayRows(run([read(1, { gateways })])).map(({ share }) => share), [0.75, 0.25]);
  assert.deepEqual(gatewayRows(run([read(1, { gateways: [{ node: "g1", users: 0 }] })]))[0].share, 0);
});

test("users are found by nickname, status text and gateway", () => {
  const gateways = [{ node: "g1", incarnation: "i1", users: 2 }];
  const users = [
    { nick: "Ann", incarnation: "i1" },
    { nick: "bob", text: "Lunch", incarnation: "i1" },
    { nick: "eve", incarnation: "ended" },
  ];
  const found = (text) => userRows(run([read(1, { gateways, users }), { type: "search", text }])).map(({ nick, gateway }) => [nick, gateway]);
  assert.deepEqual(found(""), [["Ann", "g1"], ["bob", "g1"], ["eve", null]]);
  assert.deepEqual(found(" ANN "), [["Ann", "g1"]]);
  assert.deepEqual(found("lunch"), [["bob", "g1"]]);
  assert.deepEqual(found("G1"), [["Ann", "g1"], ["bob", "g1"]]);
  assert.deepEqual(found("zoe"), []);
});
