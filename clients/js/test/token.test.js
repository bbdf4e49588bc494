// The token of the user in the session machine: when the application is asked, and what a refusal leads to.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, REGISTERED, message, online, send } from "./machine.js";

const RESUMED = { rooms: [{ room: "#r", epoch: "e", seq: 5 }], resume: "t2" };

/** A session that can ask, and is online with the token `u1`. */
const signedIn = (options) => new Bench({ canAsk: true, ...options }).give("u1").open({ user: "user:1" });

const expiring = (bench, ms = 30_000) => bench.frame({ type: "expiring", expires_in_ms: ms });

/** Moves the clock to the renewal of a token that is a minute old. */
function renewing() {
  const bench = signedIn().reply("ping", { type: "pong" }).join();
  bench.now += 60_000;
  return expiring(bench).tick();
}

test("first token is asked for before the connection", () => {
  const bench = new Bench({ canAsk: true });
  assert.deepEqual([bench.asks, bench.urls, bench.state], [1, [], { name: "connecting" }]);
  bench.give("u1").open({ user: "user:1" });
  assert.deepEqual([bench.urls, bench.last("register").token], [["a"], "u1"]);
  assert.equal(bench.state.user, "user:1");
});

test("given token is used before any question", () => {
  const bench = new Bench({ canAsk: true, token: "u0" }).step({ type: "open" });
  assert.deepEqual([bench.asks, bench.last("register").token], [0, "u0"]);
  bench.refuse("register", "token_expired").give("u1").step({ type: "open" });
  assert.deepEqual([bench.asks, bench.last("register").token], [1, "u1"]);
});

test("guest registers without a token", () => {
  for (const nothing of [null, undefined]) {
    const bench = new Bench({ canAsk: true }).give(nothing).open();
    assert.deepEqual([bench.state.name, "token" in bench.last("register"), "user" in bench.state], ["online", false, false]);
  }
});

test("nickname of the token is not sent", () => {
  const bench = new Bench({ canAsk: true, nick: undefined }).give("u1").step({ type: "open" });
  assert.deepEqual(Object.keys(bench.last("register")), ["type", "token", "id"]);
  bench.reply("register", { ...REGISTERED, nick: "Ann" }).close(1006).tick().step({ type: "open" });
  assert.equal("nick" in bench.last("register"), false);
});

test("reconnect uses the accepted token again", () => {
  const bench = signedIn().close(1006).tick().step({ type: "open" });
  assert.deepEqual([bench.asks, bench.last("register").token, bench.last("register").resume], [1, "u1", "t1"]);
});

test("expiring token is renewed on its connection", () => {
  const bench = renewing();
  assert.deepEqual([bench.asks, bench.count("refresh")], [2, 0]);
  expiring(bench).tick();
  assert.equal(bench.asks, 2, "one question at once");
  bench.give("u2");
  assert.deepEqual([bench.asks, bench.last("refresh").token, bench.drops], [2, "u2", 0]);
  bench.reply("refresh", { type: "refreshed", expires_in_ms: 60_000, left: [] });
  assert.deepEqual([bench.state.name, bench.session.nextAt], ["online", 60_000 + 30_000]);
  bench.close(1006).tick().step({ type: "open" });
  assert.equal(bench.last("register").token, "u2");
});

test("short token is renewed after half its life", () => {
  const bench = expiring(signedIn().reply("ping", { type: "pong" }), 8_000);
  assert.deepEqual([bench.asks, bench.session.nextAt], [1, 4_000]);
  bench.tick().give("u2").reply("refresh", { type: "refreshed", expires_in_ms: 8_000, left: [] });
  assert.deepEqual([bench.asks, expiring(bench, 8_000).session.nextAt], [2, 8_000]);
});

test("announced time is never trusted blindly", () => {
  for (const ms of [undefined, null, "x", -1, 0, 1e300, Infinity]) {
    const bench = expiring(signedIn().reply("ping", { type: "pong" }), ms);
    assert(bench.session.nextAt >= bench.now && bench.session.nextAt <= 15_000, String(ms));
    assert.equal(bench.tick().asks, 2, String(ms));
  }
});

test("notice before the registration is ignored", () => {
  const bench = expiring(new Bench({ canAsk: true }).give("u1").step({ type: "open" }), 0);
  assert.deepEqual([bench.session.nextAt, bench.asks], [10_000, 1]);
});

test("rooms that the new token forbids are left", () => {
  const bench = renewing().give("u2");
  bench.reply("refresh", { type: "refreshed", expires_in_ms: 60_000, left: ["#R"] }).frame(message(6));
  assert.deepEqual(bench.events.filter(({ type }) => type === "left"), [{ type: "left", room: "#r" }]);
  assert.deepEqual([bench.delivered(), bench.saved.positions["#r"]], [[], undefined]);
});

test("refresh that fails for a while is repeated", () => {
  const bench = renewing().give("u2").refuse("refresh", "unavailable", { retry_after_ms: 1_000 });
  bench.tick();
  assert.deepEqual([bench.asks, bench.count("refresh"), bench.last("refresh").token], [2, 2, "u2"]);
});

test("refused refresh leads to one more question", () => {
  const bench = renewing().give("u2").refuse("refresh", "token_invalid");
  assert.equal(bench.asks, 3);
  bench.give("u3").refuse("refresh", "token_invalid");
  assert.deepEqual([bench.asks, bench.session.nextAt, bench.state.name], [3, bench.now + 30_000, "online"]);
  bench.close(4005, "token_expired").tick();
  assert.equal(bench.asks, 4);
});

test("guest is not renewed and ends as one", () => {
  const bench = renewing().give(null);
  assert.deepEqual([bench.count("refresh"), bench.state.name], [0, "online"]);
  bench.close(4005, "token_expired").tick().give(null).step({ type: "open" }).refuse("register", "resume_failed");
  assert.deepEqual(Object.keys(bench.last("register")), ["type", "nick", "id"]);
});

test("closed connection resumes with a new token", () => {
  const bench = signedIn().join().close(4005, "token_expired");
  assert.deepEqual(bench.state, { name: "resuming" });
  bench.tick();
  assert.deepEqual([bench.asks, bench.urls], [2, ["a"]]);
  bench.give("u2").step({ type: "open" });
  const { token, resume, since } = bench.last("register");
  assert.deepEqual([token, resume, since["#r"]], ["u2", "t1", { epoch: "e", seq: 5 }]);
});

test("session of another user begins anew", () => {
  const bench = signedIn().join().close(4005).tick().give("eve").step({ type: "open" }).refuse("register", "resume_failed");
  const { token, resume } = bench.last("register");
  assert.deepEqual([token, resume], ["eve", undefined]);
  bench.reply("register", { ...REGISTERED, user: "user:2" }).refuse("join", "forbidden");
  assert.deepEqual([bench.state.user, bench.events.at(-1)], ["user:2", { type: "left", room: "#r" }]);
});

test("refused fresh token is final at the second time", () => {
  for (const code of ["token_invalid", "token_required"]) {
    const bench = new Bench({ canAsk: true }).call(1, { type: "rooms" }).give("u1").step({ type: "open" });
    bench.refuse("register", code);
    assert.deepEqual([bench.asks, bench.drops, 1 in bench.answers], [2, 1, false]);
    bench.give("u2").step({ type: "open" }).refuse("register", code, { message: "in words" });
    assert.deepEqual([bench.asks, bench.answers[1].code, bench.session.nextAt], [2, code, Infinity]);
    assert.deepEqual(bench.state, { name: "offline", reason: code, message: "in words", willRetry: false, inMs: null });
  }
});

test("expired fresh tokens are waited for", () => {
  const bench = new Bench({ canAsk: true });
  const waits = [];
  for (let i = 0; i < 5; i += 1) {
    bench.give(`u${i}`).step({ type: "open" }).refuse("register", "token_expired");
    if (i === 0) continue;
    assert.deepEqual([bench.state.reason, bench.state.willRetry], ["token_expired", true]);
    waits.push(bench.session.nextAt - bench.now);
    bench.tick();
  }
  assert.deepEqual(waits, [250, 500, 1_000, 2_000]);
  assert.equal(bench.give("good").open().state.name, "online");
});

test("invalid token after an expired one is final", () => {
  const bench = new Bench({ canAsk: true }).give("u1").step({ type: "open" }).refuse("register", "token_expired");
  bench.give("u2").step({ type: "open" }).refuse("register", "token_invalid");
  assert.deepEqual([bench.state.reason, bench.state.willRetry], ["token_invalid", false]);
});

test("token without a source ends the session", () => {
  for (const code of ["token_expired", "token_invalid", "token_required"]) {
    const bench = new Bench({ token: "u1" }).step({ type: "open" }).refuse("register", code);
    assert.deepEqual([bench.state.reason, bench.state.willRetry, bench.asks], [code, false, 0]);
  }
  const bench = new Bench({ token: "u1" }).open().call(1, { type: "rooms" });
  expiring(bench).close(4005, "token_expired");
  assert.deepEqual([bench.state.willRetry, bench.answers[1].code, bench.asks], [false, "token_expired", 0]);
  assert.deepEqual(online().close(4005, "token_expired").state, { name: "resuming" }, "a client without tokens");
});

test("failed question is a failed attempt", () => {
  const failures = [{ error: "TypeError" }, { token: 7 }, { token: {} }, { token: true }];
  for (const failure of failures) {
    const bench = new Bench({ canAsk: true }).step({ type: "token", ...failure });
    const message = "getToken: TypeError";
    assert.deepEqual(bench.state, { name: "offline", reason: "no_token", message, willRetry: true, inMs: 250 });
    bench.tick();
    assert.deepEqual([bench.asks, bench.give("u1").open().state.name], [2, "online"]);
  }
});

test("question without an answer is given up", () => {
  const bench = new Bench({ canAsk: true }).tick();
  assert.deepEqual([bench.now, bench.drops, bench.state.reason], [10_000, 1, "no_token"]);
  bench.give("late");
  assert.deepEqual([bench.urls, bench.tick().asks], [[], 2]);
});

test("failed renewals are repeated while it is online", () => {
  const bench = renewing();
  for (let asks = 3; asks < 6; asks += 1) {
    bench.step({ type: "token", error: "Error" }).wait(null, () => bench.asks === asks);
    assert.deepEqual([bench.asks, bench.state.name], [asks, "online"]);
  }
  const asked = bench.now;
  bench.wait(null, () => bench.now > asked && bench.asks === 6);
  assert.equal(bench.asks, 6, "a question without an answer is asked again");
  bench.give("u2").reply("refresh", { type: "refreshed", expires_in_ms: 60_000, left: [] });
  assert.equal(bench.state.name, "online");
});

test("close never waits for an answer", () => {
  const bench = new Bench({ canAsk: true }).call(1, { type: "rooms" }).call("close", { type: "bye" });
  assert.deepEqual([bench.state.reason, bench.answers[1].code, bench.drops], ["closed", "closed", 1]);
  assert.deepEqual([bench.session.nextAt, bench.give("late").urls], [Infinity, []]);
  const later = renewing().call("close", { type: "bye" }).give("late");
  assert.deepEqual([later.count("refresh"), later.close(1000).state.reason], [0, "closed"]);
});

test("loss of the connection ends a question", () => {
  const bench = renewing().close(1006);
  assert.deepEqual([bench.drops, bench.give("late").tick().asks], [1, 3]);
});

test("another nickname begins again with a new token", () => {
  const bench = new Bench({ canAsk: true });
  for (let i = 0; i < 2; i += 1) bench.give("u1").step({ type: "open" }).refuse("register", "token_invalid");
  bench.call(1, { type: "nick", nick: "ann" }).give("u2").open().reply("nick", { type: "nick", nick: "ann" });
  assert.deepEqual([bench.state.name, bench.answers[1].nick, bench.asks], ["online", "ann", 3]);
});

test("token appears in register and refresh only", () => {
  const secret = "header.claims.signature";
  const bench = new Bench({ canAsk: true }).give(secret).open(RESUMED).join().call(1, send("a")).close(4005).tick().give(secret);
  bench.open(RESUMED);
  bench.now += 60_000;
  expiring(bench).tick().give(secret).refuse("refresh", "token_invalid");
  const seen = JSON.stringify([bench.saved, bench.events, bench.answers, bench.urls]);
  assert(!seen.includes("signature"), seen);
  const types = new Set(bench.sent.filter((request) => JSON.stringify(request).includes(secret)).map(({ type }) => type));
  assert.deepEqual([...types], ["register", "refresh"]);
});

test("user of a message is given to the application", () => {
  const bench = online({ canAsk: true, token: "u1" });
  assert.equal("user" in bench.state, false);
  const other = signedIn().call(1, send("hi", "bob"));
  other.reply("send", { type: "ack", to: "bob", msg_id: "d1", delivered: "online", time: 7, duplicate: false });
  assert.equal(other.events.at(-1).from_user, "user:1");
  other.join().frame(message(6, { from_user: "user:7" }));
  assert.equal(other.events.at(-1).from_user, "user:7");
});
