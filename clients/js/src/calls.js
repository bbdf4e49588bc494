// The unsettled calls of a session by id. Calls to one target that change something form a lane: they run one after
// another.

import { fold } from "./position.js";

const LANE_TYPES = ["send", "join", "leave"];

export class Calls extends Map {
  #lanes = new Map();

  /** Adds a call to the end of its lane, or with `first` to the front. */
  add(id, request, first = false) {
    const { type, to, room } = request;
    const lane = LANE_TYPES.includes(type) ? fold(room ?? to) : null;
    // `maybeDone`: an earlier request may have taken effect. `held`: events of a room that came before `joined`.
    const call = { id, request, lane, isOnWire: false, maybeDone: false, tries: 0, due: 0, held: [] };
    this.set(id, call);
    const calls = this.#lanes.get(lane) ?? [];
    if (lane !== null) this.#lanes.set(lane, first ? [call, ...calls] : calls);
    if (!first) calls.push(call);
    return call;
  }

  /** Removes a call. Returns the one that its lane continues with. */
  remove(call) {
    this.delete(call.id);
    const calls = this.#lanes.get(call.lane);
    if (!calls) return undefined;
    calls.splice(calls.indexOf(call), 1);
    if (calls.length === 0) this.#lanes.delete(call.lane);
    return calls[0];
  }

  /** Returns the call of a lane whose turn it is. */
  head(lane) {
    return this.#lanes.get(lane)?.[0];
  }

  isFirst(call) {
    return call.lane === null || this.head(call.lane) === call;
  }
}
