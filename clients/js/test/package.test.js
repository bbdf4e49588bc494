// The package as a user installs it: contents, size, types, the examples of its README, and the example program.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { transform } from "esbuild";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { Cluster, eventually } from "./cluster.js";
import { bodiesOf, clientsOf, isOnline } from "./helpers.js";

const SOURCE = fileURLToPath(new URL("..", import.meta.url));
const GZIPPED_MAX = 9 * 1024;

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "parley-package-"));
const installed = join(folder, "node_modules/parley-chat");
const manifest = JSON.parse(readFileSync(join(SOURCE, "package.json"), "utf8"));
const readme = readFileSync(join(SOURCE, "README.md"), "utf8");

/** Returns the code blocks of the README in a language. */
const examples = (language) => [...readme.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"))].map(([, code]) => code);

/** Makes a package of this folder's dependencies visible to the project that installed the package. */
const provide = (name) => symlinkSync(join(SOURCE, "node_modules", name), join(folder, "node_modules", name));

let cluster;
before(async () => {
  cluster = await Cluster.start(1);
  const { stdout } = await run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], { cwd: SOURCE });
  writeFileSync(join(folder, "package.json"), '{"type":"module","private":true}');
  await run("npm", ["install", "--offline", "--no-audit", join(folder, stdout.trim())], { cwd: folder });
  cpSync(join(SOURCE, "test/sample"), folder, { recursive: true });
  ["ws", "react", "react-dom", "scheduler"].forEach(provide);
});
after(async () => {
  await cluster.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("package has what it exports and no more", async () => {
  assert.equal(manifest.dependencies, undefined);
  const { messages, pkg } = await publint({ pkgDir: installed, strict: true });
  assert.deepEqual(messages.map((message) => formatMessage(message, pkg)), []);
  const files = (await run("find", [installed, "-type", "f"])).stdout.trim().split("\n").map((file) => file.slice(installed.length + 1));
  assert.deepEqual(files.sort(), [
    "LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist/e2e.js", "dist/parley.js", "dist/react.js", "package.json",
    "src/e2e.d.ts", "src/parley.d.ts", "src/react.d.ts",
  ]);
  for (const version of Object.values(manifest.devDependencies)) assert.match(version, /^\d+\.\d+\.\d+$/);
  assert(!readFileSync(join(SOURCE, "package-lock.json"), "utf8").includes('"resolved"'));
});

test("client is at most 9 KB gzipped", (t) => {
  const { length } = gzipSync(readFileSync(join(installed, "dist/parley.js")), { level: 9 });
  t.diagnostic(`${length} bytes`);
  assert(length <= GZIPPED_MAX, `${length} bytes`);
});

test("types describe the whole interface", async () => {
  const tsc = join(SOURCE, "node_modules/typescript/bin/tsc");
  const { stdout } = await run(process.execPath, [tsc, "--project", folder]).catch((error) => error);
  assert.equal(stdout, "");
});

test("examples of the readme run", async (t) => {
  const bob = clientsOf(t)(cluster.urls(), { nick: "bob" });
  await isOnline(bob);
  const room = await bob.join("#lobby");
  const received = [];
  room.on("message", ({ body }) => received.push(body));
  bob.on("direct", ({ body }) => received.push(body));
  const start = `import { webcrypto } from "node:crypto";
import ws from "ws";
globalThis.crypto ??= webcrypto;
globalThis.WebSocket = ws;
globalThis.fetch = async () => new Response("a token");
globalThis.localStorage = { getItem: () => null, setItem() {}, removeItem() {} };
`;
  const code = examples("js").join("\n").replaceAll("wss://chat.example.org/ws", cluster.urls()[0]);
  writeFileSync(join(folder, "readme.js"), `${start}${code}\nawait user.close();\nawait stored.close();\nawait chat.close();\n`);
  const { stdout, stderr } = await run(process.execPath, ["--no-warnings", join(folder, "readme.js")], { timeout: 20_000 });
  assert.equal(stderr, "");
  await eventually(() => received.length === 3);
  assert.deepEqual(received.slice(0, 2).map((body) => body.text ?? body).sort(), ["hi", "soup?"]);
  assert.equal(received[2].e2e, 1);
  assert.match(stdout, /^bad_room$/m);
});

test("echo bot continues after a crash", async (t) => {
  const source = readFileSync(join(SOURCE, "../examples/echo_bot.js"), "utf8");
  assert(source.trimEnd().split("\n").length <= 30);
  writeFileSync(join(folder, "echo_bot.js"), source);
  const ann = clientsOf(t)(cluster.urls(), { nick: "ann-echo" });
  const room = await ann.join("#echo");
  const heard = bodiesOf(room);
  const start = () => {
    const bot = spawn(process.execPath, ["echo_bot.js", cluster.urls()[0], "#echo"], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
    t.after(() => bot.kill("SIGKILL"));
    return bot;
  };
  const first = start();
  await eventually(() => room.members.has("echo-bot-js"));
  await room.send("one");
  await eventually(() => heard.length === 2);
  first.kill("SIGKILL");
  await once(first, "exit");
  await room.send("two");
  start();
  await eventually(() => heard.length === 4);
  await room.send({ three: 3 });
  await eventually(() => heard.length === 6);
  assert.deepEqual(heard, ["one", "one", "two", "two", { three: 3 }, { three: 3 }]);
});

test("component of the readme renders", async (t) => {
  const [jsx] = examples("jsx");
  const { code } = await transform(`${jsx}\nexport { Lobby };`, { loader: "jsx", jsx: "automatic" });
  writeFileSync(join(folder, "lobby.js"), `${code}
import { createElement } from "react";
import { renderToString } from "react-dom/server";
console.log(renderToString(createElement(Lobby, { chat: { state: { name: "connecting" } } })));
`);
  const { stdout } = await run(process.execPath, [join(folder, "lobby.js")]);
  assert.equal(stdout.trim(), "<ul></ul>");
});
