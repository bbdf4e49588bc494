import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";
import { Person, plain } from "../people.js";

export function talkStories(world) {
  test("two people talk in a room", async () => {
    const ann = await world.people.enter("ann1", { room: "#talk" });
    const bob = await world.people.enter("bob1", { room: "#talk" });
    await ann.say("hello bob");
    await bob.sees("hello bob");
    await bob.say("hello ann\nsecond line");
    await ann.sees("hello ann");
    await ann.seesNote(/^bob1 joined$/);
    assert.equal(await ann.title(), "#talk");
    assert.equal(await ann.page.locator(".member").count(), 2);
    ann.assertNoErrors();
    bob.assertNoErrors();
  });

  test("errors of names are shown in place", async () => {
    await world.people.enter("ann2", { room: "#talk" });
    const context = await world.people.context();
    const page = await context.newPage();
    await page.goto(world.url);
    const error = page.locator("#entry-error");
    for (const [nick, text] of [["ann2", /taken/], ["АNN2", /too much like/], ["a b", /letters and digits/]]) {
      await page.fill("#entry-nick", nick);
      await page.keyboard.press("Enter");
      await eventually(`${nick} is refused`, async () => text.test(await error.innerText()));
    }
    await page.fill("#entry-nick", "ann2-too");
    await page.keyboard.press("Enter");
    await page.waitForSelector("parley-composer textarea");
  });

  test("a held name can be changed for another", async () => {
    const ann = await world.people.enter("ann-held", { room: "#held" });
    await ann.say("here");
    await ann.sees("here");
    await world.people.leave();
    const page = await (await world.people.context()).newPage();
    await page.goto(world.url);
    await page.fill("#entry-nick", "ann-held");
    await page.keyboard.press("Enter");
    await eventually("the name is held", async () => /held for its last user/.test(await page.locator("#entry-error").innerText()));
    await page.fill("#entry-nick", "ann-free");
    await page.keyboard.press("Enter");
    await page.waitForSelector("parley-composer textarea");
    assert.equal(await page.locator(".you-name").innerText(), "ann-free");
  });

  test("a message to a room goes to that room", async () => {
    const ann = await world.people.enter("ann11", { room: "#one11" });
    const bob = await world.people.enter("bob11", { room: "#one11" });
    for (const room of ["#one11", "＃one11"]) {
      await ann.say(`/msg ${room} to ${room}`);
      await bob.sees(`to ${room}`);
    }
    await ann.say("/msg @ nothing");
    await eventually("the usage is shown", async () => (await ann.page.locator(".toast").innerText()).includes("/msg nick text"));
    await ann.say("/join ＃wide11");
    await eventually("the room is open", async () => (await ann.title()) === "#wide11");
    assert.deepEqual(await ann.page.locator(".entry-name").allInnerTexts(), ["one11", "wide11"]);
    ann.assertNoErrors();
  });

  test("a link opens its room after the name", async () => {
    const ann = await world.people.enter("ann3", { room: "#the-%E8%8C%B6" });
    await eventually("the room is open", async () => (await ann.title()) === "#the-茶");
    assert.match(ann.page.url(), /#the-/);
  });

  test("unread messages and mentions are counted", async () => {
    const ann = await world.people.enter("ann4", { room: "#first4" });
    const bob = await world.people.enter("bob4", { room: "#first4" });
    await ann.say("/join second4");
    await eventually("the second room is open", async () => (await ann.title()) === "#second4");
    await bob.say("one");
    await bob.say("two @ann4");
    const entry = ann.page.locator(".entry-link", { hasText: "first4" });
    await eventually("the mention is counted", async () => /^1/.test(await entry.locator(".badge.calls").innerText({ timeout: 500 }).catch(() => "")));
    await eventually("the title has the number", async () => (await ann.page.title()).startsWith("(1) #second4"));
    await ann.page.keyboard.press("Alt+a");
    await eventually("the unread room is open", async () => (await ann.title()) === "#first4");
    await ann.sees("two @ann4");
    assert.equal(await ann.page.locator(".row.new").count(), 1);
    assert.equal(await ann.page.locator(".row.called").count(), 1);
    await eventually("everything is read", async () => (await ann.page.locator(".badge").count()) === 0);
    await eventually("the title has no number", async () => (await ann.page.title()) === "#first4 · Parley");
  });

  test("joins and leaves are one line", async () => {
    const ann = await world.people.enter("ann5", { room: "#crowd5" });
    const crowd = [];
    for (let index = 0; index < 6; index += 1) crowd.push(await LineUser.enter(`guest5${index}`, "#crowd5"));
    await ann.seesNote(/^guest50, guest51 and 4 others joined$/);
    for (const guest of crowd.slice(0, 5)) guest.leave();
    await ann.seesNote(/^guest55 joined$/);
    assert.equal(await ann.page.locator(".row.note").count(), 1);
    crowd[5].leave();
  });

  test("commands and completion work from the field", async () => {
    const ann = await world.people.enter("ann6", { room: "#cmd6" });
    const bob = await world.people.enter("bobby6", { room: "#cmd6" });
    const field = ann.page.locator("parley-composer textarea");
    await eventually("both are members", async () => (await ann.page.locator(".member").count()) === 2);
    await field.pressSequentially("bob");
    await field.press("Tab");
    assert.equal(await field.inputValue(), "@bobby6 ");
    await field.fill("");
    await field.pressSequentially("/aw");
    assert.deepEqual(await ann.page.locator(".options [role=option] b").allInnerTexts(), ["/away"]);
    await field.press("Enter");
    await field.pressSequentially("making tea");
    await field.press("Enter");
    await eventually("the away text is shown", async () => (await bob.page.locator(".member-away").allInnerTexts()).includes("making tea"));
    await ann.say("/dance");
    await eventually("the command is refused", async () => plain(await ann.page.locator(".toast").innerText()).includes("no command /dance"));
    assert.equal(await field.inputValue(), "/dance");
    await ann.say("/nick ann6b");
    await bob.seesNote(/ann6 is now ann6b/);
    await field.fill("");
    await field.press("ArrowUp");
    assert.equal(await field.inputValue(), "/nick ann6b");
  });

  test("an action names its sender itself", async () => {
    const ann = await world.people.enter("ann10", { room: "#act10" });
    const bob = await world.people.enter("bob10", { room: "#act10" });
    const line = await LineUser.enter("line10", "#act10");
    await ann.say("before");
    await ann.say("/me waves at @bob10");
    await ann.say("after");
    await bob.sees("after");
    assert.deepEqual((await bob.messages()).map(plain), ["before", "ann10 waves at @bob10", "after"]);
    assert.equal(await bob.page.locator(".row.called .action .mention").innerText(), "@bob10");
    assert.equal(await bob.page.locator(".row.message .by").count(), 2);
    await eventually("it is announced", async () => (await bob.page.locator("[aria-live=polite]").innerText()).includes("ann10: after"));
    await line.sees('<ann10> {"me":"waves at @bob10"}');
    line.leave();
    ann.assertNoErrors();
    bob.assertNoErrors();
  });

  test("mentions and direct messages notify", async () => {
    const context = await world.people.context({ permissions: ["notifications"] });
    await context.addInitScript(() => {
      window.shown = [];
      window.Notification = class extends window.Notification {
        constructor(title, options) {
          super(title, options);
          window.shown.push(`${title}: ${options.body}`);
        }
      };
    });
    const ann = new Person(await context.newPage());
    await ann.visit("#notify9");
    await ann.enter("ann9");
    const bob = await world.people.enter("bob9", { room: "#notify9" });
    await ann.say("/join quiet9");
    await eventually("the other room is open", async () => (await ann.title()) === "#quiet9");
    await bob.say("not for you");
    await bob.say("@ann9 look");
    await bob.say("/msg ann9 psst");
    const expected = ["bob9 in #notify9: @ann9 look", "bob9: psst"];
    await eventually("both are shown", () => ann.page.evaluate((all) => window.shown.join() === all.join(), expected));
    assert.equal(await ann.page.locator("link[rel=icon]").getAttribute("href"), "/page/icon-dot.svg");
    await eventually("the title counts both", async () => (await ann.page.title()).startsWith("(2) "));
  });

  test("typing is shown to the others", async () => {
    const ann = await world.people.enter("ann7", { room: "#typing7" });
    const bob = await world.people.enter("bob7", { room: "#typing7" });
    await bob.page.locator("parley-composer textarea").pressSequentially("hm");
    await eventually("typing is shown", async () => plain(await ann.page.locator(".typing").innerText()) === "bob7 is typing …");
    await eventually("typing ends", async () => (await ann.page.locator(".typing").innerText()) === "");
  });

  test("the page speaks Chinese", async () => {
    const ann = await world.people.enter("安8", { room: "#zh8", locale: "zh-CN" });
    assert.equal(await ann.page.locator(".members-head h2").innerText(), "成员 1");
    await ann.page.click(".you");
    await ann.page.selectOption("#you-language", "en");
    await eventually("the page speaks English", async () => (await ann.page.locator("#you-title").innerText()) === "You and settings");
    await ann.page.reload();
    await ann.page.waitForSelector(".members-head");
    assert.match(await ann.page.locator(".members-head h2").innerText(), /^Members/);
    assert.equal(await ann.page.locator("html").getAttribute("lang"), "en");
  });
}
