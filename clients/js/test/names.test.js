// Names that are the same to the server are the same to a client, on a real gateway.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.js";
import { clientsOf, isOnline } from "./helpers.js";

const { pairs, old_cyrillic: oldCyrillic } = JSON.parse(readFileSync(new URL("../../names.json", import.meta.url), "utf8"));

let cluster;
before(async () => { cluster = await Cluster.start(2); });
after(() => cluster.stop());

test("client and server agree about equal names", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(0), { nick: "ann" }), open(cluster.urls(1), { nick: "bob" })];
  await isOnline(bob);
  for (const [name, other, isSame] of [...pairs, ...oldCyrillic]) {
    const what = `${name} ${other}`;
    const room = await ann.join(`#${name}`);
    assert.equal((await bob.join(`#${other}`)).name === room.name, isSame, `rooms of the server: ${what}`);
    await ann.rename(name);
    const found = await bob.whois(other).then(({ nick }) => nick, ({ code }) => code);
    assert.equal(found, isSame ? ann.nick : "no_such_user", `nicknames of the server: ${what}`);
    assert.equal((await ann.join(`#${other}`)) === room, isSame, `rooms: ${what}`);
  }
  for (const [name, other, isSame] of pairs) {
    assert.equal(bob.direct(name) === bob.direct(other), isSame, `conversations: ${name} ${other}`);
  }
});
