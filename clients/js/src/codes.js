// The tables of the protocol that a client acts on, and the error that callers receive.

/** Numbers of the close codes after which a client must not reconnect. */
export const FINAL_CLOSES = [1000, 1002, 1003, 1007, 1008, 1009, 4003, 4004, 4006];

// The beginnings of rate_limited, slow_mode, overloaded, unavailable, hook_unavailable, outcome_unknown, going_away and
// internal.
const TEMPORARY = /^(rate|slow|overl|unav|hook|outcome|going|internal)/;

/** Returns true if the same request is expected to succeed later. */
export const isTemporary = (error) => error.retry_after_ms >= 0 || TEMPORARY.test(error.code);

const FIRST_WAIT_MS = 500;
const WAIT_MS_MAX = 30_000;

/**
 * Returns the time before another attempt after an error: at least its `retry_after_ms`, and from 0 to a maximum that
 * doubles with each failure before it.
 */
export const retryWaitMs = (error, failures, random) =>
  (error.retry_after_ms ?? 0) + Math.round(random * Math.min(FIRST_WAIT_MS * 2 ** failures, WAIT_MS_MAX));

/** Size of a request: 64 KiB, less the `id` and `since` that are added to it. */
export const REQUEST_BYTES_MAX = 65_280;

export class ParleyError extends Error {
  name = "ParleyError";

  constructor(code, message, retryAfterMs = null) {
    super(message ?? code);
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}
