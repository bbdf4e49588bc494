// The unsettled calls of a session by id. Calls to one target that change something form a lane: they run one after
// another.

import { fold } from "./position.js";

const LANE_TYPES = ["send", "join", "leave"];

export class Calls extends Map {
  #lanes = new Map();

  /** Adds a call to the end of its lane, or with `first` to the front. A call of another type has a lane of its own. */
  add(id, request, first) {
    const { type, to, room } = request;
    const lane = LANE_TYPES.includes(type) ? fold(room ?? to) : id;
    // `sentAt`: `Infinity` unless it is on the wire. `expires`: end of a send that may be stored. `held`: events of a
    // room that came before `joined`.
    const call = { id, request, lane, sentAt: Infinity, expires: Infinity, tries: 0, due: 0, held: [] };
    const calls = this.#lanes.get(lane) ?? [];
    this.#lanes.set(lane, calls);
    calls[first ? "unshift" : "push"](call);
    this.set(id, call);
    return call;
  }

  /** Removes a call. Returns the one that its lane continues with. */
  remove({ id, lane }) {
    const calls = this.#lanes.get(lane);
    calls.splice(calls.indexOf(this.get(id)), 1);
    if (!calls[0]) this.#lanes.delete(lane);
    this.delete(id);
    return calls[0];
  }

  /** Returns the call of a lane whose turn it is. */
  head(lane) {
    return this.#lanes.get(lane)?.[0];
  }
}
