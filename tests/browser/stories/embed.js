// The chat page in a frame of an application, which signs its users in. A gateway of its own asks for tokens.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";
import { eventually } from "../eventually.js";

const SECRET = "the secret that the application shares with its gateways";
const ISSUER = "https://id.example.org";
const readme = readFileSync(new URL("../../../gateway/page/README.md", import.meta.url), "utf8");
const [, EXAMPLE] = /^```html\n(.*?)^```/ms.exec(readme);

/** Signs a token for 3 s. The gateway admits it for 8 s, because clocks may differ. */
function tokenOf(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3;
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iss: ISSUER, aud: "parley", exp, ...claims })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A web site with the page of the example, which gives tokens. */
class Site {
  tokens = [];
  sign = () => tokenOf({ sub: "user:1", nick: "Ann" });
  #server = createServer((request, response) => {
    response.setHeader("content-type", "text/html; charset=utf-8");
    if (request.url !== "/chat-token") return response.end(EXAMPLE.replaceAll("https://chat.example.org", this.chat));
    this.tokens.push(this.sign());
    response.end(this.tokens.at(-1));
  });

  static async start() {
    const site = new Site();
    site.#server.listen(0, "127.0.0.1");
    await once(site.#server, "listening");
    return site;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** Starts a gateway that asks for tokens and allows one site to embed its page. Returns its address. */
async function startGateway(t, embedder) {
  const auth = { MODE: "token", ISSUER, AUDIENCE: "parley", SECRET };
  const env = { ...process.env, PARLEY__LISTEN__PAGE_EMBEDDERS: embedder };
  for (const [key, value] of Object.entries(auth)) env[`PARLEY__AUTH__${key}`] = value;
  const addresses = ["listen.ws", "listen.tcp", "admin.addr"].flatMap((key) => ["--set", `${key}=127.0.0.1:0`]);
  const gateway = spawn(`${process.env.PARLEY_BIN_DIR}/gateway`, addresses, { env, stdio: ["ignore", "pipe", "ignore"] });
  t.after(() => gateway.kill("SIGKILL"));
  let output = "";
  gateway.stdout.on("data", (data) => (output += data));
  await eventually("the gateway listens", () => output.includes("\n"));
  return `http://${JSON.parse(output.split("\n")[0]).ws}`;
}

/** A person in front of a site that embeds the chat. */
async function visit(t, world) {
  const sites = [await Site.start(), await Site.start()];
  t.after(() => sites.forEach((site) => site.stop()));
  const chat = await startGateway(t, sites[0].url);
  for (const site of sites) site.chat = chat;
  const page = await (await world.people.context()).newPage();
  page.setDefaultTimeout(10_000);
  return { listed: sites[0], unlisted: sites[1], chat, page, frame: page.frameLocator("#chat") };
}

const shown = (frame) => frame.locator(".row.message .text").allInnerTexts();

export function embedStories(world) {
  test("embedding page signs its user in", async (t) => {
    const { listed, page, frame } = await visit(t, world);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.stack));
    await page.goto(listed.url);
    await frame.locator("parley-composer textarea").fill("hello");
    await frame.locator("parley-composer textarea").press("Enter");
    await eventually("the message is shown", async () => (await shown(frame)).includes("hello"));
    assert.equal(await frame.locator("#entry-nick").count(), 0, "nobody was asked for a name");
    await eventually("the token was renewed twice", () => listed.tokens.length >= 4, 20_000);
    await frame.locator("parley-composer textarea").fill("still here");
    await frame.locator("parley-composer textarea").press("Enter");
    await eventually("the connection is alive", async () => (await shown(frame)).includes("still here"));
    assert.equal(await frame.locator(".row.note", { hasText: "econnected" }).count(), 0, "it was never lost");
    await frame.locator("button.you").click();
    await frame.locator(".sheet[open]").waitFor();
    assert.match(await frame.locator(".sheet[open]").innerText(), /Ann/);
    assert.equal(await frame.locator("#you-nick").count(), 0, "the token names the user");
    const stored = await frame.locator("body").evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
    assert(!listed.tokens.some((token) => stored.includes(token.split(".")[2])), "no token is stored");
    assert.deepEqual(errors, []);
  });

  test("user without a name in the token chooses one", async (t) => {
    const { listed, page, frame } = await visit(t, world);
    listed.sign = () => tokenOf({ sub: "user:2" });
    await page.goto(listed.url);
    await frame.locator("#entry-nick").fill("bobby");
    await frame.locator("#entry-nick").press("Enter");
    await frame.locator("parley-composer textarea").waitFor();
  });

  test("next user sees nothing of the one before", async (t) => {
    const { listed, page, frame } = await visit(t, world);
    await page.goto(listed.url);
    await frame.locator("parley-composer textarea").fill("/join #of-ann");
    await frame.locator("parley-composer textarea").press("Enter");
    await frame.locator(".entry-link", { hasText: "of-ann" }).waitFor();
    listed.sign = () => tokenOf({ sub: "user:3", nick: "Carl" });
    await page.reload();
    await frame.locator("parley-composer textarea").waitFor();
    await eventually("carl is signed in", async () => /Carl/.test(await frame.locator("button.you").innerText()));
    assert.equal(await frame.locator(".entry-link", { hasText: "of-ann" }).count(), 0);
  });

  test("site that is not listed shows no chat", async (t) => {
    const { unlisted, page } = await visit(t, world);
    const complaints = [];
    page.on("console", (message) => complaints.push(message.text()));
    await page.goto(unlisted.url);
    await eventually("the browser refuses", () => complaints.some((text) => text.includes("frame-ancestors")));
    await eventually("the frame is empty", () => page.frames()[1].url().startsWith("chrome-error:"));
    assert.deepEqual(unlisted.tokens, []);
  });

  test("page alone says that it needs a sign-in", async (t) => {
    const { chat, page } = await visit(t, world);
    await page.goto(chat);
    await page.fill("#entry-nick", "stranger");
    await page.keyboard.press("Enter");
    await eventually("it is said in words", async () => /needs a sign-in/.test(await page.locator("#entry-error").innerText()));
  });

  test("refused sign-in is told in words", async (t) => {
    const { listed, page, frame } = await visit(t, world);
    listed.sign = () => tokenOf({ sub: "user:1", nick: "Ann" }, "not the secret of the gateways, but one as long");
    await page.goto(listed.url);
    await eventually("it is said in words", async () => /did not accept/.test(await frame.locator("#entry-error").innerText()));
    assert.equal(listed.tokens.length, 2, "one more token was tried");
    listed.sign = () => tokenOf({ sub: "user:1", nick: "Ann" });
    await frame.locator(".entry button").click();
    await frame.locator("parley-composer textarea").waitFor();
  });
}
