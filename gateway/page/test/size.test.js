import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const page = new URL("../", import.meta.url);
/** The client library adds about 22 KiB to it. */
const LIMIT = 70 * 1024;

/** Paths of the served files under a folder. */
function served(folder, at = "") {
  return readdirSync(new URL(at, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = at + entry.name;
    if (entry.isDirectory()) return entry.name === "test" ? [] : served(folder, path + "/");
    return /\.(html|js|css|svg)$/.test(entry.name) ? [path] : [];
  });
}

const html = readFileSync(new URL("index.html", page), "utf8");

test("the whole page stays small", (context) => {
  const size = served(page).reduce((sum, path) => sum + gzipSync(readFileSync(new URL(path, page))).length, 0);
  context.diagnostic(`${size} bytes with gzip`);
  assert.ok(size < LIMIT, `${size}`);
});

test("every module is loaded at once", () => {
  const preloaded = [...html.matchAll(/rel="modulepreload" href="\/page\/([^"]+)"/g)].map(([, path]) => path);
  const modules = served(page).filter((path) => path.endsWith(".js") && path !== "app.js");
  assert.deepEqual(preloaded.sort(), modules.sort());
});

test("no file has more than one job", () => {
  const long = served(page).filter((path) => readFileSync(new URL(path, page), "utf8").split("\n").length > 300);
  assert.deepEqual(long, []);
});

test("nothing breaks the content security policy", () => {
  for (const path of served(page).filter((name) => !name.startsWith("vendor/"))) {
    const text = readFileSync(new URL(path, page), "utf8");
    assert.doesNotMatch(text, /unsafeHTML|innerHTML|\sstyle="|<script>|<style>|eval\(|new Function/, path);
  }
  assert.doesNotMatch(html, /(?:src|href)="(?!\/(?:page|parley)\/)/);
});
