import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

export function directStories(world) {
  test("direct messages have one entry and ticks", async () => {
    const ann = await world.people.enter("anna", { room: "#dm" });
    const bob = await world.people.enter("boba", { room: "#dm" });
    await ann.say("/msg boba psst");
    await bob.open("anna");
    await bob.sees("psst");
    await bob.say("yes?");
    await ann.sees("yes?");
    assert.deepEqual(await ann.page.locator(".entry-link .entry-name").allInnerTexts(), ["dm", "boba"]);
    await ann.page.waitForSelector(".mark.delivered");
    await bob.page.click(".you");
    await bob.page.click("text=Sign out");
    await bob.page.waitForSelector("#entry-nick");
    await ann.say("are you there?");
    await ann.page.waitForSelector(".mark.sent");
    await eventually("the other side is offline", async () => (await ann.page.locator(".subtitle").innerText()) === "Offline");
  });

  test("direct messages are still there after a reload", async () => {
    const ann = await world.people.enter("annb", { room: "#dm" });
    const bob = await LineUser.enter("bobb", "#dm");
    await ann.say("/msg bobb first");
    await bob.sees("<- annb: first");
    bob.say("/msg annb second");
    await ann.sees("second");
    await ann.page.reload();
    await ann.sees("first");
    await ann.sees("second");
    assert.equal(await ann.title(), "bobb");
    await ann.page.click("[aria-label='Close conversation']");
    await eventually("it is closed", async () => (await ann.page.locator(".entry-name").allInnerTexts()).join() === "dm");
    await ann.page.reload();
    await ann.page.waitForSelector("parley-composer textarea");
    assert.equal((await ann.page.locator(".entry-name").allInnerTexts()).join(), "dm");
    bob.say("/msg annb third");
    await ann.open("bobb");
    await ann.sees("first");
    await ann.sees("third");
    bob.leave();
  });

  test("a link tells a room behind an at sign from a user", async () => {
    const hash = () => ann.page.evaluate(() => location.hash);
    const ann = await world.people.enter("annr.lee", { room: "#%40bobr:1" });
    const bob = await LineUser.enter("bobr:1", "#@bobr:1");
    await eventually("the room is open", async () => (await ann.title()) === "#@bobr:1");
    assert.equal(await hash(), "#%40bobr%3A1");
    await ann.page.reload();
    await ann.say("in the room");
    await bob.sees("[#@bobr:1] <annr.lee> in the room");
    await ann.say("/msg bobr:1 and directly");
    await bob.sees("<- annr.lee: and directly");
    assert.equal(await hash(), "#@bobr%3A1");
    await ann.page.reload();
    await eventually("the conversation is open", async () => (await ann.title()) === "bobr:1");
    bob.say("/msg annr.lee @annr.lee: yes");
    await ann.page.waitForSelector(".mention");
    for (const [typed, title] of [["@dorar", "dorar"], ["＠emmar", "emmar"], ["#@dorar", "#@dorar"]]) {
      await ann.page.keyboard.press("Control+k");
      await ann.page.waitForSelector(".switcher[open]");
      await ann.page.keyboard.type(typed);
      await ann.page.keyboard.press("Enter");
      await eventually(`${typed} is open`, async () => (await ann.title()) === title);
    }
    bob.leave();
    ann.assertNoErrors();
  });

  test("a message to an unknown name fails visibly", async () => {
    const ann = await world.people.enter("annc", { room: "#dm" });
    await ann.say("/msg nobody-here hello?");
    await ann.page.waitForSelector(".row.failed");
    assert.match(await ann.page.locator(".failure").innerText(), /not known here/);
    await ann.page.click(".failure >> text=Retry");
    await eventually("it fails again", async () => (await ann.page.locator(".row.failed").count()) === 1);
    await ann.page.click(".failure >> text=Delete");
    await eventually("it is deleted", async () => (await ann.page.locator(".row.message").count()) === 0);
  });
}
