// The conversation with the embedding page, with windows that the test plays.

import assert from "node:assert/strict";
import { test } from "node:test";
import { claimsOf, isEmbedded, tokenSource } from "../embed.js";

const SITE = "https://www.example.org";

/** A window inside of another one, which notes the questions. */
function frame(ancestorOrigins) {
  const view = new EventTarget();
  view.questions = [];
  view.parent = { postMessage: (data, target) => view.questions.push({ ...data, target }) };
  view.location = { ancestorOrigins };
  view.receives = (data, { source = view.parent, origin = SITE } = {}) =>
    view.dispatchEvent(Object.assign(new Event("message"), { source, origin, data }));
  return view;
}

const answer = (token, id = 1) => ({ type: "parley/token", id, token });
const never = new AbortController().signal;

test("page alone has nobody to ask", () => {
  const alone = {};
  alone.parent = alone;
  assert.equal(isEmbedded(alone), false);
  assert.equal(isEmbedded(frame()), true);
});

test("question and answer have one number", async () => {
  const view = frame([SITE]);
  const ask = tokenSource(view);
  const first = ask({ signal: never });
  view.receives(answer("t1"));
  assert.equal(await first, "t1");
  const second = ask({ signal: never });
  view.receives(answer("old", 1));
  view.receives(answer(null, 2));
  assert.equal(await second, null);
  assert.deepEqual(view.questions, [1, 2].map((id) => ({ type: "parley/get-token", id, target: SITE })));
});

test("other windows and origins are not heard", async () => {
  for (const ancestors of [undefined, [SITE]]) {
    const view = frame(ancestors);
    const ask = tokenSource(view);
    const asked = ask({ signal: never });
    view.receives(answer("of another window"), { source: {} });
    view.receives(answer("of no window"), { source: null });
    view.receives(answer("of a sandbox"), { origin: "null" });
    if (ancestors) view.receives(answer("of another origin"), { origin: "https://evil.example" });
    for (const data of [null, "parley/token", { type: "parley/token" }, { type: "other", id: 1, token: "x" }]) view.receives(data);
    view.receives(answer("good"));
    assert.equal(await asked, "good");
    const again = ask({ signal: never });
    view.receives(answer("of another origin", 2), { origin: "https://evil.example" });
    view.receives(answer("still good", 2));
    assert.equal(await again, "still good", "the first origin stays");
  }
});

test("answer without a token is a failure", async () => {
  for (const token of [undefined, 7, {}]) {
    const view = frame();
    const asked = tokenSource(view)({ signal: never });
    view.receives(answer(token));
    await assert.rejects(asked, TypeError);
  }
});

test("question ends with its signal", async () => {
  const view = frame();
  const controller = new AbortController();
  const asked = tokenSource(view)({ signal: controller.signal });
  controller.abort(new Error("enough"));
  await assert.rejects(asked, /enough/);
  view.receives(answer("late"));
});

test("claims of a token are read without trust", () => {
  const token = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.y`;
  assert.deepEqual(claimsOf(token({ sub: "user:1", nick: "Änn?>" })), { sub: "user:1", nick: "Änn?>" });
  assert.deepEqual(claimsOf(token({})), { sub: null, nick: null });
  for (const damaged of ["", "x", "x.y.z", "x.%.z", token(null)]) assert.deepEqual(claimsOf(damaged), { sub: null, nick: null });
});
