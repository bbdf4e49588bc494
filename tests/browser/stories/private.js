import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

export function privateStories(world) {
  test("a private room is read with its link only", async () => {
    const ann = await world.people.enter("annq", { room: "#any-q", permissions: ["clipboard-read", "clipboard-write"] });
    await ann.page.click("[aria-label='New private room']");
    await eventually("the private room is open", async () => (await ann.title()).startsWith("#private-"));
    const room = await ann.title();
    await ann.say("our secret");
    await ann.page.click("parley-header [aria-label='Copy private link']");
    const link = new URL(await ann.page.evaluate(() => navigator.clipboard.readText()));
    assert.match(link.hash, /^#private-\w+!k=[\w-]{43}$/);
    const bob = await world.people.enter("bobq", { room: link.hash });
    await bob.sees("our secret");
    assert.ok(!bob.page.url().includes("!k="));
    await bob.page.reload();
    await bob.sees("our secret");
    const wrong = link.hash.slice(0, -4) + (link.hash.at(-4) === "A" ? "B" : "A") + link.hash.slice(-3);
    const eve = await world.people.enter("eveq", { room: wrong });
    await eve.sees("cannot be opened with your link");
    const mallory = await world.people.enter("malq", { room });
    await mallory.sees("needs the private link");
    const reader = await LineUser.enter("lineq", room);
    reader.say("/history");
    await reader.sees('"e2e":1');
    await assert.rejects(reader.sees("our secret", 500));
    assert.equal(await ann.page.locator(".chip").innerText(), "Private room");
  });
}
