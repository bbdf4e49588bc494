import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../eventually.js";
import { Person } from "../people.js";

export function clusterStories(world) {
  test("the page names its gateway and ping", async () => {
    const ann = await world.people.enter("annw", { room: "#where" });
    await eventually("gateway and ping are shown", async () => /^g[12] · \d+ ms$/.test(await ann.page.locator(".you-link").innerText()));
  });

  test("messages written offline are sent afterwards", async () => {
    const ann = await world.people.enter("anno", { room: "#offline" });
    const bob = await world.people.enter("bobo", { room: "#offline" });
    await ann.page.context().setOffline(true);
    await ann.page.evaluate(() => dispatchEvent(new Event("online")));
    await ann.page.waitForSelector(".banner", { timeout: 30_000 });
    await ann.say("written offline");
    await ann.page.waitForSelector(".row.pending");
    await ann.page.context().setOffline(false);
    await ann.page.click("text=Try now").catch(() => {});
    await bob.sees("written offline");
    await eventually("it is no longer pending", async () => (await ann.page.locator(".row.pending").count()) === 0);
    await eventually("the banner is gone", async () => (await ann.page.locator(".banner").count()) === 0);
  });

  test("try now ends the wait at once", async () => {
    const context = await world.people.context();
    const [sockets, network] = [[], { isAway: false }];
    await context.routeWebSocket(/\/ws$/, (socket) => {
      sockets.push(socket);
      if (network.isAway) socket.close({ code: 1012 });
      else socket.connectToServer();
    });
    const ann = new Person(await context.newPage());
    await ann.visit("#wait");
    await ann.enter("annt");
    network.isAway = true;
    await sockets.at(-1).close({ code: 1012 });
    const wait = async () => Number(/again in (\d+) s/.exec(await ann.page.locator(".banner").innerText())?.[1] ?? 0);
    await eventually("the wait is long", async () => (await wait()) >= 4, 60_000);
    const attempts = sockets.length;
    await ann.page.click("text=Try now");
    await eventually("another attempt is made", () => sockets.length > attempts, 2_000);
    network.isAway = false;
    await eventually("the banner is gone", async () => {
      await ann.page.click("text=Try now", { timeout: 200 }).catch(() => {});
      return (await ann.page.locator(".banner").count()) === 0;
    });
    ann.assertNoErrors();
  });

  test("a rolling restart loses nothing", async () => {
    const ann = await world.people.enter("annr", { room: "#roll" });
    const bob = await world.people.enter("bobr", { room: "#roll" });
    const sent = [];
    const rolled = world.cluster.roll();
    for (let done = false; !done; sent.push(`message ${sent.length}`)) {
      await ann.say(`message ${sent.length}`);
      done = await Promise.race([rolled.then(() => true), new Promise((resolve) => setTimeout(resolve, 200, false))]);
    }
    await bob.sees(`message ${sent.length - 1}`);
    await eventually("nothing is pending", async () => (await ann.page.locator(".row.pending").count()) === 0);
    await ann.seesNote(/g[12] → g[12] in [0-9.]+ s, nothing missed$/);
    const shown = (await bob.messages()).filter((text) => text.startsWith("message"));
    assert.deepEqual(shown, sent.slice(-shown.length));
    assert.ok(!(await bob.page.locator(".row.note").allInnerTexts()).some((note) => note.includes("left")));
  });

  test("a crashed gateway leaves one line", async () => {
    const ann = await world.people.enter("annx", { room: "#crash" });
    const bob = await world.people.enter("bobx", { room: "#crash" });
    const node = async () => (await ann.page.locator(".you-link").innerText()).slice(0, 2);
    const from = await eventually("the gateway is named", async () => (/^g[12]/.test(await node()) ? node() : null));
    await ann.say("before");
    await bob.sees("before");
    world.cluster.crash(from);
    const to = from === "g1" ? "g2" : "g1";
    await ann.seesNote(new RegExp(`^${from} → ${to} in [0-9.]+ s, nothing missed$`));
    await ann.say("after");
    await bob.sees("after");
    assert.deepEqual((await bob.messages()).filter((text) => text === "before" || text === "after"), ["before", "after"]);
  });
}
