"""Error codes and close codes of the protocol."""

from __future__ import annotations

from typing import Any, Final

TEMPORARY_CODES: Final = frozenset(
    {
        "rate_limited",
        "slow_mode",
        "overloaded",
        "unavailable",
        "hook_unavailable",
        "outcome_unknown",
        "going_away",
        "internal",
    }
)
"""Codes after which the same request is expected to succeed later."""

CLOSE_NAMES: Final = {
    1000: "bye",
    1002: "protocol_error",
    1003: "unsupported_data",
    1007: "bad_utf8",
    1008: "rate_limited",
    1009: "too_big",
    1011: "internal",
    1012: "restart",
    4000: "timeout",
    4001: "register_timeout",
    4002: "slow_consumer",
    4003: "kicked",
    4004: "taken_over",
    4005: "token_expired",
    4006: "banned",
}

FINAL_CLOSES: Final = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 4003, 4004, 4006})
"""Close numbers after which a client does not reconnect."""


class ParleyError(Exception):
    """A refusal of the server, or the end of the session.

    `code` is a code of the protocol's error table, `"closed"` after `close()`, or the name of a final close code.
    `retry_after` is the time in seconds until a retry can succeed, or `None`.
    """

    def __init__(self, code: str, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def is_temporary(self) -> bool:
        """True if the same request is expected to succeed later."""
        return self.code in TEMPORARY_CODES or self.retry_after is not None

    @classmethod
    def of_frame(cls, frame: dict[str, Any]) -> ParleyError:
        """Returns the error of an `error` frame."""
        retry_after_ms = frame.get("retry_after_ms")
        retry_after = None if retry_after_ms is None else retry_after_ms / 1000
        return cls(str(frame.get("code")), str(frame.get("message", "")), retry_after)
