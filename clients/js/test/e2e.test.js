// End-to-end encryption: vectors that other languages can check, and two clients on a real cluster.

import assert from "node:assert/strict";
import { createDecipheriv, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { Sealer, createKey, encrypted, keyFromText, keyToText, linkTo, parseLink } from "../src/e2e.js";
import { Cluster, eventually } from "./cluster.js";
import { clientsOf, range } from "./helpers.js";

// Node 18 has it as a module only.
globalThis.crypto ??= webcrypto;

const vectors = JSON.parse(readFileSync(new URL("e2e-vectors.json", import.meta.url)));
const bytes = (text) => Buffer.from(text, "base64url");

let cluster;
before(async () => { cluster = await Cluster.start(1); });
after(() => cluster.stop());

for (const vector of vectors.seal) {
  test(`vector is sealed and opened: ${vector.name}`, async () => {
    const key = keyFromText(vectors.key);
    const fixed = { prefix: Uint8Array.from(bytes(vector.prefix)), counter: vector.counter };
    assert.deepEqual(await new Sealer(vector.room, key, fixed).seal(JSON.parse(vector.plaintext)), vector.sealed);
    assert.deepEqual(await new Sealer(vector.room, key).open(vector.sealed), JSON.parse(vector.plaintext));
    // The same by another implementation, from the vector alone.
    const decipher = createDecipheriv("aes-256-gcm", bytes(vectors.key), bytes(vector.nonce));
    const ct = bytes(vector.sealed.ct);
    decipher.setAAD(Buffer.from(vector.additional_data)).setAuthTag(ct.subarray(-16));
    assert.equal(decipher.update(ct.subarray(0, -16), undefined, "utf8") + decipher.final("utf8"), vector.plaintext);
  });
}

test("nonces of a sealer never repeat", async () => {
  const sealer = new Sealer("#r", createKey());
  const sealed = await Promise.all(range(0, 200).map((i) => sealer.seal(i)));
  assert.equal(new Set(sealed.map(({ s, n }) => `${s} ${n}`)).size, 200);
  const other = await new Sealer("#r", createKey()).seal(0);
  assert.notEqual(other.s, sealed[0].s);
  const last = new Sealer("#r", createKey(), { counter: 2 ** 32 - 2 });
  await last.seal(1);
  await assert.rejects(last.seal(2), RangeError);
});

test("damaged bodies and other keys are locked", async () => {
  const key = createKey();
  const sealed = await new Sealer("#r", key).seal({ secret: true });
  const sealer = new Sealer("#r", key);
  const flip = (text) => (text[0] === "A" ? "B" : "A") + text.slice(1);
  const damaged = [
    null, 7, "text", [], {}, { ...sealed, e2e: 2 }, { ...sealed, kid: flip(sealed.kid) }, { ...sealed, n: sealed.n + 1 },
    { ...sealed, n: 0.5 }, { ...sealed, n: 2 ** 32 }, { ...sealed, s: flip(sealed.s) }, { ...sealed, s: "" },
    { ...sealed, ct: flip(sealed.ct) }, { ...sealed, ct: sealed.ct.slice(4) }, { ...sealed, ct: "%" }, { ...sealed, ct: null },
  ];
  for (const body of damaged) assert.deepEqual(await sealer.open(body), { locked: true }, JSON.stringify(body));
  assert.deepEqual(await new Sealer("#r", createKey()).open(sealed), { locked: true });
  assert.deepEqual(await new Sealer("#other", key).open(sealed), { locked: true });
  assert.deepEqual(await new Sealer("#R", key).open(sealed), { secret: true });
});

test("key of another length rejects the calls only", async () => {
  const room = encrypted({ name: "#r", send: assert.fail, recent: [{ body: "plain" }] }, new Uint8Array(5));
  await new Promise(setImmediate);
  await assert.rejects(room.send("a"), { name: "DataError" });
  assert.deepEqual(await room.recent, [{ body: { locked: true } }]);
});

test("any JSON value survives sealing", async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.diagnostic(`seed ${seed}`);
  const sealer = new Sealer("#r", createKey());
  const property = fc.asyncProperty(fc.jsonValue(), async (body) => {
    assert.deepEqual(JSON.stringify(await sealer.open(await sealer.seal(body))), JSON.stringify(body));
  });
  await fc.assert(property, { seed, numRuns: 100 });
});

test("links carry room and key", () => {
  const key = createKey();
  for (const room of ["#lobby", "#café", "#a b%", "#@ann", "#https://a.example/b:c+d=e"]) assert.deepEqual(parseLink(linkTo(room, key)), { room, key });
  assert.deepEqual(parseLink("#lobby"), { room: "#lobby", key: null });
  assert.deepEqual(parseLink("#lobby!k=short"), { room: "#lobby", key: null });
  assert.deepEqual(parseLink("#%ff!k="), { room: "", key: null });
  assert.deepEqual(parseLink(""), { room: "", key: null });
  assert.throws(() => keyFromText("short"), TypeError);
  assert.equal(keyToText(key).length, 43);
});

test("sends keep their order while sealing", async (t) => {
  const encrypt = crypto.subtle.encrypt.bind(crypto.subtle);
  let slow = 20;
  t.mock.method(crypto.subtle, "encrypt", async (...args) => {
    await new Promise((resolve) => setTimeout(resolve, (slow /= 4)));
    return encrypt(...args);
  });
  const sent = [];
  const room = encrypted({ name: "#r", send: async ({ n }) => sent.push(n) }, createKey());
  await Promise.all([room.send("a"), room.send("b"), room.send("c")]);
  assert.deepEqual(sent, [0, 1, 2]);
});

test("server sees sealed bodies only", async (t) => {
  const open = clientsOf(t);
  const [ann, bob, eve] = ["ann", "bob", "eve"].map((nick) => open(cluster.urls(), { nick }));
  const key = createKey();
  const annsRoom = encrypted(await ann.join("#Secret"), key);
  const bobsRoom = encrypted(await bob.join("#secret"), key);
  const evesRoom = await eve.join("#secret");
  const [heard, seen] = [[], []];
  bobsRoom.on("message", ({ body }) => heard.push(body));
  evesRoom.on("message", ({ body }) => seen.push(body));
  const texts = range(0, 20).map((i) => "x".repeat(i % 2 ? 1 : 20_000) + i);
  await Promise.all(texts.map((text) => annsRoom.send(text)));
  await evesRoom.send("plain");
  await eventually(() => heard.length === 21 && seen.length === 21);
  assert.deepEqual(heard, [...texts, { locked: true }]);
  assert(seen.slice(0, 20).every((body) => body.e2e === 1 && !JSON.stringify(body).includes("x".repeat(10))));
  const { items } = await bobsRoom.history({ limit: 2 });
  assert.deepEqual(items.map(({ body }) => body), [texts[19], { locked: true }]);
  const late = encrypted(await open(cluster.urls(), { nick: "late" }).join("#secret", { history: 2 }), key);
  assert.deepEqual((await late.recent).map(({ body }) => body), [texts[19], { locked: true }]);
});
