// A hook that follows a room.

import { useEffect, useReducer, useRef } from "react";

/** Time that a report of typing is shown. */
const TYPING_MS = 5_000;

export function useRoom(chat, name, { history = 50 } = {}) {
  const [, render] = useReducer((count) => count + 1, 0);
  const view = useRef(null);
  view.current ??= { room: null, messages: [], members: new Map(), typing: [], state: chat.state, error: null };

  useEffect(() => {
    const abort = new AbortController();
    const offs = [];
    const timers = new Map();
    const set = (changes) => {
      if (abort.signal.aborted) return;
      view.current = { ...view.current, ...changes };
      render();
    };
    const setTyping = (from, isTyping) => {
      clearTimeout(timers.get(from));
      if (isTyping) timers.set(from, setTimeout(setTyping, TYPING_MS, from, false));
      else timers.delete(from);
      set({ typing: [...timers.keys()] });
    };
    set({ room: null, messages: [], members: new Map(), typing: [], state: chat.state, error: null });
    offs.push(chat.on("state", (state) => set({ state })));
    chat.join(name, { history, signal: abort.signal }).then((room) => {
      if (abort.signal.aborted) return;
      offs.push(
        room.on("message", (message) => {
          set({ messages: [...view.current.messages, message] });
          if (!message.fromApi) setTyping(message.from, false);
        }),
        room.on("rewind", ({ seq }) => set({ messages: view.current.messages.filter((kept) => kept.seq <= seq) })),
        room.on("members", () => set({ members: new Map(room.members) })),
        room.on("typing", ({ from }) => setTyping(from, true)),
        room.on("left", () => set({ room: null })),
      );
      set({ room, messages: room.recent, members: new Map(room.members) });
    }, (error) => set({ error }));
    return () => {
      abort.abort();
      offs.forEach((off) => off());
      timers.forEach(clearTimeout);
    };
  }, [chat, name, history]);

  const { room } = view.current;
  const send = async (body, options) => {
    if (!room) throw new Error(`${name} is not joined`);
    return room.send(body, options);
  };
  return { ...view.current, send };
}
