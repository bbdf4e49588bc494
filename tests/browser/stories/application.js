import assert from "node:assert/strict";
import { test } from "node:test";
import { callApi } from "../cluster.js";
import { eventually } from "../eventually.js";

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
}
