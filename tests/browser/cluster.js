// A real cluster for the stories, started by deploy/run, and people on its text port.

import { spawn } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import { eventually } from "./eventually.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const offset = Number(process.env.PARLEY_OFFSET ?? 11000);

/** A host without TLS that is not this machine to the browser: it has no Web Locks, clipboard and cryptography. */
export const PLAIN_HOST = "plain.test";

/** Address of the page. */
export const pageUrl = process.env.PARLEY_PAGE_URL ?? `http://127.0.0.1:${8080 + offset}`;

/** Address of the examples, which are pages of another web site. */
export const examplesUrl = `http://127.0.0.1:${8089 + offset}`;

export class Cluster {
  #process;
  #output = "";

  static async start() {
    const cluster = new Cluster();
    await cluster.#start();
    return cluster;
  }

  async #start() {
    // The rooms of an earlier run would be full.
    rmSync(`${root}.run/${offset}`, { recursive: true, force: true });
    const ORIGINS = [pageUrl, pageUrl.replace("127.0.0.1", PLAIN_HOST), examplesUrl].join(",");
    // People in stories are fast, and some leave at once.
    const GATEWAY_SETTINGS = "limits.profile=open session.hold_after_seconds=0";
    const set = { OFFSET: String(offset), BIN_DIR: process.env.PARLEY_BIN_DIR, ORIGINS, GATEWAY_SETTINGS };
    const env = { ...process.env, ...set };
    this.#process = spawn("deploy/run", { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) stream.on("data", (data) => (this.#output += data));
    await eventually("the cluster is up", () => {
      if (this.#process.exitCode !== null) throw new Error(this.#output);
      return this.#output.includes("The cluster is up") && existsSync(`${root}.run/${offset}/up`);
    }, 90_000);
  }

  /** Kills a gateway, as a crash does. */
  crash(name) {
    const pid = [...this.#output.matchAll(new RegExp(`${name} +WebSocket .* pid (\\d+)`, "g"))].at(-1)[1];
    process.kill(Number(pid), "SIGKILL");
  }

  /** Restarts every gateway one by one. */
  async roll() {
    const done = this.#output.split("All gateways were restarted").length;
    this.#process.kill("SIGUSR1");
    await eventually("the gateways are restarted", () => this.#output.split("All gateways were restarted").length > done, 90_000);
  }

  async stop() {
    this.#process.kill("SIGTERM");
    await eventually("the cluster has ended", () => this.#process.exitCode !== null || this.#process.signalCode !== null, 90_000);
  }
}

/** Calls the server API as an application, with the key of `make run`. */
export async function callApi(path, fields) {
  const headers = { authorization: "Bearer parley-development-key-of-make-run" };
  const answer = await fetch(`http://127.0.0.1:${8090 + offset}${path}`, { method: "POST", headers, body: JSON.stringify(fields) });
  if (!answer.ok) throw new Error(await answer.text());
}

/** A user of the text port. */
export class LineUser {
  #socket;
  #received = "";

  static async enter(nick, room) {
    const user = new LineUser();
    user.#socket = connect(9000 + offset, "127.0.0.1");
    user.#socket.setEncoding("utf8").on("data", (data) => (user.#received += data));
    user.say(`/nick ${nick}`, `/join ${room}`);
    await user.sees("you are in");
    return user;
  }

  say(...lines) {
    this.#socket.write(lines.map((line) => line + "\n").join(""));
  }

  async sees(text, ms) {
    await eventually(`${text} is received`, () => this.#received.includes(text), ms);
  }

  leave() {
    this.#socket.end("/quit\n");
  }
}
