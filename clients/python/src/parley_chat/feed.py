"""Events that wait for the application, and the one iterator that takes them.

While nothing iterates, a feed keeps its newest events. While an iterator is open, a full feed pauses its stream: the
server delivers the rest once the iterator has caught up. So memory is bounded, and calls are answered meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from .events import Gap, Message

FEED_EVENTS_MAX = 1000
"""Maximum number of waiting events."""

T_co = TypeVar("T_co", covariant=True)


class Feed:
    """Queue of events between the session and an iterator."""

    def __init__(self, on_taken: Callable[[], None] = lambda: None, on_room: Callable[[], None] = lambda: None) -> None:
        self.is_open = False
        """True while an iterator exists."""
        self.was_opened = False
        self._events: deque[Any] = deque()
        self._in_hand: Any = None
        self._dropped: tuple[int, int] | None = None
        self._is_closed = False
        self._arrived = asyncio.Event()
        self._on_taken = on_taken
        self._on_room = on_room

    @property
    def is_full(self) -> bool:
        """True if the stream has to pause."""
        return self.is_open and len(self._events) >= FEED_EVENTS_MAX

    def push(self, event: Any, is_vital: bool = True) -> None:
        """Adds an event. In a full feed the oldest one is dropped, or an event that is not vital."""
        if len(self._events) >= FEED_EVENTS_MAX:
            if not is_vital:
                return
            if not self.is_open:
                self._note_dropped(self._events.popleft())
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """Ends the iterator once it has taken the waiting events."""
        self._is_closed = True
        self._arrived.set()

    def reopen(self) -> None:
        """Takes events again after the end of a session."""
        self._is_closed = False

    def unhandled(self) -> int | None:
        """Returns the lowest seq among the messages that the application has not handled."""
        waiting = (self._in_hand, *self._events)
        return min((event.seq for event in waiting if isinstance(event, Message) and event.seq), default=None)

    def _note_dropped(self, event: Any) -> None:
        if isinstance(event, Message) and event.seq:
            first = self._dropped[0] if self._dropped else event.seq
            self._dropped = (min(first, event.seq), event.seq)

    def release(self) -> None:
        """Counts the event in hand as handled."""
        if self._in_hand is not None:
            self._in_hand = None
            self._on_taken()

    async def take(self) -> Any:
        """Waits for the next event, and returns it. Cancelling loses no event."""
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if self._dropped is not None:
            gap, self._dropped = Gap(*self._dropped), None
            return gap
        self._in_hand = self._events.popleft()
        if not self._events:
            self._on_room()
        return self._in_hand

    def leave(self) -> None:
        """The iterator is closed: what waits is left for the next one."""
        self.is_open = False
        self.release()
        self._on_room()


class FeedIterator(AsyncIterator[T_co], Generic[T_co]):
    """Iterator over the events of a feed. An event counts as handled when the next one is requested."""

    def __init__(self, feed: Feed, accepts: Callable[[Any], bool] = lambda event: True) -> None:
        self._feed: Feed | None = None
        if feed.is_open:
            raise RuntimeError("these events are being iterated already")
        self._feed = feed
        self._accepts = accepts
        feed.is_open = feed.was_opened = True

    def __aiter__(self) -> FeedIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        while self._feed is not None:
            self._feed.release()
            event: T_co = await self._feed.take()
            if self._accepts(event):
                return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the iterator. Waiting events are left for the next one."""
        self._close()

    def __del__(self) -> None:
        # A `for` loop that ends early closes no iterator; it only drops it.
        self._close()

    def _close(self) -> None:
        if self._feed is not None:
            feed, self._feed = self._feed, None
            feed.leave()
