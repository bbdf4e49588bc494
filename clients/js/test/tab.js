// A tab: a worker that runs a client and obeys the test. Its storage is a folder of files, shared with other tabs.

import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import WebSocket from "ws";
import { Parley } from "../src/parley.js";

const { folder, urls, nick } = workerData;

const storage = {
  file: (key) => join(folder, encodeURIComponent(key)),
  getItem(key) {
    return existsSync(this.file(key)) ? readFileSync(this.file(key), "utf8") : null;
  },
  setItem(key, value) {
    const part = `${this.file(key)}.${nick}.part`;
    writeFileSync(part, value);
    renameSync(part, this.file(key));
  },
  removeItem(key) {
    rmSync(this.file(key), { force: true });
  },
};

/** Web Locks of the origin: the test grants them, by the number of the request. */
const waiting = new Map();
let requests = 0;
const locks = {
  request(name, { signal }, callback) {
    const number = ++requests;
    return new Promise((resolve, reject) => {
      const abandon = () => {
        parentPort.postMessage({ lock: "abandoned", number });
        reject(signal.reason);
      };
      waiting.set(number, async () => {
        signal.removeEventListener("abort", abandon);
        resolve(await callback());
        parentPort.postMessage({ lock: "released", number });
      });
      signal.addEventListener("abort", abandon);
      parentPort.postMessage({ lock: "wanted", number });
    });
  },
  async query() {
    parentPort.postMessage({ lock: "query" });
    return new Promise((resolve) => waiting.set("query", resolve));
  },
};
Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });

let client;
function open(nick) {
  client = new Parley(urls, { nick, storage, share: true, WebSocket });
  for (const event of ["state", "direct", "nick", "joined", "error"]) {
    client.on(event, (value) => parentPort.postMessage({ event, value: event === "error" ? String(value.stack) : value }));
  }
}
open(nick);
const commands = {
  async join(name, history) {
    const isNew = !client.joined.has(name);
    const room = await client.join(name, { history });
    if (isNew) {
      for (const event of ["message", "read", "left"]) room.on(event, (value) => parentPort.postMessage({ event, room: name, value }));
    }
    return { recent: room.recent, members: [...room.members.keys()], unread: room.unread };
  },
  send: (to, body) => (to.startsWith("#") ? client.joined.get(to) : client.direct(to)).send(body),
  read: (name) => client.joined.get(name).read(),
  leave: (name) => client.joined.get(name).leave(),
  rename: (name) => client.rename(name),
  typing: (name) => client.joined.get(name).typing(),
  retry: () => client.retry(),
  rooms: () => client.state.rooms,
  close: () => client.close(),
  /** Opens a client with another nickname when this one is closed, or at once. */
  async replace(nick, isAtOnce) {
    const closed = client.close();
    if (!isAtOnce) await closed;
    open(nick);
    await closed;
  },
};
parentPort.on("message", async ({ id, command, args, granted, answer }) => {
  if (granted) return waiting.get(granted)();
  if (answer) return waiting.get("query")(answer);
  try {
    parentPort.postMessage({ id, result: await commands[command](...args) });
  } catch (error) {
    parentPort.postMessage({ id, error: error.code ?? String(error.stack) });
  }
});
