// The tables of the protocol that a client acts on, and the error that callers receive.

/** Close codes after which a client must not reconnect, by number. */
export const FINAL_CLOSES = {
  1000: "bye",
  1002: "protocol_error",
  1003: "unsupported_data",
  1007: "bad_utf8",
  1009: "too_big",
  4003: "kicked",
  4004: "taken_over",
};

/** Close codes after which a client reconnects, by number. */
const OTHER_CLOSES = { 1011: "internal", 1012: "restart", 4000: "timeout", 4001: "register_timeout", 4002: "slow_consumer" };

/** Returns the name of a close code. */
export const closeName = (code) => FINAL_CLOSES[code] ?? OTHER_CLOSES[code] ?? "connection_lost";

const TEMPORARY = ["overloaded", "unavailable", "outcome_unknown", "going_away", "internal"];

/** Returns true if the same request is expected to succeed later. */
export const isTemporary = (error) => error.retry_after_ms >= 0 || TEMPORARY.includes(error.code);

const FIRST_WAIT_MS = 500;
const WAIT_MS_MAX = 30_000;

/** Returns the time before an attempt after so many failures: from 0 to a maximum that doubles. */
export const retryWaitMs = (failures, random) => Math.round(random * Math.min(FIRST_WAIT_MS * 2 ** failures, WAIT_MS_MAX));

/** Largest frame that the server reads as a request, in bytes. */
export const FRAME_BYTES_MAX = 65_536;

export class ParleyError extends Error {
  constructor(code, message = code, retryAfterMs = null) {
    super(message);
    this.name = "ParleyError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}
