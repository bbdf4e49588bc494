import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

const MESSAGES = 10_000;

export function scrollStories(world) {
  test("ten thousand messages scroll without jank", async (context) => {
    const filler = await LineUser.enter("filler-s", "#long");
    for (let from = 0; from < MESSAGES; from += 500) {
      filler.say(...Array.from({ length: 500 }, (_, index) => `message ${from + index} ${"and some words ".repeat(index % 7)}`));
      await filler.sees(`message ${from + 499} `);
    }
    const ann = await world.people.enter("anns", { room: "#long" });
    await ann.sees(`message ${MESSAGES - 1}`);
    const frames = await ann.page.evaluate(scrollToStart, 120_000);
    const rows = await ann.page.locator(".row").count();
    const heap = await ann.page.evaluate(() => performance.memory.usedJSHeapSize / 2 ** 20);
    context.diagnostic(`frames ${frames.count}, median ${frames.median} ms, p99 ${frames.p99} ms, longest ${frames.longest} ms; ${rows} rows, ${heap.toFixed(0)} MiB heap`);
    await eventually("the first message is shown", async () => (await ann.messages()).some((text) => text.startsWith("message 0 ")));
    assert.equal(frames.skips, 0);
    assert.ok(rows < 400);
    await ann.page.click(".jump-latest");
    await ann.sees(`message ${MESSAGES - 1}`);
    filler.leave();
  });

  test("no change undoes a scroll of the reader", async () => {
    const filler = await LineUser.enter("filler-u", "#undone");
    filler.say(...Array.from({ length: 60 }, (_, index) => `row ${index}`));
    await filler.sees("row 59");
    const ann = await world.people.enter("annu", { room: "#undone" });
    await ann.sees("row 59");
    await eventually("the list is at its end", () => ann.page.evaluate(() => {
      const { scrollTop, scrollHeight, clientHeight } = document.querySelector(".scroller");
      return scrollTop > 300 && scrollHeight - scrollTop - clientHeight < 2;
    }));
    const place = await ann.page.evaluate(scrollDuringChange);
    assert.equal(place.typing, true);
    assert.ok(Math.abs(place.is - place.wanted) <= 2, `${place.wanted} became ${place.is}`);
    filler.leave();
  });

  test("older messages keep the reader's place", async () => {
    const filler = await LineUser.enter("filler-p", "#place");
    filler.say(...Array.from({ length: 400 }, (_, index) => `row ${index}`));
    await filler.sees("row 399");
    const ann = await world.people.enter("annp", { room: "#place" });
    await ann.sees("row 399");
    const scroller = ann.page.locator(".scroller");
    await scroller.evaluate((element) => (element.scrollTop = 200));
    const top = (text) => ann.page.evaluate((wanted) => {
      const row = [...document.querySelectorAll(".row.message")].find((candidate) => candidate.querySelector(".text").innerText === wanted);
      return row ? Math.round(row.getBoundingClientRect().top) : null;
    }, text);
    const first = await ann.page.evaluate(() => [...document.querySelectorAll(".row.message")].find((row) => row.getBoundingClientRect().top > 80).querySelector(".text").innerText);
    const before = await top(first);
    await eventually("older messages are above", () => scroller.evaluate((element) => element.scrollTop > 600));
    filler.say("one more");
    await eventually("the new message is counted", async () => /1 new message/.test(await ann.page.locator(".jump-latest").innerText()));
    assert.ok(Math.abs((await top(first)) - before) <= 2, `${before} became ${await top(first)}`);
    await ann.page.keyboard.press("Escape");
    await ann.sees("one more");
    await eventually("the button is gone", async () => (await ann.page.locator(".jump-latest").count()) === 0);
    filler.leave();
  });
}

/** Runs in the page: a change is about to be drawn when the reader scrolls. Returns the place three frames later. */
async function scrollDuringChange() {
  const scroller = document.querySelector(".scroller");
  const detail = { type: "typing", key: "#undone", from: "bob", now: Date.now() };
  scroller.dispatchEvent(new CustomEvent("intent", { bubbles: true, detail }));
  scroller.scrollTop -= 300;
  const wanted = scroller.scrollTop;
  for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
  return { wanted, is: scroller.scrollTop, typing: document.querySelector(".typing").textContent !== "" };
}

/**
 * Runs in the page: scrolls up as fast as a fling until the first message. It measures the frames, and counts those that
 * skipped messages.
 */
async function scrollToStart(deadline) {
  const scroller = document.querySelector(".scroller");
  const firstVisible = () => {
    const top = scroller.getBoundingClientRect().top;
    const row = [...document.querySelectorAll(".row.message")].find((candidate) => candidate.getBoundingClientRect().bottom > top);
    return Number(row.querySelector(".text").textContent.match(/message (\d+)/)[1]);
  };
  const times = [];
  let skips = 0;
  let before = firstVisible();
  const start = performance.now();
  let last = start;
  while (performance.now() - start < deadline) {
    scroller.scrollTop -= 400;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    const first = firstVisible();
    if (before - first > 40) skips += 1;
    before = first;
    last = performance.now();
    if (document.querySelector(".row.start") && scroller.scrollTop === 0) break;
  }
  times.sort((a, b) => a - b);
  const at = (part) => Math.round(times[Math.min(times.length - 1, Math.floor(times.length * part))] * 10) / 10;
  return { count: times.length, skips, median: at(0.5), p99: at(0.99), longest: at(1) };
}
