"""Conversations: a joined room, or direct messages with one nickname."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .effects import INBOX
from .engine import Engine
from .events import Ack, DirectEvent, Gap, HistoryPage, Json, Member, Message, Rewind, RoomEvent
from .feed import Feed, FeedIterator
from .joined_room import JoinedRoom
from .names import fold
from .stream import message_of

UNREAD_MAX = 1000
"""Maximum number of unread messages that are counted."""
HISTORY_MAX = 200
"""Maximum number of messages in a page of history."""


class Conversation:
    """Sending, typing and unread messages of a room or of a direct conversation."""

    def __init__(self, engine: Engine, target: str, seq: int) -> None:
        self._engine = engine
        self._target = target
        self._unread: deque[int] = deque(maxlen=UNREAD_MAX)
        self._read_seq = engine.read_positions.get(fold(target), seq)

    async def send(self, body: Json, key: str | None = None, *, timeout: float | None = None) -> Ack:
        """Sends a message, and returns once it is stored.

        The send is repeated with its key over lost connections and temporary refusals. Messages to one target are
        stored in the order of the calls. `key`: an idempotency key of 1 to 64 bytes, by default a random one.
        `timeout`: maximum time in seconds.

        Raises `ParleyError` if the server refuses or the session ends: `outcome_unknown` if the message may have been
        stored. Raises `TimeoutError` after `timeout`. After it, as after a cancellation, the message may be stored.
        """
        fields = {"to": self._target, "body": body, "key": key if key is not None else secrets.token_hex(16)}
        async with asyncio.timeout(timeout):
            frame = await self._engine.call("send", fields, lane=fold(self._target))
        return Ack(frame["msg_id"], frame.get("seq"), frame["time"], frame.get("delivered"), frame["duplicate"])

    def typing(self) -> None:
        """Reports typing to the other side; does nothing while the connection is lost."""
        self._engine.notify("typing", {"to": self._target})

    @property
    def unread(self) -> int:
        """Number of received messages of others after the position of `read`, at most 1,000."""
        return len(self._unread)

    @property
    def read_seq(self) -> int:
        """Position of `read`: messages above it are unread."""
        return self._read_seq

    def read(self, seq: int | None = None) -> None:
        """Marks messages up to `seq` as read, by default all received ones. The position is stored."""
        seq = max([self._read_seq, *self._unread]) if seq is None else seq
        self._read_seq = max(self._read_seq, seq)
        while self._unread and self._unread[0] <= self._read_seq:
            self._unread.popleft()
        self._engine.read_positions[fold(self._target)] = self._read_seq
        self._engine.save_soon()

    def _count(self, message: Message) -> None:
        if not message.own and not message.repeated and message.seq is not None and message.seq > self._read_seq:
            self._unread.append(message.seq)


class Room(Conversation):
    """A joined room. Iterating it yields its messages, until it is left or the session ends."""

    def __init__(self, engine: Engine, room: JoinedRoom) -> None:
        super().__init__(engine, room.key, room.stream.seq)
        self._room = room
        self._feed = Feed(engine.save_soon, lambda: engine.unpause(room.key))
        self.recent: Sequence[Message] = ()
        """Messages from before the first event, oldest first: as many as `join` asked for."""

    @property
    def name(self) -> str:
        """Name with its `#`, as the server shows it."""
        return self._room.name

    @property
    def members(self) -> Mapping[str, Member]:
        """Members by nickname, kept up to date."""
        return MappingProxyType(self._room.members.by_nick)

    @property
    def seq(self) -> int:
        """Position of the last received message."""
        return self._room.stream.seq

    def __aiter__(self) -> FeedIterator[Message]:
        return FeedIterator(self._feed, lambda event: isinstance(event, Message) and not event.repeated)

    def events(self) -> FeedIterator[RoomEvent]:
        """Returns an iterator over all events. A room has one open iterator at a time."""
        return FeedIterator(self._feed)

    async def history(self, *, before: int | None = None, after: int | None = None, limit: int = 50) -> HistoryPage:
        """Returns messages of the room, oldest first: the newest, or those directly before or after a seq.

        A page may be shorter than `limit`, at most 200: continue while `more` is true. Raises `ParleyError`.
        """
        bounds = {"before": before, "after": after}
        fields = {"to": self.name, "limit": limit, **{name: seq for name, seq in bounds.items() if seq is not None}}
        frame = await self._engine.call("history", fields)
        is_own = self._engine.session.rooms.is_own
        return HistoryPage(tuple(message_of(item, is_own(item)) for item in frame["items"]), frame["more"])

    async def leave(self) -> None:
        """Leaves the room. Cancelling ends only the waiting. Raises `ParleyError` if the session ends."""
        await self._engine.call("leave", {"room": self.name}, lane=fold(self._target))

    async def _load_recent(self, count: int) -> None:
        recent: list[Message] = []
        before, more = self._room.stream.start + 1, True
        while more and len(recent) < count:
            page = await self.history(before=before, limit=count - len(recent))
            recent[:0] = page.items
            more = page.more and bool(page.items)
            before = page.items[0].seq or 0 if page.items else before
        self.recent = tuple(recent)

    def _deliver(self, event: RoomEvent) -> None:
        if isinstance(event, Message):
            self._count(event)
        elif isinstance(event, Rewind):
            self._read_seq = min(self._read_seq, event.seq)
            while self._unread and self._unread[-1] > event.seq:
                self._unread.pop()
        self._feed.push(event, is_vital=isinstance(event, Message | Gap | Rewind))
        if self._feed.is_full:
            self._engine.pause(self._target)


class Direct(Conversation):
    """Direct messages with one nickname. Iterating it yields the messages of both sides, until the session ends.

    Messages of the application are in `Parley.directs` only.
    """

    def __init__(self, engine: Engine, nick: str, feed: Feed) -> None:
        super().__init__(engine, nick, 0)
        self._feed = feed

    @property
    def nick(self) -> str:
        """Nickname of the other side."""
        return self._target

    def __aiter__(self) -> FeedIterator[Message]:
        return FeedIterator(self._feed, lambda event: isinstance(event, Message))

    def events(self) -> FeedIterator[DirectEvent]:
        """Returns an iterator over all events. A conversation has one open iterator at a time."""
        return FeedIterator(self._feed)

    def read(self, seq: int | None = None) -> None:
        """Marks messages up to `seq` as read, by default all received ones. The position is stored."""
        super().read(seq)
        self._engine.notify("read", {"to": INBOX, "seq": self._read_seq})

    def _deliver(self, event: Any) -> None:
        if isinstance(event, Message):
            self._count(event)
        self._feed.push(event, is_vital=isinstance(event, Message) and not event.own)
        if self._feed.is_full:
            self._engine.pause(INBOX)
