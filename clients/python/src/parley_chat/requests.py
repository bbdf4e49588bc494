"""Requests that wait for an answer. Pure.

Requests of one lane are sent one at a time, in the order of the calls. The replies of a connection come in the order of
its requests, so a reply without an `id` belongs to the oldest request in flight.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FRAME_BYTES_MAX = 64 * 1024
"""Maximum size of a frame that the gateway reads as a request."""


def encode(frame: dict[str, Any]) -> str:
    """Returns the text of a frame.

    Half of a surrogate pair has no UTF-8: it is escaped, so the server refuses the request and not the whole connection.

    Raises `TypeError`, `ValueError` or `RecursionError` if a value has no JSON.
    """
    text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(frame, allow_nan=False, separators=(",", ":"))
    return text


@dataclass(slots=True, eq=False)
class Request:
    """A request that is repeated until it is answered."""

    id: int
    type: str
    fields: dict[str, Any]
    lane: str = ""
    """Requests of a lane are in flight one at a time. Empty: a lane of its own."""
    text: str = ""
    """The encoded frame, if it is the same at each attempt."""
    is_ephemeral: bool = False
    """Sent at most once, and never repeated."""
    has_caller: bool = True
    progress: Literal["queued", "in_flight", "waiting", "done"] = "queued"
    is_uncertain: bool = False
    """True if an attempt may have taken effect and its answer is lost."""
    attempts: int = 0
    context: Any = field(default=None)
    """State that the answer belongs to."""

    @property
    def was_sent(self) -> bool:
        """True if an attempt may have taken effect."""
        return self.progress == "in_flight" or self.is_uncertain


class RequestQueue:
    """Requests by lane, and those in flight."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Request]] = {}
        self._in_flight: dict[int, Request] = {}
        self._by_id: dict[int, Request] = {}
        self._changed: dict[str, None] = {}
        """Lanes whose first request may be ready, in order."""

    def add(self, request: Request, first: bool = False) -> None:
        """Adds a request at the end of its lane, or as the next one."""
        request.lane = request.lane or f"={request.id}"
        lane = self._lanes.setdefault(request.lane, deque())
        if first:
            if lane and lane[0].progress == "waiting":
                lane[0].progress = "queued"
            lane.appendleft(request)
        else:
            lane.append(request)
        self._by_id[request.id] = request
        self._changed[request.lane] = None

    def find(self, id: int) -> Request | None:
        """Returns a request without an answer."""
        return self._by_id.get(id)

    def lane(self, name: str) -> Sequence[Request]:
        """Returns the requests of a lane."""
        return self._lanes.get(name, ())

    @property
    def has_in_flight(self) -> bool:
        return bool(self._in_flight)

    def ready(self) -> Iterator[Request]:
        """Yields the first request of each lane unless it is in flight or waiting."""
        changed, self._changed = self._changed, {}
        for lane in map(self.lane, changed):
            if lane and lane[0].progress == "queued":
                yield lane[0]

    def sent(self, request: Request) -> None:
        """Marks a request as sent."""
        request.progress = "in_flight"
        request.attempts += 1
        self._in_flight[request.id] = request

    def answered(self, id: Any) -> Request | None:
        """Takes the request of a reply out of flight; `None` if there is none."""
        if id is None:
            id = next(iter(self._in_flight), None)
        return self._in_flight.pop(id, None)

    def remove(self, request: Request) -> None:
        """Removes a request. A reply that is still due is recognised, and has no effect."""
        request.is_uncertain = request.was_sent
        request.progress = "done"
        self._by_id.pop(request.id, None)
        lane = self._lanes.get(request.lane)
        if lane is not None and request in lane:
            lane.remove(request)
            self._changed[request.lane] = None
            if not lane:
                del self._lanes[request.lane]

    def lost(self) -> list[Request]:
        """Queues all requests again after a lost connection. Returns those that were in flight."""
        lost = [request for request in self._in_flight.values() if request.progress == "in_flight"]
        self._in_flight.clear()
        for request in lost:
            if request.is_ephemeral:
                self.remove(request)
        self.queue_waiting()
        return [request for request in lost if not request.is_ephemeral]

    def queue_waiting(self) -> None:
        """Ends the pauses before the next attempts."""
        for request in self._by_id.values():
            if request.id not in self._in_flight:
                self.queue(request)

    def queue(self, request: Request) -> None:
        """Makes a request ready for its next attempt."""
        request.progress = "queued"
        self._changed[request.lane] = None

    def all(self) -> list[Request]:
        """Returns all requests without an answer, in the order of the calls."""
        return list(self._by_id.values())
