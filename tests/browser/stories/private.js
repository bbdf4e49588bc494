import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

const clipboard = { permissions: ["clipboard-read", "clipboard-write"] };

/** Opens a new private room, and returns its name and its link. */
async function openPrivate(person) {
  await person.page.click("[aria-label='New private room']");
  await eventually("the private room is open", async () => (await person.title()).startsWith("#private-"));
  await person.page.click("parley-header [aria-label='Copy private link']");
  return { room: await person.title(), link: new URL(await person.page.evaluate(() => navigator.clipboard.readText())) };
}

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

  test("the secret of a link never reaches the server", async () => {
    const ann = await world.people.enter("ann-s", { room: "#any-s", ...clipboard });
    const frames = [];
    ann.page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => frames.push(String(payload))));
    await ann.page.reload();
    await ann.page.waitForSelector("parley-composer textarea");
    const { room, link } = await openPrivate(ann);
    await ann.page.evaluate((hash) => (location.hash = hash), link.hash);
    await eventually("the address has no secret", () => !ann.page.url().includes("!k="));
    const secret = link.hash.split("!k=")[1];
    const isOpen = (name) => eventually(`${name} is open`, async () => (await ann.title()) === name);
    for (const [index, enter] of [
      (typed) => ann.say(`/join ${typed}`),
      (typed) => ann.say(`/msg ${typed} hello`),
      async (typed) => {
        await ann.page.keyboard.press("Control+k");
        await ann.page.fill(".switcher input", typed);
        await ann.page.keyboard.press("Enter");
      },
    ].entries()) {
      await enter(link.href);
      await isOpen(room);
      await enter(`#fresh-${index}!k=${secret}`);
      await isOpen(`#fresh-${index}`);
      await enter(`#damaged-${index}!k=${secret}.`);
      await eventually("the damaged link is refused", async () => /room name/.test(await ann.page.locator(".toast").innerText().catch(() => "")));
    }
    await ann.say(`/join ${link.href}`);
    await isOpen(room);
    await ann.say("sealed");
    await ann.sees("sealed");
    assert.deepEqual(frames.filter((frame) => frame.includes("!k=") || frame.includes(secret)), []);
    assert.ok(!ann.page.url().includes("!k="));
    ann.assertNoErrors();
  });

  test("a tab seals with a secret of another tab", async () => {
    const ann = await world.people.enter("ann-t", { room: "#any-t", ...clipboard });
    const { room, link } = await openPrivate(ann);
    await ann.say("our secret");
    const bob = await world.people.enter("bob-t", { room });
    await bob.sees("needs the private link");
    const tab = await bob.tab(room);
    await tab.sees("needs the private link");
    await bob.visit(link.hash);
    await bob.page.locator(".row.message .text", { hasText: "our secret" }).waitFor();
    await tab.page.locator(".row.message .text", { hasText: "our secret" }).waitFor();
    await tab.say("sealed too");
    await ann.sees("sealed too");
    const reader = await LineUser.enter("line-t", room);
    reader.say("/history");
    await reader.sees('"e2e":1');
    await assert.rejects(reader.sees("sealed too", 500));
    bob.assertNoErrors();
    tab.assertNoErrors();
  });
}
