// Tabs that share one session. Each tab is a worker, which the test can end as a crash does.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { Cluster, eventually } from "./cluster.js";
import { bodiesOf, clientsOf, range } from "./helpers.js";

let cluster;
before(async () => { cluster = await Cluster.start(2); });
after(() => cluster.stop());

/** The tabs of one browser, with its locks and its storage. */
class Browser {
  #folder = mkdtempSync(join(tmpdir(), "parley-tabs-"));
  #queue = [];
  tabs = [];

  open(nick) {
    const workerData = { folder: this.#folder, urls: cluster.urls(), nick };
    const worker = new Worker(new URL("tab.js", import.meta.url), { workerData });
    const tab = { worker, events: [], calls: new Map(), last: 0 };
    worker.on("message", (message) => this.#receive(tab, message));
    worker.on("error", (error) => { throw error; });
    worker.once("exit", () => this.#leaveQueue((request) => request.tab === tab));
    tab.call = (command, ...args) => new Promise((resolve, reject) => {
      tab.calls.set((tab.last += 1), { resolve, reject });
      worker.postMessage({ id: tab.last, command, args });
    });
    tab.values = (event) => tab.events.filter((entry) => entry.event === event).map(({ value }) => value);
    tab.bodies = () => tab.values("message").map(({ body }) => body);
    tab.isOnline = () => eventually(() => tab.values("state").at(-1)?.name === "online");
    this.tabs.push(tab);
    return tab;
  }

  #receive(tab, { lock, number, id, result, error, ...event }) {
    if (lock === "wanted") {
      this.#queue.push({ tab, number });
      if (this.#queue.length === 1) this.#grant();
    } else if (lock === "query") {
      tab.worker.postMessage({ answer: { pending: this.#queue.slice(1).map(() => ({ name: "parley-chat:parley" })) } });
    } else if (lock) {
      this.#leaveQueue((request) => request.tab === tab && request.number === number);
    } else if (id) {
      if (error) tab.calls.get(id).reject(Object.assign(new Error(error), { code: error }));
      else tab.calls.get(id).resolve(result);
    } else {
      tab.events.push(event);
    }
  }

  /** Removes requests of locks. A tab has several if it opened its next client already. */
  #leaveQueue(isOver) {
    const [first] = this.#queue;
    this.#queue = this.#queue.filter((request) => !isOver(request));
    if (this.#queue.length > 0 && this.#queue[0] !== first) this.#grant();
  }

  #grant() {
    const [{ tab, number }] = this.#queue;
    tab.worker.postMessage({ granted: number });
  }

  crash(tab) {
    this.tabs = this.tabs.filter((other) => other !== tab);
    return tab.worker.terminate();
  }

  async quit() {
    await Promise.all(this.tabs.map(({ worker }) => worker.terminate()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function browserOf(t) {
  const browser = new Browser();
  t.after(() => browser.quit());
  return browser;
}

test("two tabs share one session", async (t) => {
  const browser = browserOf(t);
  const [one, two] = [browser.open("ann"), browser.open("ann")];
  await Promise.all([one.call("join", "#share", 10), two.call("join", "#share", 10)]);
  await one.call("send", "#share", "from one");
  await two.call("send", "#share", "from two");
  for (const tab of [one, two]) {
    await eventually(() => tab.bodies().length === 2);
    assert.deepEqual(tab.bodies(), ["from one", "from two"]);
    assert(tab.values("message").every(({ own }) => own));
  }
  const three = browser.open("another name");
  const { recent, members } = await three.call("join", "#share", 10);
  assert.deepEqual([recent.map(({ body }) => body), members], [["from one", "from two"], ["ann"]]);
  assert.deepEqual(three.values("nick"), ["ann"]);
  assert.equal(three.values("state").at(-1).node, "g1");
});

test("another tab leads after a crash", async (t) => {
  const browser = browserOf(t);
  const bob = clientsOf(t)(cluster.urls(1), { nick: "bob1" });
  const room = await bob.join("#crash");
  const heard = bodiesOf(room);
  const one = browser.open("cleo");
  await one.isOnline();
  const [two, three] = [browser.open("cleo"), browser.open("cleo")];
  for (const tab of [one, two, three]) await tab.call("join", "#crash", 0);
  const left = [];
  room.on("members", (event) => left.push(...event.left));
  let crashedAt = 0;
  const sends = [];
  const total = 60;
  for (const i of range(0, total)) {
    sends.push((i % 2 ? two : three).call("send", "#crash", i));
    if (i === 30) {
      crashedAt = Date.now();
      browser.crash(one);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await Promise.all(sends);
  await eventually(() => [heard, two.bodies(), three.bodies()].every((bodies) => bodies.length === total));
  assert.deepEqual([...heard].sort((a, b) => a - b), range(0, total));
  for (const tab of [two, three]) assert.deepEqual(tab.bodies(), heard);
  assert.deepEqual(left, []);
  const { resumed, tookMs } = two.values("state").at(-1);
  assert.equal(resumed, true);
  t.diagnostic(`the new leader resumed after ${tookMs} ms, all sends after ${Date.now() - crashedAt} ms`);
});

test("tabs share read marks and directs", async (t) => {
  const browser = browserOf(t);
  const bob = clientsOf(t)(cluster.urls(1), { nick: "bob2" });
  const room = await bob.join("#marks");
  const [one, two] = [browser.open("dora"), browser.open("dora")];
  await Promise.all([one.call("join", "#marks", 0), two.call("join", "#marks", 0)]);
  await room.send("hi");
  await eventually(() => two.values("read").at(-1)?.unread === 1 && one.values("read").at(-1)?.unread === 1);
  await two.call("read", "#marks");
  await eventually(() => one.values("read").at(-1).unread === 0);
  await two.call("send", "bob2", "psst");
  await bob.direct("dora").send("yes?");
  for (const tab of [one, two]) {
    await eventually(() => tab.values("direct").length === 2);
    assert.deepEqual(tab.values("direct").map(({ body, own }) => [body, own]), [["psst", true], ["yes?", false]]);
  }
});

test("new leader keeps the nickname", async (t) => {
  const browser = browserOf(t);
  const one = browser.open("gina");
  await one.isOnline();
  await one.call("rename", "georgina");
  const two = browser.open("gina");
  await two.isOnline();
  await browser.crash(one);
  await two.call("join", "#renamed", 0);
  await eventually(() => two.values("state").at(-1).resumed);
  assert.deepEqual(two.values("nick"), ["georgina"]);
  assert.deepEqual(two.values("state").map(({ name }) => name), ["online", "resuming", "online"]);
});

test("close in one tab ends all", async (t) => {
  const browser = browserOf(t);
  const [one, two] = [browser.open("edna"), browser.open("edna")];
  await Promise.all([one.isOnline(), two.isOnline()]);
  await two.call("close");
  for (const tab of [one, two]) {
    await eventually(() => tab.values("state").at(-1).reason === "closed");
    await assert.rejects(tab.call("join", "#after"), { code: "closed" });
  }
  const next = browser.open("anna");
  await next.isOnline();
  assert.equal(next.values("state").at(-1).resumed, false);
});

test("tabs of a closed session report nothing", async (t) => {
  const browser = browserOf(t);
  const bob = clientsOf(t)(cluster.urls(1), { nick: "bob6" });
  const room = await bob.join("#quiet");
  const [one, two] = [browser.open("fred"), browser.open("fred")];
  for (const tab of [one, two]) await tab.call("join", "#quiet", 0);
  await room.send("unread");
  for (const tab of [one, two]) await eventually(() => tab.values("read").at(-1)?.unread === 1);
  await one.call("close");
  for (const tab of [one, two]) {
    await eventually(() => tab.values("state").at(-1).reason === "closed");
    await tab.call("read", "#quiet");
    await tab.call("typing", "#quiet");
    await tab.call("retry");
    assert.equal(tab.values("read").at(-1).unread, 0);
  }
  assert.deepEqual([...one.values("error"), ...two.values("error")], []);
});

for (const [who, index, when] of [["leading", 0, "after"], ["leading", 0, "during"], ["following", 1, "after"]]) {
  test(`${who} tab opens another client ${when} its close`, async (t) => {
    const browser = browserOf(t);
    const nick = `hans-${who}-${when}`;
    const one = browser.open(nick);
    await one.isOnline();
    const tabs = [one, browser.open(nick)];
    await tabs[1].isOnline();
    const states = tabs[index].values("state").length;
    await tabs[index].call("replace", `${nick}-2`, when === "during");
    const { members } = await tabs[index].call("join", `#${nick}`, 0);
    assert.deepEqual(members, [`${nick}-2`]);
    const names = tabs[index].values("state").slice(states).map(({ name }) => name);
    assert.deepEqual(names.filter((name) => name === "offline" || name === "online"), ["offline", "online"]);
  });
}

test("rooms of another tab are reported", async (t) => {
  const browser = browserOf(t);
  const [one, two] = [browser.open("ines"), browser.open("ines")];
  await Promise.all([one.isOnline(), two.isOnline()]);
  await two.call("join", "#Two", 0);
  await one.call("join", "#one", 0);
  await eventually(() => one.values("joined").length === 1 && two.values("joined").length === 1);
  assert.deepEqual([one.values("joined"), two.values("joined")], [["#Two"], ["#one"]]);
  const three = browser.open("ines");
  await three.isOnline();
  assert.deepEqual(three.values("state").at(-1).rooms, ["#Two", "#one"]);
  await two.call("leave", "#Two");
  for (const tab of [one, two, three]) await eventually(async () => (await tab.call("rooms")).join() === "#one");
});

test("retry of any tab ends the wait", async (t) => {
  const browser = browserOf(t);
  const [one, two] = [browser.open("jana"), browser.open("jana")];
  await Promise.all([one.isOnline(), two.isOnline()]);
  await Promise.all(cluster.gateways.map((gateway) => gateway.kill()));
  // The tenth wait is up to 30 s long.
  const isLong = () => two.values("state").at(-1).inMs > 2_000;
  await eventually(() => isLong() || (two.call("retry"), false), 30_000);
  const { inMs } = two.values("state").at(-1);
  const lostAt = Date.now();
  await Promise.all(cluster.gateways.map((gateway) => gateway.start()));
  await eventually(async () => (await two.call("retry"), one.values("state").at(-1).name === "online"), 30_000);
  t.diagnostic(`online after ${Date.now() - lostAt} ms instead of ${inMs} ms`);
});

test("refused nickname gives way to another", async (t) => {
  const browser = browserOf(t);
  const bob = clientsOf(t)(cluster.urls(1), { nick: "bob5" });
  await eventually(() => bob.state.name === "online");
  const one = browser.open("bob5");
  await eventually(() => one.values("state").at(-1)?.reason === "nick_in_use");
  const two = browser.open("karl");
  await Promise.all([one.isOnline(), two.isOnline()]);
  assert.deepEqual([one.values("nick").at(-1), two.values("nick").at(-1)], ["karl", "karl"]);
});

test("refused nickname is renamed from any tab", async (t) => {
  const browser = browserOf(t);
  const bob = clientsOf(t)(cluster.urls(1), { nick: "bob4" });
  await eventually(() => bob.state.name === "online");
  const [one, two] = [browser.open("bob4"), browser.open("bob4")];
  for (const tab of [one, two]) await eventually(() => tab.values("state").at(-1)?.reason === "nick_in_use");
  await two.call("rename", "robert");
  await one.isOnline();
  assert.deepEqual([one.values("nick"), two.values("nick")], [["robert"], ["robert"]]);
});
