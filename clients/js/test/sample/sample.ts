// Uses every part of the interface. Compiled in the tests, never run.

import { Parley, ParleyError } from "parley-chat";
import type {
  Ack, Direct, GetToken, HistoryOptions, Json, Member, MembersEvent, Message, Options, Room, RoomsOptions, State, StorageLike, User,
} from "parley-chat";
import { Sealer, createKey, encrypted, keyFromText, keyToText, linkTo, parseLink } from "parley-chat/e2e";
import type { EncryptedRoom, LockedBody, SealedBody } from "parley-chat/e2e";
import { useRoom } from "parley-chat/react";
import type { RoomView } from "parley-chat/react";

const storage: StorageLike = localStorage;
const options: Options = { nick: "ann", storage, name: "x", share: false, WebSocket };
const chat = new Parley(["ws://a/ws", "ws://b/ws"], options);
const getToken: GetToken = async ({ signal }) => (await fetch("/token", { signal })).text();
const signedIn = [
  new Parley("ws://a/ws", { token: "t" }),
  new Parley("ws://a/ws", { getToken }),
  new Parley("ws://a/ws", { nick: "ann", token: "t", getToken: async () => null }),
];

function describe(state: State): string {
  switch (state.name) {
    case "connecting":
    case "resuming":
      return state.name;
    case "online":
      return `${state.user ?? "guest"} ${state.node} ${state.resumed} ${state.tookMs.toFixed()} ${state.rooms.join()}`;
    case "offline":
      return `${state.reason} ${state.message ?? ""} ${state.willRetry} ${state.inMs ?? 0}`;
  }
}

const off: () => void = chat.on("state", (state) => console.log(describe(state)));
chat.on("direct", (message: Message) => console.log(message.seq ?? 0));
chat.on("nick", (nick: string) => console.log(nick));
chat.on("joined", (name: string) => console.log(name));
chat.on("gap", ({ fromSeq, toSeq }) => console.log(toSeq - fromSeq));
chat.on("error", (error: unknown) => console.log(error));
off();

const { signal } = new AbortController();
const room: Room = await chat.join("#lobby", { history: 50, signal });
const rooms: ReadonlyMap<string, Room> = chat.joined;
const ack: Ack = await room.send({ any: ["json", null] } satisfies Json, { key: "k", signal });
const body: Json = room.recent[0]!.body;
room.on("message", ({ id, to, from, fromUser, seq, time, body, own, repeated }) => console.log(id, to, from, fromUser ?? "guest", seq, time, body, own, repeated));
room.on("typing", ({ from }) => console.log(from));
room.on("members", (event: MembersEvent) => console.log(event.resync, event.left[0]?.reason));
room.on("gap", ({ fromSeq }) => console.log(fromSeq));
room.on("rewind", ({ seq }) => console.log(seq));
room.on("read", ({ unread, readSeq }) => console.log(unread, readSeq));
room.on("left", () => {});
room.typing();
room.read(room.seq);
room.draft = room.name;
const member: Member | undefined = room.members.get("bob");
const user7: string | undefined = member?.user;
const older: HistoryOptions = { before: 7, limit: 10, signal };
const page = await room.history(older);
for await (const message of room) console.log(message.body, room.unread, room.readSeq);
await room.leave({ signal });

const bob: Direct = chat.direct("bob");
bob.on("message", (message) => console.log(message.own));
const user: User = await chat.whois(bob.nick, { signal });
const first: RoomsOptions = { limit: 1, signal };
const list = await chat.rooms(first);
const next: string | null = list.nextCursor;
await chat.status("away", "lunch");
await chat.rename("anna");
chat.retry();
const ms: number = (await chat.ping()) + (chat.pingMs ?? 0);
await chat.close();
let wait: number | null = null;
try {
  await room.leave();
} catch (error) {
  if (error instanceof ParleyError && error.code === "closed") wait = error.retryAfterMs;
}

const key = keyFromText(keyToText(createKey()));
const sealer = new Sealer("#lobby", key);
const sealed: SealedBody = await sealer.seal(body);
const opened: Json | LockedBody = await sealer.open(sealed);
const secret: EncryptedRoom = encrypted(room, parseLink(linkTo("#lobby", key)).key!);
const recent: Message[] = await secret.recent;
const view: RoomView = useRoom(chat, "#lobby", { history: 5 });

// @ts-expect-error: there is no such event
room.on("massage", () => {});
// @ts-expect-error: a nickname is needed
new Parley("ws://a/ws", {});
// @ts-expect-error: a token is asked for by a function
new Parley("ws://a/ws", { nick: "ann", getToken: "t" });
// @ts-expect-error: positions are read-only
room.seq = 5;

export { ack, chat, list, member, ms, next, opened, page, recent, rooms, signedIn, user, user7, view, wait };
