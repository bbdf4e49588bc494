import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

const seeds = [
  "<script>window.hacked = 1</script>", "<img src=x onerror=window.hacked=1>", "<svg/onload=window.hacked=1>", "${window.hacked=1}",
  "{{constructor.constructor('window.hacked=1')()}}", "javascript:window.hacked=1", "https://a.example/\"onmouseover=\"window.hacked=1",
  "`<b onclick=window.hacked=1>`", "```<iframe srcdoc='<script>parent.hacked=1</script>'>```", "\u202Eevil\u202C text", "\u2067rtl\u2069",
  "a" + "\u0301".repeat(60), "x".repeat(5000), "<!--", "-->", "</li></ol></main>", "&lt;b&gt;&#x3C;", "<?lit$123$?>", "lit$1$", "{{lit-0}}",
  "\u0007\u001b[31mred", "@\u202Eann", "https://\u202Egro.elpmaxe", "<style>*{display:none}</style>", "<meta http-equiv=refresh content=0>",
];

export function hostileStories(world) {
  test("a hundred hostile bodies stay text", async () => {
    const bodies = Array.from({ length: 100 }, (_, index) => `${index}: ${seeds[index % seeds.length]}`);
    const ann = await world.people.enter("annh", { room: "#hostile", viewport: { width: 1280, height: 3000 } });
    const eve = await world.people.enter("eveh", { room: "#hostile" });
    for (const body of bodies) await eve.say(body);
    await ann.sees("99: ");
    const shown = await eventually("all bodies are shown", async () => {
      const texts = await ann.page.locator(".row.message .text").evaluateAll((elements) => elements.map((element) => element.textContent.replace(/\n {10,}/g, "")));
      return texts.length === 100 && texts;
    });
    const unmarked = (text) => text.replace(/`+/g, "").trim();
    assert.deepEqual(shown.map(unmarked), bodies.map(unmarked));
    assert.equal(await ann.page.evaluate(() => window.hacked), undefined);
    assert.equal(await ann.page.locator(".rows :is(script, img, iframe, style, meta, b)").count(), 0);
    const links = await ann.page.locator(".rows a").evaluateAll((all) => all.map(({ protocol, rel, target }) => [protocol, rel, target].join(" ")));
    assert.ok(links.length > 0);
    assert.deepEqual([...new Set(links)], ["https: noopener noreferrer _blank"]);
    ann.assertNoErrors();
    eve.assertNoErrors();
  });

  test("hostile names stay text", async () => {
    const ann = await world.people.enter("annn", { room: "#names" });
    const names = ["<b>bold<;b>", "אבג", "قائد", "e\u0301\u0302\u0303x", "__proto__", "constructor", "a'onclick='x", "^_^", "toString"];
    for (const name of names) {
      const user = await LineUser.enter(name, "#names");
      user.say(`from ${names.indexOf(name)}`);
      await ann.sees(`from ${names.indexOf(name)}`);
    }
    await eventually("all are members", async () => {
      const members = await ann.page.locator(".member-name bdi").allTextContents();
      return members.sort().join() === [...names, "annn"].sort().join();
    });
    assert.equal(await ann.page.locator(".members b, .rows b").count(), 0);
    await ann.say("/msg __proto__ hi");
    await ann.sees("hi");
    ann.assertNoErrors();
  });

  test("bodies that are not text are compact JSON", async () => {
    const ann = await world.people.enter("annj", { room: "#json" });
    await ann.page.evaluate(async () => {
      const { Parley } = await import("/parley/parley.js");
      const other = new Parley(`ws://${location.host}/ws`, { nick: "machine" });
      const room = await other.join("#json");
      await room.send({ temperature: 21.5, tags: ["<b>", null] });
    });
    await ann.sees('{"temperature":21.5,"tags":["<b>",null]}');
  });
}
