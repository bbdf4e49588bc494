// The hook in React, with a room on a real gateway.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { StrictMode, createElement } from "react";
import { create } from "react-test-renderer";
import { useRoom } from "../src/react.js";
import { Cluster, eventually } from "./cluster.js";
import { clientsOf } from "./helpers.js";

globalThis.IS_REACT_ACT_ENVIRONMENT = false;

let cluster;
before(async () => { cluster = await Cluster.start(1); });
after(() => cluster.stop());

test("hook follows a room across renders", async (t) => {
  const open = clientsOf(t);
  const [ann, bob] = [open(cluster.urls(), { nick: "ann" }), open(cluster.urls(), { nick: "bob" })];
  const room = await bob.join("#react");
  await room.send("one");
  let view;
  const Chat = ({ name }) => {
    view = useRoom(ann, name, { history: 10 });
    return createElement("p", null, view.messages.map(({ body }) => body).join(" "));
  };
  const tree = (name) => createElement(StrictMode, null, createElement(Chat, { name }));
  const root = create(tree("#react"));
  t.after(() => root.unmount());
  await eventually(() => view);
  await assert.rejects(view.send("early"), /not joined/);
  await eventually(() => view.room && view.messages.length === 1);
  await view.send("two");
  await room.send("three");
  await eventually(() => view.messages.length === 3);
  assert.deepEqual(root.toJSON().children, ["one two three"]);
  assert.deepEqual([...view.members.keys()].sort(), ["ann", "bob"]);
  room.typing();
  await eventually(() => view.typing.includes("bob"));
  await room.send("four");
  await eventually(() => view.messages.length === 4 && view.typing.length === 0);
  assert.equal(view.state.name, "online");
  root.update(tree("#other"));
  await eventually(() => view.room?.name === "#other" && view.messages.length === 0);
  root.update(tree("no room"));
  await eventually(() => view.error?.code === "bad_room");
});
