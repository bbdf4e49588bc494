// Tables of the session machine: one test per rule of the protocol.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Session } from "../src/session.js";
import { Bench, JOINED, REGISTERED, message, online, send } from "./machine.js";

test("token is saved before it is used", () => {
  const session = new Session({ urls: ["a"], nick: "ann" });
  session.step({ type: "start" }, 0, 0);
  const [{ text }] = session.step({ type: "open" }, 0, 0);
  const reply = JSON.stringify({ ...REGISTERED, id: JSON.parse(text).id });
  const kinds = session.step({ type: "frame", text: reply }, 0, 0).map((effect) => effect.do);
  assert.equal(kinds.find((kind) => kind === "save" || kind === "send"), "save");
});

test("first request follows registered at once", () => {
  assert.equal(online().last("ping").type, "ping");
});

test("token is used again without an answer", () => {
  const bench = online().close(1006).tick().step({ type: "open" });
  assert.equal(bench.last("register").resume, "t1");
  bench.close(1006).tick().step({ type: "open" });
  assert.equal(bench.last("register").resume, "t1");
  bench.reply("register", { ...REGISTERED, resume: "t2" }).close(1006).tick().step({ type: "open" });
  assert.equal(bench.last("register").resume, "t2");
  assert.equal(bench.saved.token, "t2");
});

test("resume names positions of joined rooms", () => {
  const bench = online().join().frame(message(6)).close(1006).tick().step({ type: "open" });
  assert.deepEqual(bench.last("register").since, { "@": { epoch: "i", seq: 0 }, "#r": { epoch: "e", seq: 6 } });
});

test("restored rooms stay silent until joined", () => {
  const saved = { token: "t0", positions: { "#r": { epoch: "e", seq: 3 }, "@": { epoch: "i", seq: 2 } } };
  const bench = new Bench({ saved }).step({ type: "open" });
  assert.deepEqual(bench.last("register").since, { "@": { epoch: "i", seq: 2 } });
  bench.reply("register", { ...REGISTERED, rooms: [{ room: "#r", epoch: "e", seq: 9 }] });
  assert.deepEqual(bench.state.rooms, ["#r"]);
  bench.frame(message(4));
  assert.deepEqual(bench.delivered(), []);
  bench.call("join", { type: "join", room: "#r" });
  assert.deepEqual(bench.last("join").since, { epoch: "e", seq: 3 });
  bench.frame(message(4)).reply("join", { ...JOINED, seq: 9, recovered: true }).frame(message(5));
  assert.deepEqual(bench.answers.join, { name: "#r", epoch: "e", seq: 3 });
  assert.deepEqual(bench.delivered(), [4, 5]);
});

test("failed resume registers and joins again", () => {
  const bench = online().join().close(1006).tick().step({ type: "open" }).refuse("register", "resume_failed");
  assert.deepEqual(Object.keys(bench.last("register")), ["type", "nick", "id"]);
  bench.call("next", send("next")).reply("register", { ...REGISTERED, resume: "t2", inbox: { epoch: "j", seq: 0 } });
  assert.equal(bench.state.resumed, false);
  assert.deepEqual(bench.last("join").since, { epoch: "e", seq: 5 });
  assert.equal(bench.count("send"), 0);
  bench.reply("join", { ...JOINED, recovered: true });
  assert.equal(bench.last("send").key, "next");
});

test("sent message of a lost session is unknown", () => {
  const bench = online().join().call("sent", send("sent")).call("queued", send("queued"));
  bench.close(1006).tick().step({ type: "open" }).refuse("register", "resume_failed");
  assert.equal(bench.answers.sent.code, "outcome_unknown");
  bench.reply("register", REGISTERED).reply("join", JOINED);
  assert.equal(bench.last("send").key, "queued");
});

test("unknown outcome outlives the session", () => {
  const bench = online().join().call(1, send("a")).refuse("send", "outcome_unknown").close(1006).tick();
  bench.step({ type: "open" }).refuse("register", "resume_failed");
  assert.equal(bench.answers[1].code, "outcome_unknown");
});

test("send gives up before its key expires", () => {
  const bench = online().join();
  bench.now = 1_000;
  bench.call(1, send("a"));
  bench.now = 5_000;
  bench.close(1006);
  bench.call(2, send("b"));
  while (bench.now < 230_000) bench.close(1006).tick();
  bench.open({ rooms: [{ room: "#r" }] });
  assert.equal(bench.last("send").key, "a");
  bench.close(1006).wait(1);
  assert.deepEqual([bench.answers[1]?.code, bench.now], ["outcome_unknown", 241_000]);
  bench.now = 900_000;
  bench.open({ rooms: [{ room: "#r" }] });
  assert.deepEqual([bench.last("send").key, 2 in bench.answers], ["b", false]);
});

test("refused send is repeated without a limit", () => {
  const bench = online().join().call(1, send("a"));
  for (let i = 0; i < 30; i += 1) {
    bench.refuse("send", "overloaded", { retry_after_ms: 20_000 }).wait(1, () => bench.count("send") === i + 2);
  }
  assert.deepEqual([bench.count("send"), 1 in bench.answers, bench.now > 600_000], [31, false, true]);
  bench.refuse("send", "outcome_unknown", { retry_after_ms: 300_000 });
  const begin = bench.now;
  bench.wait(1);
  assert.deepEqual([bench.answers[1]?.code, bench.now - begin], ["outcome_unknown", 240_000]);
});

test("send of an earlier leader keeps its age", () => {
  const bench = online().step({ type: "call", id: 1, request: send("a", "bob"), age: 200_000 }).close(1006).wait(1);
  assert.deepEqual([bench.answers[1]?.code, bench.now], ["outcome_unknown", 40_000]);
});

test("history waits until the room is joined again", () => {
  const bench = online().join().close(1006).tick().call(1, { type: "history", to: "#r" }).open();
  bench.refuse("join", "unavailable").refuse("history", "not_in_room");
  assert.equal(1 in bench.answers, false);
  bench.tick().tick();
  assert.equal(bench.count("history"), 2);
});

test("messages at or below the position are dropped", () => {
  const bench = online().join().frame(message(5)).frame(message(6)).frame(message(6)).frame(message(7));
  assert.deepEqual(bench.delivered(), [6, 7]);
  assert.equal(bench.saved.positions["#r"].seq, 7);
});

test("gap, epoch and rewound move the position", () => {
  const bench = online().join();
  bench.frame({ type: "gap", to: "#r", from_seq: 6, to_seq: 8 }).frame(message(8)).frame(message(9));
  assert.deepEqual(bench.delivered(), [9]);
  bench.frame({ type: "epoch", to: "#r", epoch: "f", seq: 9 });
  assert.deepEqual(bench.saved.positions["#r"], { epoch: "f", seq: 9 });
  bench.frame({ type: "rewound", to: "#r", epoch: "g", seq: 7 }).frame(message(8));
  assert.deepEqual(bench.delivered(), [9, 8]);
  assert.deepEqual(bench.saved.positions["#r"], { epoch: "g", seq: 8 });
});

test("epoch behind a position rewinds it", () => {
  const bench = online().join().frame(message(6)).frame({ type: "epoch", to: "#r", epoch: "f", seq: 5 }).frame(message(6));
  assert.deepEqual(bench.events.filter(({ type }) => type === "rewound").map(({ seq }) => seq), [5]);
  assert.deepEqual(bench.delivered(), [6, 6]);
});

test("events before a reply wait for it", () => {
  const bench = online().call("join", { type: "join", room: "#r" });
  bench.frame(message(5)).frame(message(6)).frame({ type: "presence", room: "#r", resync: true });
  assert.deepEqual(bench.delivered(), []);
  bench.reply("join", JOINED);
  assert.deepEqual(bench.delivered(), [6]);
  assert.equal(bench.events.at(-1).type, "presence");
});

test("every spelling of a room has its events", () => {
  for (const [typed, shown] of [["#x\u200dy", "#XY"], ["#x\u200cy", "#xy"], ["#ｃａｆé", "#cafe\u0301"]]) {
    const bench = online().call("join", { type: "join", room: typed }).frame(message(6, { to: shown }));
    bench.reply("join", { ...JOINED, room: shown });
    assert.deepEqual(bench.delivered(), [6], typed);
  }
});

test("sends to one target go in order", () => {
  const bench = online().join().call(1, send("a")).call(2, send("b")).call(3, send("c", "bob"));
  assert.deepEqual(bench.sent.filter(({ type }) => type === "send").map(({ key }) => key), ["a", "c"]);
  bench.frame({ type: "ack", id: bench.sent.find(({ key }) => key === "a").id, to: "#r", msg_id: "m", seq: 6 });
  assert.equal(bench.last("send").key, "b");
});

test("temporary refusals are repeated later", () => {
  const codes = ["rate_limited", "slow_mode", "overloaded", "unavailable", "hook_unavailable", "outcome_unknown", "going_away"];
  for (const code of [...codes, "internal"]) {
    const bench = online().join().call(1, send("a")).refuse("send", code);
    assert.equal(bench.count("send"), 1, code);
    bench.tick();
    assert.deepEqual([bench.count("send"), bench.last("send").key], [2, "a"], code);
  }
  const bench = online().join().call(1, send("a")).refuse("send", "no_such_user", { retry_after_ms: 700 });
  assert.equal(bench.session.nextAt, 700 + 250);
});

test("rate limited send keeps its turn and waits", () => {
  const bench = online().join().call(1, send("a")).call(2, send("b"));
  bench.refuse("send", "rate_limited", { retry_after_ms: 50 });
  assert.deepEqual([bench.count("send"), bench.session.nextAt], [1, 50 + 250]);
  bench.tick();
  assert.deepEqual([bench.count("send"), bench.last("send").key], [2, "a"]);
});

test("other refusals reject the call", () => {
  for (const code of ["bad_request", "not_in_room", "no_such_user", "too_large", "a_new_code"]) {
    const bench = online().join().call(1, send("a")).refuse("send", code);
    assert.equal(bench.answers[1].code, code);
  }
});

test("error without an id meets the oldest request", () => {
  const bench = online().reply("ping", { type: "pong" }).join().call(1, send("a")).call(2, { type: "rooms" });
  bench.frame({ type: "error", code: "bad_request", message: "nested" });
  assert.deepEqual([bench.answers[1].code, 2 in bench.answers], ["bad_request", false]);
});

test("final closes reject everything at once", () => {
  const names = { 1000: "bye", 1002: "protocol_error", 1003: "unsupported_data", 1007: "bad_utf8", 1008: "rate_limited", 1009: "too_big", 4003: "kicked", 4004: "taken_over", 4006: "banned" };
  for (const [code, name] of Object.entries(names)) {
    const bench = online().join().call(1, send("a")).call(2, send("b")).call(3, { type: "rooms" });
    const { saved } = bench;
    bench.close(Number(code), name).call(4, { type: "rooms" }).call(5, { type: "nick", nick: "x" });
    assert.deepEqual([1, 2, 3, 4, 5].map((id) => bench.answers[id].code), Array(5).fill(name));
    assert.deepEqual(bench.state, { name: "offline", reason: name, message: null, willRetry: false, inMs: null });
    assert.equal(bench.session.nextAt, Infinity);
    assert.equal(bench.saved, saved);
  }
});

test("other closes lead to another address", () => {
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4999]) {
    const bench = online().close(code).tick();
    assert.deepEqual(bench.urls, ["a", "b"], String(code));
  }
});

test("waiting time doubles up to a maximum", () => {
  const bench = online();
  bench.random = 1;
  const waits = [];
  for (let i = 0; i < 9; i += 1) {
    bench.close(1006);
    waits.push(bench.session.nextAt - bench.now);
    bench.tick();
  }
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  bench.open();
  bench.now += 2_000;
  bench.close(1006);
  assert.equal(bench.session.nextAt - bench.now, 500);
});

test("state names the next attempt", () => {
  const bench = online().close(1006);
  assert.deepEqual(bench.state, { name: "resuming" });
  bench.tick().close(1006);
  assert.deepEqual(bench.state, { name: "offline", reason: "connection_lost", message: null, willRetry: true, inMs: 500 });
  bench.tick();
  assert.deepEqual(bench.state, { name: "resuming" });
});

test("drain reconnects at once after the close", () => {
  const bench = online().frame({ type: "going_away", retry_after_ms: 500 }).call(1, { type: "rooms" });
  assert.equal(bench.count("rooms"), 1);
  bench.close(1012);
  assert.deepEqual(bench.urls, ["a", "b"]);
});

test("held nickname is waited for", () => {
  const bench = new Bench().step({ type: "open" });
  bench.refuse("register", "nick_in_use", { message: "held for ann", retry_after_ms: 9_000 });
  assert.deepEqual(bench.state, { name: "offline", reason: "nick_in_use", message: "held for ann", willRetry: true, inMs: 9_250 });
  bench.tick().open();
  assert.equal(bench.state.name, "online");
});

test("nickname of an own lost register is waited for", () => {
  const lost = new Bench().step({ type: "open" }).close(1006);
  const silent = new Bench().step({ type: "open" }).tick();
  const unknown = new Bench().step({ type: "open" }).refuse("register", "outcome_unknown");
  for (const bench of [lost, silent, unknown]) {
    for (let i = 0; i < 10; i += 1) {
      bench.tick().step({ type: "open" }).refuse("register", "nick_in_use");
      assert.equal(bench.state.willRetry, true);
    }
    bench.tick().step({ type: "open" }).refuse("register", "nick_in_use");
    assert.equal(bench.state.willRetry, false);
  }
  const resumed = new Bench().step({ type: "open" }).close(1006).tick().open();
  for (let i = 0; i < 2; i += 1) resumed.close(1006).tick().step({ type: "open" });
  assert.equal(resumed.refuse("register", "nick_in_use").state.willRetry, false);
});

test("refused nickname is final until renamed", () => {
  for (const code of ["nick_in_use", "nick_confusable", "bad_nick"]) {
    const bench = new Bench().call(1, { type: "rooms" }).step({ type: "open" }).refuse("register", code);
    assert.equal(bench.answers[1].code, code);
    bench.call(2, { type: "rooms" }).call(3, { type: "nick", nick: "eve" }).step({ type: "open" });
    assert.equal(bench.answers[2].code, code);
    assert.equal(bench.last("register").nick, "eve");
    bench.reply("register", { ...REGISTERED, nick: "eve" }).reply("nick", { type: "nick", nick: "eve" });
    assert.deepEqual([bench.state.name, bench.answers[3].nick], ["online", "eve"]);
  }
});

test("refusal keeps the text of the server", () => {
  const bench = new Bench().call(1, { type: "rooms" }).step({ type: "open" });
  bench.refuse("register", "bad_nick", { message: "the name contains a space" }).call(2, { type: "rooms" });
  assert.deepEqual([bench.state.reason, bench.state.message], ["bad_nick", "the name contains a space"]);
  assert.deepEqual([1, 2].map((id) => bench.answers[id].message), Array(2).fill("the name contains a space"));
});

test("room is reported as joined once", () => {
  const reported = (bench) => bench.events.filter(({ type }) => type === "joined").map(({ room }) => room);
  const bench = online().join();
  assert.deepEqual([reported(bench), "join" in bench.answers], [["#r"], true]);
  bench.call(1, { type: "join", room: "#R" }).close(1006).tick().open().reply("join", JOINED);
  assert.deepEqual(reported(bench), ["#r"]);
});

test("former nicknames keep their newest time", () => {
  const bench = new Bench({ saved: { token: "t0", names: { old: 3 } } }).open({ time: 7 });
  const rename = (id, nick) => bench.call(id, { type: "nick", nick }).reply("nick", { type: "nick", nick });
  bench.join().call(1, send("a")).reply("send", { type: "ack", to: "#r", msg_id: "m6", seq: 6, time: 9 });
  rename(2, "anna");
  assert.deepEqual(bench.events.at(-1), { type: "nick", nick: "anna", names: { old: 3, ann: 9, anna: 9 } });
  bench.frame(message(6));
  assert.deepEqual(bench.saved.names, { old: 3, ann: 9, anna: 9 });
  for (let id = 10; id < 40; id += 1) rename(id, `n${id}`);
  assert.deepEqual(Object.keys(bench.events.at(-1).names), Array.from({ length: 16 }, (_, i) => `n${24 + i}`));
});

test("silent server is pinged and abandoned", () => {
  const bench = online().reply("ping", { type: "pong" });
  bench.tick();
  assert.deepEqual([bench.now, bench.count("ping")], [30_000, 2]);
  bench.reply("ping", { type: "pong" }).tick();
  assert.equal(bench.now, 60_000);
  bench.tick();
  assert.deepEqual([bench.now, bench.drops, bench.state.name], [70_000, 1, "resuming"]);
});

test("wake retries at once or checks", () => {
  const bench = online().reply("ping", { type: "pong" });
  bench.step({ type: "wake" });
  assert.equal(bench.session.nextAt, 2_000);
  bench.close(1006).step({ type: "wake" });
  assert.deepEqual(bench.urls, ["a", "b"]);
});

test("unanswered call leads to a ping", () => {
  const bench = online().reply("ping", { type: "pong" }).call(1, { type: "rooms" }).tick();
  assert.deepEqual([bench.now, bench.count("ping")], [5_000, 2]);
});

test("connection without an answer is abandoned", () => {
  const bench = new Bench().tick();
  assert.deepEqual([bench.now, bench.drops], [10_000, 1]);
  bench.tick().step({ type: "open" }).tick();
  assert.equal(bench.drops, 2);
});

test("room that the server forgot is joined again", () => {
  const bench = online().join().call(1, send("a")).close(1006).tick().open();
  assert.deepEqual(bench.last("join").since, { epoch: "e", seq: 5 });
  assert.equal(bench.count("send"), 1);
  bench.refuse("join", "too_many_rooms");
  assert.equal(bench.events.some(({ type, room }) => type === "left" && room === "#r"), true);
});

test("repeated leave succeeds when already out", () => {
  const bench = online().join().call(1, { type: "leave", room: "#r" }).close(1006).tick();
  bench.open({ rooms: [{ room: "#r", epoch: "e", seq: 5 }] }).refuse("leave", "not_in_room");
  assert.equal(bench.answers[1].code, undefined);
  assert.equal(bench.saved.positions["#r"], undefined);
});

test("change that was sent outlives its abort", () => {
  const bench = online().join().call(1, { type: "nick", nick: "anna" }).step({ type: "abort", id: 1 });
  bench.reply("nick", { type: "nick", nick: "anna" });
  assert.equal(bench.events.at(-1).nick, "anna");
  bench.call(2, { type: "leave", room: "#r" }).step({ type: "abort", id: 2 }).reply("leave", { type: "left", room: "#r" });
  assert.deepEqual(bench.events.at(-1), { type: "left", room: "#r" });
  bench.close(1006).call(3, { type: "nick", nick: "eve" }).step({ type: "abort", id: 3 }).tick().open();
  assert.equal(bench.last("nick").nick, "anna");
});

test("close says bye and forgets the session", () => {
  const bench = online().join().call(1, send("a")).call("close", { type: "bye" });
  assert.deepEqual([bench.answers[1].code, bench.sent.at(-1), bench.saved], ["closed", { type: "bye" }, null]);
  bench.call(2, { type: "rooms" });
  assert.equal(bench.answers[2].code, "closed");
  bench.close(1000);
  assert.deepEqual(bench.state, { name: "offline", reason: "closed", message: null, willRetry: false, inMs: null });
});

test("own direct messages are reported after the ack", () => {
  const bench = online().call(1, send("hi", "bob"));
  bench.reply("send", { type: "ack", to: "Bob", msg_id: "d1", delivered: "online", time: 7, duplicate: false });
  assert.deepEqual(bench.events.at(-1), { type: "message", to: "Bob", from: "ann", msg_id: "d1", seq: null, time: 7, body: "hi" });
});

test("damaged saved state is ignored", () => {
  for (const saved of [{ token: 5, positions: 7 }, { positions: { "#r": null, "@": { seq: "x" } } }, [], "x"]) {
    assert.equal(new Bench({ saved }).open().state.name, "online");
  }
});
