// Builds `dist`: a minified module for each entry.

import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { minify } from "terser";

/** Properties that the client never shows, stores or posts to another tab. They get short names. */
const INTERNAL = [
  "apply", "applyRead", "asked", "beat", "begin", "Channel", "canAsk", "count", "do", "dropRoom", "due", "dueAt", "effects", "emit", "ended", "expires",
  "fail", "head", "held", "hold", "input", "isOnline", "isOver", "isOwn", "lane", "link", "live", "load", "move",
  "named", "nextAt", "pause", "place", "pong", "post", "put", "rank", "receive", "release", "reload", "remove",
  "renew", "runAll", "save", "saved", "sentAt", "settle", "snapshot", "startReading", "step", "stop", "store", "transmit", "tries",
  "uncount", "url", "wasOnline",
];

const types = readFileSync("src/parley.d.ts", "utf8");
const shown = INTERNAL.filter((name) => new RegExp(`\\b${name}\\??[:(<]`).test(types));
if (shown.length > 0) throw new Error(`part of the interface: ${shown}`);

const options = { bundle: true, minify: true, format: "esm", target: "es2022", outdir: "dist", logLevel: "warning" };
await build({ ...options, entryPoints: ["src/e2e.js", "src/react.js"], external: ["react"] });
const mangleProps = new RegExp(`^(${INTERNAL.join("|")})$`);
const { outputFiles } = await build({ ...options, entryPoints: ["src/parley.js"], mangleProps, write: false });
// What makes the code shorter, but its compressed form longer, is off.
const compress = { passes: 3, pure_getters: true, inline: false, sequences: false, conditionals: false };
const { code } = await minify(outputFiles[0].text, { module: true, compress });
writeFileSync("dist/parley.js", code);
