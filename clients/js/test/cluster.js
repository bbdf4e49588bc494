// A cluster of real processes for one test: redis-server and gateways on free ports. Everything is ended by its id.

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const BIN_DIR = process.env.PARLEY_BIN_DIR ?? fileURLToPath(new URL("../../../target/debug", import.meta.url));
const GATEWAY = join(BIN_DIR, "gateway");
const START_MS = 30_000;

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

/** Resolves with the first truthy value of `check`; rejects after `ms`. */
export async function eventually(check, ms = 15_000, what = check.toString()) {
  for (const end = Date.now() + ms; ; await new Promise((resolve) => setTimeout(resolve, 5))) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
  }
}

async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve, reject) => {
      const server = createServer().once("error", reject);
      server.listen(0, "127.0.0.1", () => resolve(server));
    })),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** A process that can be started again with the same arguments. */
class Program {
  #command;
  #args;
  #env;
  #isReady;

  constructor(command, args, env, isReady) {
    this.#command = command;
    this.#args = args;
    this.#env = { ...process.env, ...env };
    this.#isReady = isReady;
  }

  /** Resolves when the program is ready. */
  async start() {
    const child = spawn(this.#command, this.#args, { env: this.#env, stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    child.stderr.on("data", (data) => (log += data));
    child.once("error", (error) => (log += error.message));
    children.add(child);
    this.child = child;
    this.ended = new Promise((resolve) => child.once("exit", resolve)).then(() => children.delete(child));
    const isUp = () => {
      if (child.exitCode !== null || child.pid === undefined) throw new Error(`${this.#command} did not start: ${log}`);
      return this.#isReady();
    };
    await eventually(isUp, START_MS, `${this.#command} is ready`);
    return this;
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Stops the process without an end. Resolves when it stands still. */
  async pause() {
    this.signal("SIGSTOP");
    await eventually(() => readFileSync(`/proc/${this.child.pid}/stat`, "utf8").includes(") T "));
  }

  async kill() {
    this.signal("SIGKILL");
    await this.ended;
  }
}

const isOk = (url) => fetch(url).then(({ ok }) => ok, () => false);

export class Cluster {
  #folder = mkdtempSync(join(tmpdir(), "parley-js-"));
  #env;
  redis;
  gateways = [];

  /** Starts Redis and `count` gateways. `env`: variables with settings of the gateways. */
  static async start(count = 2, env = {}) {
    const cluster = new Cluster();
    try {
      const [redisPort] = await freePorts(1);
      cluster.#env = { ...env, PARLEY__REDIS__URL: `redis://127.0.0.1:${redisPort}` };
      const redisArgs = ["--port", redisPort, "--bind", "127.0.0.1", "--dir", cluster.#folder, "--save", "", "--appendonly", "no"];
      const ping = () => promisify(execFile)("redis-cli", ["-p", redisPort, "ping"]).then(({ stdout }) => stdout === "PONG\n", () => false);
      cluster.redis = await new Program("redis-server", redisArgs.map(String), {}, ping).start();
      for (let i = 1; i <= count; i += 1) cluster.gateways.push(await cluster.#gateway(`g${i}`));
      await Promise.all(cluster.gateways.map((gateway) => gateway.start()));
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async #gateway(id) {
    const [ws, tcp, admin] = await freePorts(3);
    const local = (port) => `127.0.0.1:${port}`;
    const settings = {
      "node.id": id,
      "listen.ws": local(ws),
      "listen.tcp": local(tcp),
      "admin.addr": local(admin),
      "log.level": "warn",
      "limits.profile": "open",
      "session.hold_after_seconds": "0",
    };
    const args = Object.entries(settings).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
    const gateway = new Program(GATEWAY, args, this.#env, () => isOk(`http://${local(admin)}/readyz`));
    return Object.assign(gateway, { id, url: `ws://${local(ws)}/ws` });
  }

  /** Addresses of the gateways, beginning with number `first`. */
  urls(first = 0) {
    const urls = this.gateways.map(({ url }) => url);
    return [...urls.slice(first), ...urls.slice(0, first)];
  }

  async ctl(...args) {
    return promisify(execFile)(GATEWAY, ["ctl", ...args], { env: { ...process.env, ...this.#env } });
  }

  async stop() {
    await Promise.all([...this.gateways, this.redis].filter((program) => program?.child).map((program) => program.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
