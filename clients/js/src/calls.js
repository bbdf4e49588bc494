// The unsettled calls of a session. Calls to one target that change something form a lane and run one after another.

import { fold } from "./position.js";

const LANES = ["send", "join", "leave"];

export class Calls {
  #byId = new Map();
  #lanes = new Map();

  /** Adds a call to the end of its lane, or with `first` to the front. */
  add(id, request, first = false) {
    const target = request.to ?? request.room;
    const lane = LANES.includes(request.type) && typeof target === "string" ? fold(target) : null;
    // `maybeDone`: an earlier request may have taken effect. `held`: events of a room that came before `joined`.
    const call = { id, request, lane, isOnWire: false, maybeDone: false, tries: 0, due: 0, held: [] };
    this.#byId.set(id, call);
    if (lane !== null) {
      const calls = this.#lanes.get(lane) ?? [];
      if (first) calls.unshift(call);
      else calls.push(call);
      this.#lanes.set(lane, calls);
    }
    return call;
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** Removes a call. Returns the one that its lane continues with. */
  remove(call) {
    this.#byId.delete(call.id);
    const calls = this.#lanes.get(call.lane);
    if (!calls) return undefined;
    calls.splice(calls.indexOf(call), 1);
    if (calls.length === 0) this.#lanes.delete(call.lane);
    return calls[0];
  }

  head(lane) {
    return this.#lanes.get(lane)?.[0];
  }

  isFirst(call) {
    return call.lane === null || this.head(call.lane) === call;
  }

  all() {
    return [...this.#byId.values()];
  }
}
