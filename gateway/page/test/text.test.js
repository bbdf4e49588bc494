import assert from "node:assert/strict";
import { test } from "node:test";
import { actionOf, bodyText, lineOf, mentions, parse } from "../text.js";

const kinds = (body, nick) => parse(body, nick).map(({ kind, text }) => [kind, text]);

test("links of http and https become links", () => {
  assert.deepEqual(kinds("see https://a.example/x?y=1#z now"), [["text", "see "], ["link", "https://a.example/x?y=1#z"], ["text", " now"]]);
  assert.deepEqual(kinds("http://[::1]:8080/"), [["link", "http://[::1]:8080/"]]);
});

test("other schemes stay plain text", () => {
  for (const body of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https://", "ftp://a.example", "https://bank.example@evil.example/"]) {
    assert.deepEqual(kinds(body), [["text", body]]);
  }
});

test("punctuation after a link stays outside", () => {
  assert.deepEqual(kinds("(https://a.example/b)."), [["text", "("], ["link", "https://a.example/b"], ["text", ")."]]);
  assert.deepEqual(kinds("https://a.example/w_(x)"), [["link", "https://a.example/w_(x)"]]);
  assert.deepEqual(kinds("看 https://a.example/。"), [["text", "看 "], ["link", "https://a.example/"], ["text", "。"]]);
});

test("links end before bidi controls", () => {
  assert.deepEqual(kinds("https://a.example/\u202egpj.exe"), [["link", "https://a.example/"], ["text", "\u202egpj.exe"]]);
});

test("code spans hold links and mentions as text", () => {
  assert.deepEqual(kinds("run `curl https://a.example @ann` now", "ann"), [["text", "run "], ["code", "curl https://a.example @ann"], ["text", " now"]]);
});

test("fenced blocks keep their lines", () => {
  assert.deepEqual(kinds("a\n```js\nlet x;\n\n x()\n```\nb"), [["text", "a"], ["block", "let x;\n\n x()"], ["text", "b"]]);
  assert.deepEqual(kinds("```one```"), [["block", "one"]]);
});

test("an open fence stays plain text", () => {
  assert.deepEqual(kinds("```\nlet x;"), [["text", "```\nlet x;"]]);
});

test("a body without text is compact JSON", () => {
  assert.deepEqual(kinds({ a: [1, null], b: "<b>" }), [["code", '{"a":[1,null],"b":"<b>"}']]);
  assert.deepEqual(kinds(null), [["code", "null"]]);
});

test("an action is one text field and no more", () => {
  assert.equal(actionOf({ me: "waves" }), "waves");
  for (const body of ["/me waves", null, 7, [], { me: 7 }, { me: "waves", to: "bob" }, ["me"]]) assert.equal(actionOf(body), null);
  assert.deepEqual(kinds({ me: "hugs @ann" }, "ann"), [["text", "hugs "], ["mention", "@ann"]]);
  assert.equal(mentions({ me: "hugs @ann" }, "ann"), true);
});

test("lines name the sender of a message", () => {
  assert.equal(lineOf({ from: "bob", body: "hi" }), "bob: hi");
  assert.equal(lineOf({ from: "bob", body: { me: "waves" } }), "bob waves");
  assert.equal(bodyText({ me: "waves", to: "ann" }), '{"me":"waves","to":"ann"}');
});

test("parts join to the text of the body", () => {
  const body = "ann: <script>alert(1)</script> & https://a.example/<x> `y` @ann\n\n @annie";
  assert.equal(parse(body, "ann").map(({ kind, text }) => (kind === "code" ? `\`${text}\`` : text)).join(""), body);
});

test("mentions need the whole name", () => {
  for (const body of ["@ann", "hi @Ann!", "ann: look", "ANN, look", "(@ann)"]) assert.equal(mentions(body, "ann"), true, body);
  for (const body of ["@ann.", "@ann: look", "@ann, @bob", "@ann/ @bob", "@ann..."]) assert.equal(mentions(body, "ann"), true, body);
  for (const body of ["ann", "@anna", "@annä", "joann: x", "mail@ann", "annul: x", "@ann.lee", "@ann:1", "@org/ann", "@ann+bot", { text: "@ann" }]) assert.equal(mentions(body, "ann"), false, String(body));
});

test("names with signs are mentioned", () => {
  for (const nick of ["john.doe", "user:123", "org/team+bot", "c++"]) {
    for (const body of [`@${nick}`, `hi @${nick}!`, `@${nick}: look`, `@${nick}.`, `${nick}: look`, `${nick}, look`]) assert.equal(mentions(body, nick), true, body);
    for (const body of [`@x${nick}`, `@${nick}x`, `@${nick}.x`, `@a.${nick}`, nick]) assert.equal(mentions(body, nick), false, body);
  }
  assert.deepEqual(kinds("ask @john.doe.", "john.doe"), [["text", "ask "], ["mention", "@john.doe"], ["text", "."]]);
});

test("mentions work in any script", () => {
  for (const body of ["@ann İstanbul", "İ @ann", "İ @ANN!"]) assert.equal(mentions(body, "ann"), true, body);
  assert.equal(mentions("@İan: look", "İan"), true);
  assert.deepEqual(kinds("İ @ann!", "ann"), [["text", "İ "], ["mention", "@ann"], ["text", "!"]]);
  assert.equal(mentions("请 @阿达 看一下", "阿达"), true);
  assert.equal(mentions("请@阿达看", "阿达"), false);
});

test("long hostile bodies are parsed quickly", () => {
  const start = performance.now();
  for (const part of ["`", "```", "https://", "(", "@ann", "http://a(", "```a\n"]) parse(part.repeat(65_536 / part.length), "ann");
  for (const end of [")", "].", ".", "。", "(]"]) parse(`https://a.example/${end.repeat(65_000 / end.length)}x${end}`, "ann");
  for (const end of [")", "].", "."]) parse(`https://a.example/${end.repeat(65_000 / end.length)}`, "ann");
  assert.ok(performance.now() - start < 2000);
});
