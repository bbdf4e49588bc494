"""A question for a token, as a task that runs the function of the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .user_token import GetToken

STOP_SECONDS = 1.0
"""Time limit for a cancelled function to end. One that goes on has no effect any more."""


class Question:
    """The running question. Dropping it cancels the function."""

    def __init__(self, get_token: GetToken, answer: Callable[[object], None]) -> None:
        """Calls the function. `answer` receives what it returns or raises, unless the question was dropped."""
        self._answer: Callable[[object], None] | None = answer
        self._task = asyncio.create_task(self._run(get_token), name="parley token")

    async def _run(self, get_token: GetToken) -> None:
        outcome: object
        try:
            outcome = await get_token()
        except Exception as error:
            outcome = error
        if self._answer is not None:
            self._answer(outcome)

    def drop(self) -> None:
        """Forgets the question."""
        if self._answer is not None:
            self._answer = None
            # The answer itself may lead here.
            if self._task is not asyncio.current_task():
                self._task.cancel()

    async def ended(self) -> None:
        """Waits until the function has ended, for a short time."""
        await asyncio.wait([self._task], timeout=STOP_SECONDS)
