import assert from "node:assert/strict";
import { test } from "node:test";
import { LineUser } from "../cluster.js";
import { eventually } from "../eventually.js";

/** An hour of 20 messages a second is 72,000: `npm run endurance`. */
const MESSAGES = Number(process.env.PARLEY_MESSAGES ?? 5_000);
const BATCH = 250;
/** The page keeps 2,000 messages, so from here on it has all that it ever has. */
const FULL = Math.max(2_500, MESSAGES / 10);
const GROWTH_MIB = 1;

export function enduranceStories(world) {
  test(`heap stays flat over ${MESSAGES} messages`, async (context) => {
    const ann = await world.people.enter("annend", { room: "#endless" });
    const bob = await LineUser.enter("bobend", "#endless");
    const cdp = await ann.page.context().newCDPSession(ann.page);
    const measure = async () => {
      await cdp.send("HeapProfiler.collectGarbage");
      const { usedSize } = await cdp.send("Runtime.getHeapUsage");
      const { nodes } = await cdp.send("Memory.getDOMCounters");
      return { heap: usedSize / 2 ** 20, nodes };
    };
    let sent = 0;
    const talkUntil = async (total) => {
      for (; sent < total; sent += BATCH) {
        bob.say(...Array.from({ length: BATCH }, (_, i) => `message ${sent + i} of an hour, and some more words to read`));
        const last = `message ${sent + BATCH - 1} `;
        await eventually(`${last} is shown`, async () => (await ann.page.locator(".row.message .text").last().innerText()).startsWith(last), 60_000);
      }
      return measure();
    };
    const started = Date.now();
    const early = await talkUntil(FULL);
    const late = await talkUntil(MESSAGES);
    const seconds = (Date.now() - started) / 1000;
    const text = ({ heap, nodes }) => `${heap.toFixed(1)} MiB, ${nodes} nodes`;
    context.diagnostic(`${sent} messages in ${seconds.toFixed(0)} s: ${text(early)} after ${FULL}, ${text(late)} at the end`);
    assert.ok(late.heap < early.heap + GROWTH_MIB, `${early.heap} MiB became ${late.heap} MiB`);
    assert.ok(late.nodes < 1.2 * early.nodes, `${early.nodes} nodes became ${late.nodes}`);
    bob.leave();
    ann.assertNoErrors();
  });
}
