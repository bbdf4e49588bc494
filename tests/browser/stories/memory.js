import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser, PLAIN_HOST } from "../cluster.js";
import { eventually } from "../eventually.js";
import { Person } from "../people.js";

const scroller = "parley-timeline .scroller";

export function memoryStories(world) {
  test("a reload keeps name, rooms, place and draft", async () => {
    const filler = await LineUser.enter("filler-m", "#memory");
    filler.say(...Array.from({ length: 150 }, (_, index) => `line ${index}`));
    await filler.sees("line 149");
    const ann = await world.people.enter("annm", { room: "#memory" });
    await ann.sees("line 149");
    await ann.say("/join other-m");
    await eventually("the other room is open", async () => (await ann.title()) === "#other-m");
    await ann.open("memory");
    await ann.page.locator("parley-composer textarea").pressSequentially("not sent yet");
    await ann.page.locator(scroller).evaluate((element) => (element.scrollTop = 300));
    const place = () => ann.page.evaluate((selector) => {
      const top = document.querySelector(selector).getBoundingClientRect().top;
      const row = [...document.querySelectorAll(".row.message")].find((candidate) => candidate.getBoundingClientRect().bottom > top);
      return [row.querySelector(".text").innerText, Math.round(row.getBoundingClientRect().top - top)];
    }, scroller);
    await eventually("the place is kept", () => ann.page.evaluate(() => /"seq"/.test(sessionStorage.getItem("parley.page.places"))));
    await ann.page.waitForFunction(() => localStorage.getItem("parley.page") && true);
    const before = await eventually("the list is still", async () => {
      const first = JSON.stringify(await place());
      await new Promise((resolve) => setTimeout(resolve, 300));
      return first === JSON.stringify(await place()) && JSON.parse(first);
    });
    await ann.page.reload();
    await ann.page.waitForSelector(".row.message");
    await eventually("the place is restored", async () => {
      const [text, top] = await place();
      return text === before[0] && Math.abs(top - before[1]) <= 2;
    });
    assert.equal(await ann.title(), "#memory");
    assert.deepEqual((await ann.page.locator(".entry-name").allInnerTexts()).sort(), ["memory", "other-m"]);
    assert.equal(await ann.page.locator("parley-composer textarea").inputValue(), "not sent yet");
    assert.equal(await ann.page.locator(".you-name").innerText(), "annm");
    filler.leave();
  });

  test("two tabs are one person", async () => {
    const ann = await world.people.enter("anntabs", { room: "#tabs" });
    const bob = await world.people.enter("bobtabs", { room: "#tabs" });
    const tab = await ann.tab();
    await eventually("both tabs are in the room", async () => (await tab.title()) === "#tabs");
    assert.equal(await bob.page.locator(".member").count(), 2);
    await tab.say("from the second tab");
    await ann.sees("from the second tab");
    await bob.sees("from the second tab");
    await bob.say("unread in no tab");
    await eventually("both tabs have read it", async () => (await ann.page.locator(".badge").count()) + (await tab.page.locator(".badge").count()) === 0);
    await tab.page.fill("parley-composer textarea", "a shared draft");
    await eventually("the other tab has the draft", async () => {
      await ann.page.evaluate(() => dispatchEvent(new Event("focus")));
      return (await ann.page.inputValue("parley-composer textarea")) === "a shared draft";
    });
    await tab.say("/join tabs-two");
    await eventually("the other tab is in the new room", async () => (await ann.page.locator(".entry-name").allInnerTexts()).includes("tabs-two"));
    assert.equal(await ann.title(), "#tabs");
    await tab.page.locator(".entry-link").first().click();
    await ann.page.close();
    await tab.say("still here");
    await bob.sees("still here");
    await bob.say("so am I");
    await tab.sees("so am I");
    assert.equal(await bob.page.locator(".member").count(), 2);
    tab.assertNoErrors();
  });

  test("tabs without locks are two people", async () => {
    const context = await world.people.context();
    const url = world.url.replace("127.0.0.1", PLAIN_HOST);
    const open = async () => {
      const person = new Person(await context.newPage());
      await person.page.goto(`${url}/#plain`);
      return person;
    };
    const ann = await open();
    await ann.enter("ann-plain");
    assert.equal(await ann.page.evaluate(() => navigator.locks), undefined);
    const bob = await open();
    await bob.enter("bob-plain");
    await bob.say("from the second tab");
    await ann.sees("from the second tab");
    for (const person of [ann, bob]) {
      await person.page.reload();
      await person.page.waitForSelector("parley-composer textarea");
    }
    assert.deepEqual([await ann.page.locator(".you-name").innerText(), await bob.page.locator(".you-name").innerText()], ["ann-plain", "bob-plain"]);
    await ann.page.click("[aria-label='Copy link to this room']");
    await eventually("the link is copied", async () => /copied/.test(await ann.page.locator(".toast").innerText()));
    await ann.page.close();
    const again = await open();
    await again.page.waitForSelector("parley-composer textarea");
    assert.equal(await again.page.locator(".you-name").innerText(), "ann-plain");
    assert.equal(await bob.page.locator(".banner").count(), 0);
    bob.assertNoErrors();
  });

  test("signing out leaves nothing to the next person", async () => {
    const ann = await world.people.enter("ann-out", { room: "#quit" });
    const bob = await LineUser.enter("bob-out", "#quit");
    await ann.say("/msg bob-out between us");
    await bob.sees("between us");
    await ann.open("quit");
    await ann.page.locator("parley-composer textarea").pressSequentially("a private thought");
    await eventually("the draft is kept", () => ann.page.evaluate(() => JSON.stringify({ ...localStorage }).includes("a private thought")));
    await ann.page.click(".you");
    await ann.page.click("text=Sign out");
    await ann.page.waitForSelector("#entry-nick");
    assert.deepEqual(await ann.page.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage)]), [[], []]);
    bob.leave();
  });
}
