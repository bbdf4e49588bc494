// Builds `dist`: a minified module for each entry.

import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { minify } from "terser";

/** Properties that the client never shows, stores or posts to another tab. They get short names. */
const INTERNAL = [
  "applyRead", "beat", "begin", "dueAt", "effects", "emit", "ended", "held", "input", "isOnWire", "isOnline", "isOver",
  "isOwn", "link", "live", "load", "maybeDone", "nextAt", "pause", "place", "post", "receive", "release", "reload",
  "runAll", "settle", "snapshot", "startReading", "store", "transmit", "wasOnline",
];

const types = readFileSync("src/parley.d.ts", "utf8");
const shown = INTERNAL.filter((name) => new RegExp(`\\b${name}\\??[:(<]`).test(types));
if (shown.length > 0) throw new Error(`part of the interface: ${shown}`);

const options = { bundle: true, minify: true, format: "esm", target: "es2022", outdir: "dist", logLevel: "warning" };
await build({ ...options, entryPoints: ["src/e2e.js", "src/react.js"], external: ["react"] });
const mangleProps = new RegExp(`^(${INTERNAL.join("|")})$`);
const { outputFiles } = await build({ ...options, entryPoints: ["src/parley.js"], mangleProps, write: false });
const { code } = await minify(outputFiles[0].text, { module: true, compress: { passes: 3, pure_getters: true } });
writeFileSync("dist/parley.js", code);
