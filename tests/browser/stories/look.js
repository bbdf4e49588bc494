import { mkdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually } from "../eventually.js";

const output = fileURLToPath(new URL("../output/", import.meta.url));

export function lookStories(world) {
  test("the first paint comes early", async (context) => {
    const page = await (await world.people.context()).newPage();
    await page.goto(world.url);
    await page.waitForSelector("#entry-nick");
    const paint = await eventually("the page is painted", () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
    context.diagnostic(`first contentful paint ${Math.round(paint)} ms`);
  });

  test("screenshots of every screen are taken", async () => {
    mkdirSync(output, { recursive: true });
    const shot = (person, name) => person.page.screenshot({ path: `${output}${name}.png`, animations: "disabled" });
    for (const [name, options] of Object.entries({
      light: {}, dark: { colorScheme: "dark" }, phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
      "phone-dark": { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: "dark" },
    })) {
      const entry = await (await world.people.context(options)).newPage();
      await entry.goto(world.url);
      await entry.waitForSelector("#entry-nick");
      await entry.screenshot({ path: `${output}entry-${name}.png` });
      const cast = castOf(name);
      const ann = await world.people.enter(cast.me, { room: cast.room, ...options });
      await talk(world, ann, cast);
      await shot(ann, `chat-${name}`);
      await ann.page.keyboard.press("Control+k");
      await ann.page.waitForSelector(".switcher[open]");
      await shot(ann, `switcher-${name}`);
      await ann.page.keyboard.press("Escape");
      if (name.startsWith("phone")) {
        await ann.page.click("[aria-label='Open conversations']");
        await ann.page.waitForSelector(".with-drawer");
        await shot(ann, `drawer-${name}`);
        await ann.page.keyboard.press("Escape");
        await ann.page.click("[aria-label=Members]");
        await ann.page.waitForSelector(".members");
        await shot(ann, `members-${name}`);
      } else {
        await ann.page.click(".you");
        await ann.page.waitForSelector(".sheet[open]");
        await shot(ann, `settings-${name}`);
        await ann.page.keyboard.press("Escape");
        await ann.open(cast.mira);
        await ann.say("On my way.");
        await ann.page.waitForSelector(".mark.delivered");
        await shot(ann, `direct-${name}`);
      }
      await world.people.leave();
    }
  });
}

/** Names for a picture. Those of the pictures in README, `light` and `phone-dark`, are plain. */
function castOf(name) {
  if (name === "phone-dark") return { me: "Nora", mira: "Theo", jonas: "Ida", room: "#launch", tag: "-phone-dark" };
  const tag = name === "light" ? "" : `-${name}`;
  return { me: `Lena${tag}`, mira: `Mira${tag}`, jonas: `Jonas${tag}`, room: `#design${tag}`, tag };
}

async function talk(world, ann, { me, mira: second, jonas: third, room, tag }) {
  const mira = await world.people.enter(second, { room });
  const jonas = await world.people.enter(third, { room });
  await mira.say("Morning! The new gateway build is on staging, notes are here: https://example.com/releases/0.9");
  await ann.sees("Morning!");
  await ann.say("Reading them now.");
  await ann.say("Does the rolling restart keep sessions?");
  await jonas.sees("rolling restart");
  await jonas.say("It does. I ran `make roll` twice under load:\n```\n$ make roll\n  g1   drains its clients, ended after 1.4 s\n  g2   drains its clients, ended after 1.3 s\nAll gateways were restarted in 4 s.\n```\nnothing lost, nobody left.");
  await mira.sees("nothing lost");
  await mira.say(`@${me} can you check the dashboard as well?`);
  await mira.say("The latency panel should stay flat at about 2 ms while the second gateway takes over; if it does not, we look at the outbox first.");
  await jonas.say("/away lunch until one");
  for (const other of ["#incidents", "#random", "#frontend"]) {
    await ann.say(`/join ${other}${tag}`);
    await eventually(`${other} is open`, async () => (await ann.title()) === `${other}${tag}`);
  }
  await mira.say(`/join #random${tag}`);
  await eventually("the other room is open", async () => (await mira.title()) === `#random${tag}`);
  await mira.say("who wants the last slice?");
  await mira.say("going once …");
  await ann.open(room.slice(1)).catch(async () => {
    await ann.page.click("[aria-label='Open conversations']");
    await ann.open(room.slice(1));
  });
  await ann.say("Looks flat to me. 1.8 ms at p99.");
  await jonas.say("/me waves from the queue at the bakery");
  await mira.say(`/msg ${me} thanks! see you at three?`);
  await eventually("the message is counted", async () => (await ann.page.locator(".badge.calls").count()) === 1);
}
