import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { eventually } from "../eventually.js";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

async function violations(page) {
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }).then(({ violations: all }) =>
    all.filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => target + " " + failureSummary).join(" | ")}`)));
  return found;
}

export function accessStories(world) {
  for (const colorScheme of ["light", "dark"]) {
    test(`axe finds nothing serious in ${colorScheme}`, async () => {
      // The page's policy forbids foreign scripts; the checker is one.
      const context = await world.people.context({ colorScheme, bypassCSP: true });
      const page = await context.newPage();
      await page.addInitScript({ path: axe });
      await page.goto(`${world.url}/#axe-${colorScheme}`);
      await page.waitForSelector("#entry-nick");
      assert.deepEqual(await violations(page), []);
      await page.fill("#entry-nick", `ann-${colorScheme}`);
      await page.keyboard.press("Enter");
      await page.waitForSelector("parley-composer textarea");
      const bob = await world.people.enter(`bob-${colorScheme}`, { room: `#axe-${colorScheme}` });
      await bob.say(`@ann-${colorScheme} see https://a.example and \`code\`\n\`\`\`\na block\n\`\`\``);
      await bob.say(`/msg ann-${colorScheme} psst`);
      await bob.say("/away lunch");
      await page.waitForSelector(".badge.calls");
      await page.waitForSelector(".member-away");
      await page.fill("parley-composer textarea", "/msg nobody-at-all x");
      assert.deepEqual(await violations(page), []);
      await page.press("parley-composer textarea", "Enter");
      await page.waitForSelector(".row.failed");
      assert.deepEqual(await violations(page), []);
      for (const [open, selector] of [["Control+k", ".switcher[open]"], ["", ".sheet[open]"]]) {
        if (open) await page.keyboard.press(open);
        else await page.click(".you");
        await page.waitForSelector(selector);
        await eventually("the dialog stands still", () => page.evaluate(() => document.getAnimations().length === 0));
        assert.deepEqual(await violations(page), []);
        await page.keyboard.press("Escape");
        await page.waitForSelector(selector, { state: "detached" });
      }
    });
  }

  test("everything works with the keyboard only", async () => {
    const ann = await world.people.enter("annk", { room: "#keys" });
    const { page } = ann;
    const focused = () => page.evaluate(() => document.activeElement.localName);
    await eventually("the field has the focus", async () => (await focused()) === "textarea");
    await page.keyboard.type("typed blindly");
    await page.keyboard.press("Enter");
    await ann.sees("typed blindly");
    await page.keyboard.press("Control+k");
    await page.waitForSelector(".switcher[open]");
    assert.equal(await focused(), "input");
    await page.keyboard.type("keys-two");
    await page.keyboard.press("Enter");
    await eventually("the room is open", async () => (await ann.title()) === "#keys-two");
    await eventually("the field has the focus again", async () => (await focused()) === "textarea");
    await page.keyboard.press("Control+k");
    await page.keyboard.press("Escape");
    await eventually("the focus returned", async () => (await focused()) === "textarea");
    const seen = new Set();
    for (let step = 0; step < 30; step += 1) {
      await page.keyboard.press("Tab");
      seen.add(await page.evaluate(() => {
        const { className, localName } = document.activeElement;
        const outline = getComputedStyle(document.activeElement).outlineStyle;
        return `${localName}.${className.split?.(" ")[0] ?? ""} ${localName === "textarea" || localName === "body" ? "" : outline}`;
      }));
    }
    for (const stop of ["button.you solid", "button.jump solid", "button.entry-link solid", "button.member solid", "button.icon-button solid"]) {
      assert.ok(seen.has(stop), `${stop} in ${[...seen]}`);
    }
    await page.locator(".entry-link[tabindex='0']").focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await eventually("the arrow chose the first room", async () => (await ann.title()) === "#keys");
  });

  test("new messages are announced politely", async () => {
    const ann = await world.people.enter("annl", { room: "#live" });
    const bob = await world.people.enter("bobl", { room: "#live" });
    await bob.say("read me aloud");
    await eventually("the live region has it", async () => (await ann.page.locator("[aria-live=polite]").innerText()).includes("bobl: read me aloud"));
  });

  test("narrow windows never scroll sideways", async () => {
    const ann = await world.people.enter("user:a-very-long-nickname/that.has+48.characters", { room: "#https://a.example/a-room/with-a-very-long-name-that-does-not-fit-in-its-line", viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
    await ann.say(`https://a.example/${"x".repeat(300)}\n\`\`\`\n${"y".repeat(300)}\n\`\`\`\n${"z".repeat(300)}`);
    await ann.sees("zzz");
    const fits = () => ann.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.querySelector(".scroller").scrollWidth <= innerWidth);
    assert.equal(await fits(), true);
    await ann.page.click("[aria-label='Open conversations']");
    await ann.page.waitForSelector(".with-drawer");
    assert.equal(await fits(), true);
    const small = await ann.page.locator(".sidebar button:visible").evaluateAll((all) => all.map((one) => one.getBoundingClientRect()).filter(({ height }) => height < 44).length);
    assert.equal(small, 0);
    await ann.page.keyboard.press("Escape");
    await ann.page.click("[aria-label=Members]");
    await ann.page.waitForSelector(".members");
    assert.equal(await fits(), true);
  });
}
