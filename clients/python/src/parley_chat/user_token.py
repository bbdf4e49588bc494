"""The token of the user: when the application is asked for it, and what a refusal of the server leads to. Pure.

The application is asked one question at once. The token is in memory only: it is never stored, logged or part of an
error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .calls import Calls, backoff
from .effects import AskToken, ClearTimer, DropQuestion, Effect, SetTimer
from .errors import ParleyError
from .deadlines import RENEW, RENEW_SECONDS_MAX, TOKEN, TOKEN_SECONDS

GetToken: TypeAlias = Callable[[], Awaitable[str | None]]
"""Returns a token of the user; `None` if the user has none and is a guest."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The nickname and the tokens that an application registers with."""

    nick: str | None = None
    """`None` if the token names it."""
    token: str | None = field(default=None, repr=False)
    get_token: GetToken | None = None


class UserToken:
    """The token in use, and the questions for a newer one."""

    def __init__(self, effects: list[Effect], calls: Calls, identity: Identity) -> None:
        self._effects = effects
        self._calls = calls
        self.value = identity.token
        self._can_ask = identity.get_token is not None
        self.needs_new = self._can_ask and identity.token is None
        """True if a question comes before the next use."""
        self._is_asked = False
        self.refusals = 0
        """Number of tokens in a row that the server has refused."""
        self._failures = 0
        """Number of failed renewals in a row over this connection."""
        self._lifetime: float | None = None
        """Seconds that the token was valid for when the server accepted it."""

    def ask(self) -> None:
        """Asks the application, unless a question waits for its answer."""
        if not self._is_asked:
            self._is_asked = True
            self._effects += [AskToken(), SetTimer(TOKEN, TOKEN_SECONDS)]

    def answered(self, answer: object) -> ParleyError | None:
        """Takes the answer of the application. Returns an error unless it is a token, or `None` for a guest."""
        self._end_question()
        if isinstance(answer, BaseException) or not isinstance(answer, str | None):
            reason = answer if isinstance(answer, BaseException) else TypeError()
            return ParleyError("no_token", f"get_token: {type(reason).__name__}")
        self.value = answer
        self.needs_new = False
        return None

    @property
    def is_asked(self) -> bool:
        """True if a question waits for its answer."""
        return self._is_asked

    def _end_question(self) -> None:
        if self._is_asked:
            self._is_asked = False
            self._effects += [ClearTimer(TOKEN), DropQuestion()]

    def stop(self) -> None:
        """Ends everything that belongs to a connection."""
        self._end_question()
        self._effects.append(ClearTimer(RENEW))

    def accepted(self, frame: dict[str, Any]) -> None:
        """Reads the lifetime in a `registered` or `refreshed`."""
        lifetime_ms = frame.get("expires_in_ms")
        self._lifetime = lifetime_ms / 1000 if isinstance(lifetime_ms, int | float) else None
        self.refusals = self._failures = 0

    def expiring(self, frame: dict[str, Any]) -> None:
        """Renews the token soon.

        A token with a short life is renewed after half of it: the server announces its end at once, and without a
        pause the application would be asked all the time.
        """
        if not self._can_ask:
            return
        self.needs_new = True
        left_ms = frame.get("expires_in_ms")
        left = left_ms / 1000 if isinstance(left_ms, int | float) else 0.0
        age = 0.0 if self._lifetime is None else self._lifetime - left
        self._effects.append(SetTimer(RENEW, max(0.0, min(left / 2, RENEW_SECONDS_MAX) - max(age, 0.0))))

    def renew(self) -> None:
        """Renews the token over the open connection. A guest cannot: the server closes the connection."""
        if self.needs_new:
            self.ask()
        elif self.value is not None:
            self._calls.notify("refresh", {"token": self.value})

    def renew_later(self, error: ParleyError) -> None:
        """Renews the token after a waiting time that grows with each failure."""
        self._failures += 1
        self._effects.append(SetTimer(RENEW, error.retry_after or 0.0, backoff(self._failures)))

    def refused(self, error: ParleyError) -> None:
        """Handles a refused `refresh`. If nothing helps, the server closes the connection when the old token expires."""
        if error.is_temporary:
            self.renew_later(error)
        elif self.may_help(error):
            self.renew_later(error) if self.refusals > 1 else self.ask()

    def may_help(self, error: ParleyError) -> bool:
        """Returns true if a new token may help: after the first refusal, and whenever the time of a token has passed."""
        if not self._can_ask or not error.code.startswith("token_"):
            return False
        self.needs_new = True
        self.refusals += 1
        return self.refusals == 1 or error.code == "token_expired"

    def expired(self) -> bool:
        """Handles a connection that was closed with its token. Returns false if there is no source of another one."""
        self.refusals = 0
        self.needs_new = self._can_ask
        return self._can_ask or self.value is None
