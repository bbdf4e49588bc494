"""Takes the events of a session to rooms, conversations and listeners."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from .conversation import Direct, Room
from .effects import INBOX
from .engine import Engine
from .events import Announcement, Gap, Message, RoomEvent, State, Typing
from .feed import Feed
from .joined_room import JoinedRoom
from .names import fold

EventName: TypeAlias = Literal["state", "nick", "joined", "gap", "announcement"]

REMEMBERED_ANNOUNCEMENTS = 1000
"""Number of announcements that are recognised when they come again."""

log = logging.getLogger("parley_chat")


class Router:
    """Rooms, direct conversations and listeners of a session."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.rooms: dict[str, Room] = {}
        self._ended_rooms: dict[str, Room] = {}
        """Rooms at the end of the session, whose events may still be taken."""
        self._directs: dict[str, Direct] = {}
        self._direct_feeds: list[Feed] = []
        self.inbox = self._new_direct_feed()
        self._state_feeds: weakref.WeakSet[Feed] = weakref.WeakSet()
        self._announced: deque[str] = deque(maxlen=REMEMBERED_ANNOUNCEMENTS)
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}

    def on(self, event: EventName, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Adds a listener, and returns the function that removes it."""
        listeners = self._listeners.setdefault(event, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def direct(self, engine: Engine, nick: str) -> Direct:
        """Returns the conversation with a nickname."""
        known = self._directs.get(fold(nick))
        if known is None:
            known = self._directs[fold(nick)] = Direct(engine, nick, self._new_direct_feed())
            if engine.session.end is not None:
                self._direct_feeds[-1].close()
        return known

    def new_state_feed(self, first: State) -> Feed:
        """Returns a feed of the present and all later states."""
        feed = Feed()
        feed.push(first)
        if self.engine is not None and self.engine.ended.is_set():
            feed.close()
        self._state_feeds.add(feed)
        return feed

    def _new_direct_feed(self) -> Feed:
        feed = Feed(self._direct_taken, self._direct_emptied)
        self._direct_feeds.append(feed)
        return feed

    def _direct_taken(self) -> None:
        if self.engine is not None:
            self.engine.save_soon()

    def _direct_emptied(self) -> None:
        if self.engine is not None and not any(feed.is_full for feed in self._direct_feeds):
            self.engine.unpause(INBOX)

    # Events of the engine

    def room_opened(self, room: JoinedRoom) -> None:
        assert self.engine is not None
        self._ended_rooms.pop(room.key, None)
        self.rooms[room.key] = Room(self.engine, room)
        self._emit("joined", self.rooms[room.key])

    def room_closed(self, key: str) -> None:
        assert self.engine is not None
        room = self.rooms.pop(key)
        room._feed.close()
        if self.engine.session.end is not None:
            self._ended_rooms[key] = room

    def delivered(self, stream: str, event: RoomEvent) -> None:
        if stream != INBOX:
            self.rooms[stream]._deliver(event)
        elif isinstance(event, Gap):
            self._emit("gap", event)
        elif isinstance(event, Message) and not event.repeated:
            self._deliver_direct(event)

    def typing(self, sender: str) -> None:
        direct = self._directs.get(fold(sender))
        if direct is not None:
            direct._deliver(Typing(sender))

    def announced(self, announcement: Announcement) -> None:
        # It comes twice if the session changes its gateway at that moment.
        if announcement.id not in self._announced:
            self._announced.append(announcement.id)
            self._emit("announcement", announcement)

    def _deliver_direct(self, message: Message) -> None:
        direct = self._directs.get(fold(message.to if message.own else message.sender))
        # An answer to its name would reach a user.
        if direct is not None and not message.from_api:
            direct._deliver(message)
        if not message.own:
            self.inbox.push(message)
            if self.inbox.is_full and self.engine is not None:
                self.engine.pause(INBOX)

    def state_changed(self, state: State) -> None:
        is_final = state.name == "offline" and not state.will_retry
        for feed in list(self._state_feeds):
            feed.push(state)
            if is_final:
                feed.close()
        for feed in self._direct_feeds:
            if is_final:
                feed.close()
            else:
                feed.reopen()
        self._emit("state", state)

    def nick_changed(self, nick: str) -> None:
        self._emit("nick", nick)

    def closing(self) -> None:
        """Counts the events in hand as handled: the application ends the session deliberately."""
        for feed in (*(room._feed for room in self.rooms.values()), *self._direct_feeds):
            feed.release()

    def handled(self, stream: str, seq: int) -> int:
        """Returns the seq of the last handled message of a stream, at most `seq`."""
        if stream != INBOX:
            room = self.rooms.get(stream) or self._ended_rooms.get(stream)
            feeds = [] if room is None else [room._feed]
        else:
            feeds = [feed for feed in self._direct_feeds if feed.was_opened]
        unhandled = [first for feed in feeds if (first := feed.unhandled()) is not None]
        return min([seq, *(first - 1 for first in unhandled)])

    def _emit(self, event: EventName, value: Any) -> None:
        for listener in list(self._listeners.get(event, ())):
            asyncio.get_running_loop().call_soon(_call, listener, value)


def _call(listener: Callable[[Any], None], value: Any) -> None:
    try:
        listener(value)
    except Exception:
        log.exception("listener failed")
