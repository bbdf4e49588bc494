import assert from "node:assert/strict";
import { test } from "node:test";
import { callApi } from "../cluster.js";
import { eventually } from "../eventually.js";
import { Person } from "../people.js";

export function applicationStories(world) {
  test("messages of the application are marked and take no answer", async () => {
    const ann = await world.people.enter("annz", { room: "#app" });
    await ann.say("by ann");
    await ann.sees("by ann");
    await callApi("/v1/messages", { to: "#app", from: "annz", body: "by the application", key: "app-1" });
    await ann.sees("by the application");
    const row = ann.page.locator(".row.message", { hasText: "by the application" });
    assert.equal(await row.locator(".by-api").innerText(), "application");
    assert.equal(await row.locator("button").count(), 0);

    await callApi("/v1/messages", { to: "annz", from: "billing", body: "an invoice", key: "app-2" });
    await ann.page.waitForSelector(".entry-link .badge");
    await ann.open("billing (api)");
    await ann.sees("an invoice");
    assert.equal(await ann.page.locator("parley-composer").count(), 0);
    assert.match(await ann.page.locator(".no-answer").innerText(), /cannot be answered/);
    await eventually("it is read", async () => (await ann.page.locator(".entry-link .badge").count()) === 0);
    await ann.page.reload();
    await ann.sees("an invoice");
    assert.equal(await ann.title(), "billing (api)");
    assert.equal(await ann.page.locator(".entry-link .badge").count(), 0);
    ann.assertNoErrors();
  });

  test("an announcement reaches the page", async () => {
    const ann = await world.people.enter("annv", { room: "#app" });
    await callApi("/v1/announcements", { body: "maintenance at noon", key: "app-3" });
    await ann.page.waitForSelector(".announcement >> text=maintenance at noon");
    ann.assertNoErrors();
  });

  test("announcements are shown until they are closed", async () => {
    const page = await (await world.people.context()).newPage();
    let socket;
    await page.routeWebSocket(/\/ws$/, (route) => (socket = route).connectToServer());
    const ann = new Person(page);
    await ann.visit("#app");
    await ann.enter("annw");
    const shown = () => page.locator(".announcement .text").allInnerTexts();
    const announce = (id, body) => socket.send(JSON.stringify({ type: "announcement", msg_id: id, body, time: Date.now() }));
    announce("a1", "maintenance at https://example.org/ <b>noon</b>");
    announce("a1", "maintenance once more");
    announce("a2", { at: 12 });
    const texts = ["maintenance at https://example.org/ <b>noon</b>", '{"at":12}'];
    await eventually("two are shown", async () => (await shown()).join() === texts.join());
    assert.equal(await page.locator(".announcement a").count(), 1);
    await page.locator(".announcement button").first().click();
    await eventually("one is left", async () => (await shown()).join() === texts[1]);
    ann.assertNoErrors();
  });
}
