"""Timers of a session, and their times in seconds."""

from __future__ import annotations

from typing import Final

from .effects import Timer

ANSWER_SECONDS: Final = 10.0
"""Time limit for a sign of life while an answer is due. After it the connection is abandoned."""
WAKE_ANSWER_SECONDS: Final = 2.0
"""The same after `wake`."""
BYE_SECONDS: Final = 5.0
"""Time limit for the server to close the connection after `bye`."""
TOKEN_SECONDS: Final = 10.0
"""Time limit for the application to answer a question for a token."""
RENEW_SECONDS_MAX: Final = 15.0
"""Maximum time before a token is renewed that the server announced as expiring."""

CONNECT: Final[Timer] = ("connect", 0)
REGISTER: Final[Timer] = ("register", 0)
HEARTBEAT: Final[Timer] = ("heartbeat", 0)
ANSWER: Final[Timer] = ("answer", 0)
BYE: Final[Timer] = ("bye", 0)
TOKEN: Final[Timer] = ("token", 0)
RENEW: Final[Timer] = ("renew", 0)
