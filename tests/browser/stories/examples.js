import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { extname } from "node:path";
import { test } from "node:test";
import { LineUser, examplesUrl } from "../cluster.js";
import { eventually } from "../eventually.js";

const clients = new URL("../../../clients/", import.meta.url);
const types = { ".html": "text/html", ".js": "text/javascript" };

/** Serves the folder `clients` at `examplesUrl`, as any web server does. */
async function serveClients(context) {
  const server = createServer(({ url }, response) => {
    const { pathname } = new URL(url, "http://localhost");
    try {
      const file = readFileSync(new URL("." + pathname, clients));
      response.writeHead(200, { "content-type": types[extname(pathname)] }).end(file);
    } catch {
      response.writeHead(404).end();
    }
  });
  context.after(() => server.close());
  const { hostname, port } = new URL(examplesUrl);
  await once(server.listen(Number(port), hostname), "listening");
}

export function exampleStories(world) {
  test("example page talks and survives a reload", async (context) => {
    await serveClients(context);
    const page = await (await world.people.context()).newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.stack));
    const query = new URLSearchParams({ url: world.url.replace("http", "ws") + "/ws", nick: "anne", room: "#example" });
    await page.goto(`${examplesUrl}/examples/page.html?${query}`);
    const bob = await LineUser.enter("bobe", "#example");
    bob.say("hello page");
    const shown = () => page.locator("#messages li").allInnerTexts();
    await eventually("the message is shown", async () => (await shown()).includes("bobe: hello page"));
    await page.fill("#text", "hello bob");
    await page.keyboard.press("Enter");
    await bob.sees("<anne> hello bob");
    await eventually("both are shown", async () => (await shown()).length === 2);
    assert.equal(await page.inputValue("#text"), "");
    await page.reload();
    await eventually("both are shown again", async () => (await shown()).join() === "bobe: hello page,anne: hello bob");
    bob.leave();
    assert.deepEqual(errors, []);
  });
}
