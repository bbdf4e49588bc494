// Positions in streams: in the messages of a room, or of the inbox (`@`).

/**
 * Returns the key of a name. Names that differ only in case, width, joiners or the form of sigma are the same. `ᲀ` to
 * `ᲈ`, old forms of Cyrillic letters, stay different from the usual ones, unlike on the server.
 */
export const fold = (name) =>
  String(name).toLowerCase().replace(/ς/g, "σ").replace(/\p{Cf}/gu, "").normalize("NFKC");

export const randomText = () => Math.random().toString(36).slice(2);

export const isRoom = (target) => target.startsWith("#");

const isSeq = (value) => Number.isSafeInteger(value) && value >= 0;

export const isPosition = (value) => typeof value?.epoch === "string" && isSeq(value.seq);

/** Returns true for a well-formed event of a stream, apart from `to`. */
export function isStreamEvent(event) {
  switch (event.type) {
    case "message": return isSeq(event.seq) && typeof event.msg_id === "string" && typeof event.from === "string";
    case "gap": return isSeq(event.from_seq) && isSeq(event.to_seq);
    case "rewound": case "epoch": return isPosition(event);
  }
}

/**
 * Moves a position by an event of its stream. Returns the event to deliver, or `null` if it was delivered before.
 *
 * A tab that is ahead of the position that was resumed learns from `epoch` that its last messages are void: it is
 * given a `rewound`.
 */
export function advance(position, event) {
  const { type, epoch } = event;
  const seq = type === "gap" ? event.to_seq : event.seq;
  if (type === "gap" || type === "message") {
    if (seq <= position.seq) return null;
    position.seq = seq;
    return event;
  }
  const isSame = epoch === position.epoch;
  position.epoch = epoch;
  if (type === "epoch" && (isSame || position.seq <= seq)) return event;
  position.seq = Math.min(position.seq, seq);
  return { ...event, type: "rewound" };
}

/** The positions of a session, {name, epoch, seq}, by the key of the room or `@`. */
export class Positions extends Map {
  constructor(saved) {
    super();
    for (const [name, position] of Object.entries(saved ?? {})) if (isPosition(position)) this.place(name, position);
  }

  place(name, { epoch, seq }) {
    this.set(fold(name), { name, epoch, seq });
  }

  /** Returns positions by name, as the protocol has them. */
  named(keys = this.keys()) {
    const found = [...keys].map((key) => this.get(key)).filter(Boolean);
    return Object.fromEntries(found.map(({ name, epoch, seq }) => [name, { epoch, seq }]));
  }
}

/** Number of delivered messages that are recognised when they come again. */
const IDS_MAX = 1_000;

/** Adds an id to a set of the newest ones. Returns true if it was there. */
export function isKnown(ids, id) {
  if (ids.has(id)) return true;
  ids.add(id);
  if (ids.size > IDS_MAX) ids.delete(ids.values().next().value);
  return false;
}

/** The position of a tab in a stream, and the ids of the last messages. */
export class Cursor {
  #ids = new Set();

  constructor({ epoch, seq }) {
    this.epoch = epoch;
    this.seq = seq;
  }

  /** Moves over an event. Returns the event to deliver, or `null` if it was delivered before. */
  move(event) {
    const moved = advance(this, event);
    return moved?.type === "message" ? { ...moved, repeated: isKnown(this.#ids, moved.msg_id) } : moved;
  }
}
