// People with browsers. Each has a context of its own: storage, cookies and tabs.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { PLAIN_HOST, pageUrl } from "./cluster.js";
import { eventually } from "./eventually.js";

const SWITCHES = [`--host-resolver-rules=MAP ${PLAIN_HOST} 127.0.0.1`, "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"];

export class People {
  #browser;
  #contexts = [];

  static async start() {
    const people = new People();
    people.#browser = await chromium.launch({ executablePath: process.env.PARLEY_CHROMIUM ?? "/usr/bin/chromium", args: SWITCHES });
    return people;
  }

  async context(options = {}) {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
    this.#contexts.push(context);
    return context;
  }

  /** A new person on the chat page, in the room of the link. */
  async enter(nick, { room = "#lobby", ...options } = {}) {
    const person = new Person(await (await this.context(options)).newPage());
    await person.visit(room);
    await person.enter(nick);
    return person;
  }

  /** Closes the windows of all people. */
  async leave() {
    for (const context of this.#contexts.splice(0)) await context.close().catch(() => {});
  }

  stop() {
    return this.#browser.close();
  }
}

export class Person {
  errors = [];

  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(10_000);
    page.on("pageerror", (error) => this.errors.push(error.stack));
    page.on("console", (message) => message.type() === "error" && !/WebSocket connection|Cross-Origin-Opener-Policy/.test(message.text()) && this.errors.push(message.text()));
  }

  async visit(fragment = "") {
    await this.page.goto(`${pageUrl}/${fragment}`);
  }

  async enter(nick) {
    await this.page.fill("#entry-nick", nick);
    await this.page.keyboard.press("Enter");
    await this.page.waitForSelector("parley-composer textarea");
  }

  /** Another tab of the same person. */
  async tab(fragment = "") {
    const other = new Person(await this.page.context().newPage());
    await other.visit(fragment);
    await other.page.waitForSelector("parley-composer textarea");
    return other;
  }

  async say(text) {
    await this.page.fill("parley-composer textarea", text);
    await this.page.press("parley-composer textarea", "Enter");
  }

  async open(name) {
    await this.page.locator(".entry-link", { hasText: name }).click();
    await eventually(`${name} is open`, async () => (await this.title()).includes(name));
  }

  title() {
    return this.page.locator("parley-header h1").innerText();
  }

  messages() {
    return this.page.locator(".row.message .text").allInnerTexts();
  }

  async sees(text) {
    await eventually(`${text} is shown`, async () => (await this.messages()).some((shown) => shown.includes(text)));
  }

  async seesNote(pattern) {
    await eventually(`${pattern} is shown`, async () => (await this.page.locator(".row.note").allInnerTexts()).some((note) => pattern.test(plain(note))));
  }

  assertNoErrors() {
    assert.deepEqual(this.errors, []);
  }
}

/** Text without the marks that isolate names. */
export const plain = (text) => text.replace(/[\u2066-\u2069]/g, "");
