import type { Ack, Json, Member, Message, Parley, Room, SendOptions, State } from "./parley.js";

export interface RoomView {
  /** `null` until the room is joined, and after it was left. */
  room: Room | null;
  /** Older messages and those that arrived since, oldest first. */
  messages: Message[];
  members: ReadonlyMap<string, Member>;
  /** Nicknames of members that are typing. */
  typing: string[];
  state: State;
  /** The refusal of `join`, or `null`. */
  error: unknown;
  /** Sends to the room; rejects until it is joined. */
  send(body: Json, options?: SendOptions): Promise<Ack>;
}

/**
 * Joins a room and follows it. `history`: the number of older messages to begin with, by default 50. The session stays
 * in the room when the component is removed: call `room.leave()` to leave.
 */
export function useRoom(chat: Parley, name: string, options?: { history?: number }): RoomView;
