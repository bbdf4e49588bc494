// Parts of several tests.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import WebSocket, { WebSocketServer } from "ws";
import { Parley, ParleyError } from "../src/parley.js";
import { eventually } from "./cluster.js";

/** A storage in memory, like `localStorage`. */
export class MemoryStorage {
  #items = new Map();

  getItem(key) {
    return this.#items.get(key) ?? null;
  }

  setItem(key, value) {
    this.#items.set(key, String(value));
  }

  removeItem(key) {
    this.#items.delete(key);
  }
}

/** Opens clients and ends all of them at the end of a test. */
export function clientsOf(t) {
  const clients = [];
  t.after(() => Promise.all(clients.map((client) => client.close())));
  return (urls, options) => {
    const client = new Parley(urls, { WebSocket, ...options });
    clients.push(client);
    return client;
  };
}

export const isOnline = (client) => eventually(() => client.state.name === "online", 15_000, `${client.nick} is online`);

/** Collects the bodies of a room's messages. */
export function bodiesOf(room) {
  const bodies = [];
  room.on("message", ({ body }) => bodies.push(body));
  return bodies;
}

export function rejectsWith(promise, code) {
  return assert.rejects(promise, (error) => {
    assert(error instanceof ParleyError, String(error));
    assert.equal(error.code, code);
    return true;
  });
}

const SECRET = "the secret that the application shares with its gateways";

const ISSUER = "https://id.example.org";

/** Settings of gateways that check the tokens of `tokenOf`. */
export const AUTH = {
  PARLEY__AUTH__MODE: "token", PARLEY__AUTH__ISSUER: ISSUER, PARLEY__AUTH__AUDIENCE: "parley", PARLEY__AUTH__SECRET: SECRET,
};

/** Signs a token (JWT) for a user. The clocks of a gateway may differ by 5 s, so it admits the token longer. */
export function tokenOf(sub, seconds, claims = {}, secret = SECRET) {
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iss: ISSUER, aud: "parley", sub, exp, ...claims })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

export const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);

/** Stands between a client and a gateway. While `isHolding`, the frames of the client go nowhere. */
export class Proxy {
  isHolding = false;
  #server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "parley.v1" });

  static async start(target) {
    const proxy = new Proxy();
    proxy.#server.on("connection", (client) => {
      const gateway = new WebSocket(target, "parley.v1");
      const early = [];
      client.on("message", (data) => {
        if (proxy.isHolding) return;
        if (gateway.readyState === WebSocket.OPEN) gateway.send(String(data));
        else early.push(String(data));
      });
      gateway.on("open", () => early.forEach((text) => gateway.send(text)));
      gateway.on("message", (data) => client.send(String(data)));
      gateway.on("close", (code, reason) => client.close(code < 1004 || code > 1006 ? code : 4999, reason));
      gateway.on("error", () => client.terminate());
      client.on("close", () => gateway.terminate());
    });
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}`;
  }

  stop() {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
  }
}
