"""Calls from their begin to their answer: sending, refusals, retries, lost answers and cancellation. Pure.

A call is settled exactly once, unless it is cancelled. A send is repeated only while the server remembers its key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .effects import ClearTimer, Effect, SetTimer, Settle, Timer, Transmit
from .errors import ParleyError
from .requests import FRAME_BYTES_MAX, Request, RequestQueue, encode

KEY_SECONDS: Final = 240.0
"""Time in which a send without an answer is repeated. The server remembers its key for five minutes."""
BACKOFF_MAX: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Maximum waiting time in seconds before each attempt after a failure."""


def backoff(failures: int) -> float:
    """Returns the maximum waiting time after this number of failures, at least 1."""
    return BACKOFF_MAX[min(failures, len(BACKOFF_MAX)) - 1]


class Calls:
    """Requests of the application and of the client itself."""

    def __init__(self, effects: list[Effect]) -> None:
        self._effects = effects
        self._queue = RequestQueue()
        self._last_id = 0

    @property
    def has_in_flight(self) -> bool:
        """True if a reply is due over this connection."""
        return self._queue.has_in_flight

    def next_id(self) -> int:
        """Returns a new id."""
        self._last_id += 1
        return self._last_id

    def request(
        self, type: str, fields: dict[str, Any], *, lane: str = "", first: bool = False, context: Any = None
    ) -> Request:
        """Queues a request of the client itself."""
        request = Request(self.next_id(), type, fields, lane, has_caller=False, context=context)
        self._queue.add(request, first)
        return request

    def call(self, type: str, fields: dict[str, Any], lane: str) -> Request:
        """Queues a request of the application. It keeps its text, so that all attempts are the same.

        Raises an error of `encode` if a field has no JSON.
        """
        request = Request(self.next_id(), type, fields, lane)
        request.text = "" if type == "join" else encode({"type": type, "id": request.id, **fields})
        is_too_large = len(request.text.encode()) > FRAME_BYTES_MAX
        self._queue.add(request)
        if is_too_large:
            self.settle(request, ParleyError("too_large", f"a request has at most {FRAME_BYTES_MAX} bytes"))
        return request

    def notify(self, type: str, fields: dict[str, Any]) -> None:
        """Sends a request once, whatever comes of it. The connection must be open."""
        request = Request(self.next_id(), type, fields, has_caller=False, is_ephemeral=True)
        self._queue.add(request)
        self._transmit(request, fields)

    def transmit(self, fields_of: Callable[[Request], dict[str, Any]]) -> None:
        """Sends the requests whose turn it is."""
        for request in self._queue.ready():
            self._transmit(request, fields_of(request))

    def _transmit(self, request: Request, fields: dict[str, Any]) -> None:
        self._queue.sent(request)
        if request.type == "send" and not request.is_uncertain:
            self._effects.append(SetTimer(("expire", request.id), KEY_SECONDS))
        text = request.text or encode({"type": request.type, "id": request.id, **fields})
        self._effects.append(Transmit(text))

    def reply(self, frame: dict[str, Any]) -> Request | None:
        """Takes the request of a reply out of flight; `None` if its answer has no effect any more."""
        request = self._queue.answered(frame.get("id"))
        return request if request is not None and request.progress != "done" else None

    def settle(self, request: Request, outcome: dict[str, Any] | ParleyError) -> None:
        """Ends a request with its outcome."""
        self.drop(request)
        if request.has_caller:
            self._effects.append(Settle(request.id, outcome))

    def drop(self, request: Request) -> None:
        """Ends a request without an outcome."""
        self._queue.remove(request)
        self._effects += [ClearTimer(("retry", request.id)), ClearTimer(("expire", request.id))]

    def retry(self, request: Request, error: ParleyError) -> None:
        """Repeats a request after a temporary refusal."""
        request.progress = "waiting"
        request.is_uncertain |= error.code == "outcome_unknown"
        if not request.is_uncertain:
            self._effects.append(ClearTimer(("expire", request.id)))
        if error.retry_after is not None:
            self._effects.append(SetTimer(("retry", request.id), error.retry_after))
        else:
            self._effects.append(SetTimer(("retry", request.id), 0.0, backoff(request.attempts)))

    def lost(self) -> None:
        """Queues everything again after a lost connection."""
        for request in self._queue.lost():
            request.is_uncertain = True

    def session_lost(self) -> None:
        """Ends the sends with a lost answer: another session's keys are not compared with theirs."""
        for request in self._queue.all():
            if request.type == "send" and request.is_uncertain:
                self.settle(request, ParleyError("outcome_unknown", "the session of the first attempt is lost"))

    def connected(self) -> None:
        """Makes the requests ready that wait for a retry."""
        self._queue.queue_waiting()

    def elapsed(self, timer: Timer) -> None:
        """Repeats or gives up the request of a timer."""
        purpose, id = timer
        request = self._queue.find(id)
        if request is None:
            return
        if purpose == "expire":
            self.settle(request, ParleyError("outcome_unknown", "the answer did not come in time"))
        elif request.progress == "waiting":
            self._queue.queue(request)

    def cancel(self, id: int) -> Request | None:
        """Ends a call without an outcome. A `leave` or `nick` that was begun is completed."""
        request = self._queue.find(id)
        if request is not None:
            request.has_caller = False
            if request.type not in ("leave", "nick"):
                self.drop(request)
        return request

    def joining(self, lane: str) -> list[Request]:
        """Returns the calls of `join` for a room that are not answered."""
        return [request for request in self._queue.lane(lane) if request.type == "join" and request.has_caller]

    def is_leaving(self, lane: str) -> bool:
        """Returns true if a `leave` of this room is not answered."""
        return any(request.type == "leave" for request in self._queue.lane(lane))

    def drop_context(self, context: object) -> None:
        """Ends the requests of the client itself that belong to a room."""
        for request in self._queue.all():
            if request.context is context:
                self.drop(request)

    def end(self, error: ParleyError) -> None:
        """Ends all requests."""
        for request in self._queue.all():
            self.settle(request, error)
        self._queue = RequestQueue()
