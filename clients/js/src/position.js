// Positions in streams: in the messages of a room, or of the inbox (`@`).

/** Returns the key of a name. Names that differ only in case or width are the same. */
export const fold = (name) => name.normalize("NFKC").toLowerCase();

export const isRoom = (target) => target.startsWith("#");

const isSeq = (value) => Number.isSafeInteger(value) && value >= 0;

export const isPosition = (value) => typeof value?.epoch === "string" && isSeq(value.seq);

/** Returns true for a well-formed event of a stream. */
export function isStreamEvent(event) {
  if (typeof event.to !== "string") return false;
  if (event.type === "message") return isSeq(event.seq) && typeof event.msg_id === "string" && typeof event.from === "string";
  if (event.type === "gap") return isSeq(event.from_seq) && isSeq(event.to_seq);
  return (event.type === "rewound" || event.type === "epoch") && isPosition(event);
}

/**
 * Moves a position by an event of its stream. Returns the event to deliver, or `null` if it was delivered before.
 *
 * A tab that is ahead of the position that was resumed learns from `epoch` that its last messages are void: it is
 * given a `rewound`.
 */
export function advance(position, event) {
  switch (event.type) {
    case "message":
      if (event.seq <= position.seq) return null;
      position.seq = event.seq;
      return event;
    case "gap":
      if (event.to_seq <= position.seq) return null;
      position.seq = event.to_seq;
      return event;
    default: {
      const isNew = event.epoch !== position.epoch;
      position.epoch = event.epoch;
      if (event.type === "epoch" && !(isNew && position.seq > event.seq)) return event;
      position.seq = Math.min(position.seq, event.seq);
      return { ...event, type: "rewound" };
    }
  }
}

/** Number of kept positions of rooms that do not deliver, at most. */
const OLD_POSITIONS_MAX = 256;

/** The positions of a session, by the key of the room or `@`. */
export class Positions {
  #all = new Map();

  constructor(saved) {
    for (const [name, position] of Object.entries(saved ?? {})) if (isPosition(position)) this.set(name, position);
  }

  get(key) {
    return this.#all.get(key);
  }

  set(name, { epoch, seq }) {
    this.#all.set(fold(name), { name, epoch, seq });
  }

  delete(key) {
    this.#all.delete(key);
  }

  advance(key, event) {
    return advance(this.#all.get(key), event);
  }

  /** Returns positions in the form of the protocol, by name. */
  named(keys) {
    const found = [...keys].map((key) => this.#all.get(key)).filter(Boolean);
    return Object.fromEntries(found.map(({ name, epoch, seq }) => [name, { epoch, seq }]));
  }

  /** Returns all positions by name. Forgets the oldest ones of rooms that are not in `live`. */
  saved(live) {
    const old = [...this.#all.keys()].filter((key) => key !== "@" && !live.has(key));
    for (const key of old.slice(0, Math.max(0, old.length - OLD_POSITIONS_MAX))) this.#all.delete(key);
    return this.named(this.#all.keys());
  }
}
