import assert from "node:assert/strict";
import { test } from "node:test";
import { ITEMS_MAX } from "../conversation.js";
import { badge, closedNicks, completionNames, initialState, nextUnread, peopleOf, reduce, TYPING_MS } from "../state.js";

const run = (...actions) => actions.reduce(reduce, { ...initialState, nick: "ann" });
const message = (seq, fields = {}) => ({ id: `m${seq}`, to: "#lobby", from: "bob", seq, time: seq * 1000, body: `text ${seq}`, own: false, ...fields });
const joined = (key = "#lobby", recent = [], fields = {}) => ({ type: "joined", key, recent, seq: recent.at(-1)?.seq ?? 0, members: [], unread: 0, readSeq: 0, ...fields });
const arrives = (fields, key = "#lobby") => ({ type: "message", key, message: fields });
const online = (node, fields = {}) => ({ type: "link", nick: "ann", now: 9, id: "n1", state: { name: "online", node, resumed: true, tookMs: 200, rooms: [], ...fields } });
const lobby = (state) => state.conversations["#lobby"];
const texts = (state) => lobby(state).items.map(({ body, kind }) => body ?? kind);

test("a message appears once", () => {
  const state = run(joined(), arrives(message(1)), arrives(message(1)));
  assert.deepEqual(texts(state), ["text 1"]);
});

test("a room keeps a bounded number of messages", () => {
  const actions = Array.from({ length: ITEMS_MAX + 100 }, (_, index) => arrives(message(index + 1)));
  const state = run(joined(), { type: "open", key: "#lobby" }, ...actions);
  assert.equal(lobby(state).items.length, ITEMS_MAX);
  assert.equal(lobby(state).items.at(-1).seq, ITEMS_MAX + 100);
  assert.equal(lobby(state).atStart, false);
});

test("a reader above the end keeps the place", () => {
  const actions = Array.from({ length: ITEMS_MAX + 5 }, (_, index) => arrives(message(index + 1)));
  const state = run(joined(), { type: "open", key: "#lobby" }, { type: "pinned", pinned: false }, ...actions);
  assert.equal(lobby(state).items[0].seq, 1);
  assert.equal(lobby(state).atEnd, false);
  assert.equal(lobby(state).lastSeq, ITEMS_MAX + 5);
});

test("newer history reaches the end again", () => {
  const page = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
  let state = run(joined("#lobby", page(41, 50)));
  state = reduce(state, { type: "history/window", key: "#lobby", messages: page(1, 10), more: false, jump: null });
  assert.equal(lobby(state).atEnd, false);
  state = reduce(state, arrives(message(51)));
  assert.equal(lobby(state).items.at(-1).seq, 10);
  state = reduce(state, { type: "history/asked", key: "#lobby", side: "newer", edge: 10 });
  state = reduce(state, { type: "history", key: "#lobby", side: "newer", edge: 10, messages: page(11, 51), more: false });
  assert.equal(lobby(state).atEnd, true);
  assert.equal(lobby(state).items.length, 51);
});

test("older history is added before the first message", () => {
  const asked = { key: "#lobby", side: "older", edge: 5 };
  const state = run(joined("#lobby", [message(5)]), { type: "history/asked", ...asked }, { type: "history", ...asked, messages: [message(3), message(4)], more: true });
  assert.deepEqual(texts(state), ["text 3", "text 4", "text 5"]);
  assert.equal(lobby(state).atStart, false);
});

test("history of an earlier window is ignored", () => {
  const page = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
  const jumped = run(joined("#lobby", page(400, 450)), { type: "history/asked", key: "#lobby", side: "older", edge: 400 },
    { type: "history/window", key: "#lobby", messages: page(901, 910), more: true, jump: null });
  const stale = { type: "history", key: "#lobby", side: "older", edge: 400, messages: page(300, 399), more: true };
  assert.deepEqual(lobby(reduce(jumped, stale)).items.map(({ seq }) => seq), page(901, 910).map(({ seq }) => seq));
  const asked = reduce(jumped, { type: "history/asked", key: "#lobby", side: "older", edge: 901 });
  assert.equal(lobby(reduce(asked, stale)).loading, "older");
  const fresh = reduce(asked, { ...stale, edge: 901, messages: page(891, 900) });
  assert.deepEqual([lobby(fresh).items[0].seq, lobby(fresh).loading], [891, null]);
  const rewound = [{ type: "rewind", key: "#lobby", seq: 0 }, { ...stale, edge: 901, messages: page(891, 900) }].reduce(reduce, asked);
  assert.deepEqual([lobby(rewound).items, lobby(rewound).loading], [[], null]);
});

test("a pending message gives way to the stored one", () => {
  const entry = { key: "k1", from: "ann", body: "hi", time: 1, status: "pending", ticks: null };
  const sent = run(joined(), { type: "pending", key: "#lobby", entry });
  assert.equal(lobby(sent).pending.length, 1);
  const ack = { type: "ack", key: "#lobby", id: "k1", ack: { id: "m1", seq: 1, delivered: null } };
  const own = arrives(message(1, { own: true, from: "ann", body: "hi" }));
  for (const order of [[ack, own], [own, ack]]) {
    const shown = (state) => lobby(state).pending.length + lobby(state).items.length;
    const first = reduce(sent, order[0]);
    const state = reduce(first, order[1]);
    assert.deepEqual([shown(first), shown(state)], [1, 1]);
    assert.equal(lobby(state).items.length, 1);
  }
});

test("a direct message has ticks of its delivery", () => {
  const entry = { key: "k1", from: "ann", body: "hi", time: 1, status: "pending", ticks: null };
  const own = { type: "message", key: "@bob", name: "bob", message: message(null, { id: "d1", own: true, from: "ann", to: "bob", body: "hi" }) };
  const ack = (delivered) => ({ type: "ack", key: "@bob", id: "k1", ack: { id: "d1", seq: null, delivered } });
  for (const [delivered, ticks] of [["online", "delivered"], ["offline", "sent"]]) {
    for (const order of [[own, ack(delivered)], [ack(delivered), own]]) {
      const state = order.reduce(reduce, run({ type: "direct", nick: "bob" }, { type: "pending", key: "@bob", entry }));
      assert.equal(state.conversations["@bob"].items[0].ticks, ticks);
      assert.equal(state.conversations["@bob"].online, delivered === "online");
    }
  }
});

test("a message settles the send that waits", () => {
  const entry = (key, status) => ({ type: "pending", key: "#lobby", entry: { key, from: "ann", body: "hi", time: 1, status, ticks: null } });
  const own = arrives(message(1, { own: true, from: "ann", body: "hi" }));
  const left = (...entries) => lobby(run(joined(), ...entries, own)).pending.map(({ key }) => key);
  assert.deepEqual(left(entry("k1", "failed"), entry("k2", "pending")), ["k1"]);
  assert.deepEqual(left(entry("k1", "failed")), []);
});

test("a failed message can be retried and deleted", () => {
  const entry = { key: "k1", from: "ann", body: "hi", time: 1, status: "pending", ticks: null };
  let state = run(joined(), { type: "pending", key: "#lobby", entry });
  state = reduce(state, { type: "pending/change", key: "#lobby", id: "k1", change: { status: "failed", reason: "no" } });
  assert.equal(lobby(state).pending[0].status, "failed");
  state = reduce(state, { type: "pending/drop", key: "#lobby", id: "k1" });
  assert.deepEqual(lobby(state).pending, []);
});

test("a message before its room is kept", () => {
  const state = run(arrives(message(3)), joined("#lobby", [message(1), message(2)]));
  assert.deepEqual(texts(state), ["text 1", "text 2", "text 3"]);
  assert.equal(lobby(state).atEnd, true);
});

test("a rewind drops what the server lost", () => {
  const state = run(joined("#lobby", [message(1), message(2), message(3)]), { type: "rewind", key: "#lobby", seq: 1 }, arrives(message(2, { id: "m3", body: "text 3" })));
  assert.deepEqual(texts(state), ["text 1", "text 3"]);
});

test("joins and leaves become one line", () => {
  const event = (fields) => ({ type: "members", key: "#lobby", members: [], now: 5, id: `n${Math.random()}`, event: { joined: [], left: [], renamed: [], ...fields } });
  const nicks = (...names) => names.map((nick) => ({ nick }));
  let state = run(joined(), event({ joined: nicks("bob", "eve") }), event({ joined: nicks("cat") }), event({ left: nicks("eve") }));
  assert.equal(lobby(state).items.length, 1);
  assert.deepEqual(lobby(state).items[0].joined, ["bob", "cat"]);
  assert.deepEqual(lobby(state).items[0].left, []);
  state = reduce(state, event({ left: nicks("bob", "cat") }));
  assert.deepEqual(lobby(state).items, []);
  state = [event({ left: nicks("zoe") }), event({ joined: nicks("zoe") })].reduce(reduce, state);
  assert.deepEqual(lobby(state).items, []);
});

test("a chain of new names is one change", () => {
  const presence = (renamed, fields = {}) => ({ type: "members", key: "#lobby", members: [], id: "p1", now: 5, event: { joined: [], left: [], renamed, ...fields } });
  const rename = (from, to) => presence([{ from, to }]);
  const note = (state) => lobby(state).items.map(({ joined, left, renamed }) => ({ joined, left, renamed }));
  assert.deepEqual(note(run(joined(), rename("a", "b"), rename("b", "c"), rename("x", "y"))),
    [{ joined: [], left: [], renamed: [{ from: "a", to: "c" }, { from: "x", to: "y" }] }]);
  const flips = Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? rename("a", "b") : rename("b", "a")));
  assert.deepEqual(note(run(joined(), ...flips)), []);
  const came = presence([], { joined: [{ nick: "a" }] });
  assert.deepEqual(note(run(joined(), came, rename("a", "b"))), [{ joined: ["b"], left: [], renamed: [] }]);
  assert.deepEqual(note(run(joined(), came, rename("a", "b"), presence([], { left: [{ nick: "b" }] }))), []);
  assert.deepEqual(note(run(joined(), rename("a", "b"), presence([], { left: [{ nick: "b" }] }))), [{ joined: [], left: ["a"], renamed: [] }]);
});

test("the own join makes no line", () => {
  const event = { joined: [{ nick: "ann" }], left: [], renamed: [] };
  const state = run(joined(), { type: "members", key: "#lobby", members: [{ nick: "ann" }], now: 5, id: "n", event });
  assert.deepEqual(lobby(state).items, []);
  assert.equal(lobby(state).members.length, 1);
});

test("unread messages get a line when they arrive unseen", () => {
  const seen = run(joined("#lobby", [message(1)]), { type: "open", key: "#lobby" }, arrives(message(2)));
  assert.equal(lobby(seen).newAfter, null);
  const unseen = [{ type: "attentive", attentive: false }, arrives(message(3)), arrives(message(4))].reduce(reduce, seen);
  assert.equal(lobby(unseen).newAfter, 2);
  assert.equal(lobby(reduce(unseen, arrives(message(5, { own: true })))).newAfter, null);
});

test("opening marks where unread messages begin", () => {
  const state = run(joined("#lobby", [message(1), message(2)]), { type: "read", key: "#lobby", unread: 1, readSeq: 1 }, { type: "open", key: "#lobby" });
  assert.equal(lobby(state).newAfter, 1);
});

test("the title counts mentions and direct messages", () => {
  let state = run(joined(), joined("#other"), { type: "open", key: "#other" });
  state = [arrives(message(1)), arrives(message(2, { body: "hi @ann" })), { type: "read", key: "#lobby", unread: 2, readSeq: 0 }].reduce(reduce, state);
  state = [{ type: "direct", nick: "eve" }, { type: "read", key: "@eve", unread: 3, readSeq: 0 }].reduce(reduce, state);
  assert.equal(badge(state), 4);
  assert.equal(badge(reduce(state, { type: "read", key: "#lobby", unread: 0, readSeq: 2 })), 3);
});

test("the next unread conversation prefers mentions", () => {
  const state = run(joined("#a"), joined("#b"), joined("#c"), { type: "open", key: "#a" },
    { type: "read", key: "#b", unread: 4, readSeq: 0 }, arrives(message(1, { body: "ann: look" }), "#c"), { type: "read", key: "#c", unread: 1, readSeq: 0 });
  assert.equal(nextUnread(state), "#c");
  assert.equal(nextUnread(reduce(state, { type: "read", key: "#c", unread: 0, readSeq: 1 })), "#b");
});

test("a resume leaves a line with both gateways", () => {
  const state = run(joined("#lobby", [message(1)]), online("g2"), { type: "link", now: 9, state: { name: "resuming" } }, online("g1"));
  const [line] = lobby(state).items.filter(({ kind }) => kind === "resumed");
  assert.deepEqual([line.from, line.to, line.tookMs, line.whole], ["g2", "g1", 200, true]);
  assert.equal(state.link.node, "g1");
});

test("the first connection leaves no line", () => {
  assert.deepEqual(lobby(run(joined(), online("g1"))).items, []);
});

test("an offline connection has a time of retry", () => {
  const state = run(online("g1"), { type: "link", now: 1000, state: { name: "offline", reason: "connection_lost", willRetry: true, inMs: 4000 } });
  assert.equal(state.link.retryAt, 5000);
  assert.equal(state.link.final, false);
});

test("typing ends after a while or a message", () => {
  const typed = run(joined(), { type: "typing", key: "#lobby", from: "bob", now: 1000 });
  assert.deepEqual(Object.keys(lobby(typed).typing), ["bob"]);
  assert.deepEqual(lobby(reduce(typed, { type: "now", now: 1000 + TYPING_MS })).typing, {});
  assert.deepEqual(lobby(reduce(typed, arrives(message(1)))).typing, {});
});

test("leaving opens the neighbour in the list", () => {
  const state = run(joined("#a"), joined("#b"), { type: "open", key: "#a" }, { type: "left", key: "#a" });
  assert.equal(state.open, "#b");
  assert.equal(reduce(state, { type: "left", key: "#b" }).open, null);
});

test("a closed direct conversation returns with its messages", () => {
  const first = { type: "message", key: "@bob", name: "bob", message: message(1, { to: "ann" }) };
  const closed = run({ type: "direct", nick: "bob" }, first, { type: "open", key: "@bob" }, { type: "left", key: "@bob" });
  assert.deepEqual([closed.order, closed.open, closedNicks(closed)], [[], null, ["bob"]]);
  const again = reduce(closed, { ...first, message: message(2, { to: "ann" }) });
  assert.deepEqual([again.order, closedNicks(again)], [["@bob"], []]);
  assert.equal(again.conversations["@bob"].items.length, 2);
});

test("direct messages of an application stand apart", () => {
  const api = (seq, fields = {}) => ({ type: "message", key: "@bob (api)", name: "bob (api)", message: message(seq, { to: "ann", fromApi: true, ...fields }) });
  let state = run({ type: "direct", nick: "bob" }, api(1), api(2), api(2));
  const shown = () => state.conversations["@bob (api)"];
  assert.deepEqual([shown().isApi, shown().unread, badge(state), state.conversations["@bob"].isApi], [true, 2, 2, false]);
  state = [{ type: "open", key: "@bob (api)" }, { type: "api/read", key: "@bob (api)", seq: 1 }].reduce(reduce, state);
  assert.deepEqual([shown().unread, shown().readSeq, shown().newAfter], [1, 1, 0]);
  state = [{ type: "api/read", key: "@bob (api)", seq: 2 }, api(3)].reduce(reduce, state);
  assert.deepEqual([shown().unread, badge(state)], [0, 0], "the reader looks at it");
  state = reduce(state, api(1, { id: "next session" }));
  assert.equal(shown().readSeq, 0, "the inbox began again");
});

test("announcements are shown until they are closed", () => {
  const announced = (id) => ({ type: "announcement", announcement: { id, body: `notice ${id}`, time: 1 } });
  const ids = ({ announcements }) => announcements.map(({ id }) => id);
  const state = run(announced("a"), announced("b"), announced("b"), announced("c"), announced("d"));
  assert.deepEqual([ids(state), state.spoken], [["b", "c", "d"], "notice d"]);
  assert.deepEqual(ids(reduce(state, { type: "announcement/close", id: "c" })), ["b", "d"]);
});

test("an application is no speaker to complete", () => {
  const typed = { type: "typing", key: "#lobby", from: "bob", now: 1 };
  const state = run(joined(), { type: "open", key: "#lobby" }, typed, arrives(message(1, { fromApi: true })));
  assert.deepEqual(completionNames(state).nicks, []);
  assert.deepEqual(Object.keys(lobby(state).typing), ["bob"], "bob types on");
  assert.equal(state.spoken, "bob (api): text 1");
});

test("a direct conversation has one entry in the list", () => {
  const state = run({ type: "direct", nick: "bob" }, { type: "direct", nick: "bob" }, joined("#a"));
  assert.deepEqual(state.order, ["#a", "@bob"]);
});

test("the reducer leaves its input alone", () => {
  const freeze = (value) => {
    if (value && typeof value === "object" && !Object.isFrozen(value)) Object.values(Object.freeze(value)).forEach(freeze);
    return value;
  };
  const actions = [joined(), { type: "open", key: "#lobby" }, arrives(message(1)), online("g1"), online("g2"), { type: "left", key: "#lobby" }];
  actions.reduce((state, action) => freeze(reduce(state, freeze(action))), freeze({ ...initialState }));
});

test("completion offers the last speakers first", () => {
  const members = ["ann", "cat", "bob"].map((nick) => ({ nick }));
  const state = run(joined("#lobby", [], { members }), { type: "open", key: "#lobby" }, arrives(message(1, { from: "zoe" })), arrives(message(2)));
  assert.deepEqual(completionNames(state), { nicks: ["bob", "zoe", "cat"], rooms: ["#lobby"] });
  assert.deepEqual(peopleOf(state), ["bob", "cat"]);
});

test("a long direct conversation asks for no history", () => {
  const actions = Array.from({ length: ITEMS_MAX + 1 }, (_, index) => ({ type: "message", key: "@bob", name: "bob", message: message(index + 1) }));
  const state = run({ type: "direct", nick: "bob" }, ...actions);
  assert.equal(state.conversations["@bob"].items.length, ITEMS_MAX);
  assert.equal(state.conversations["@bob"].atStart, true);
});
