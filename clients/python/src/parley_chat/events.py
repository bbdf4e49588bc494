"""Values that applications receive: events, answers and states of the connection. All are immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""Any value that `json.dumps` writes as JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a room or a direct message."""

    id: str
    to: str
    """A room, or the nickname of the receiver."""
    sender: str
    seq: int | None
    """Position in the room or in the inbox; `None` for a direct message that this session has sent."""
    time: int
    """Unix milliseconds."""
    body: Json
    own: bool
    """True if this session has sent it."""
    repeated: bool = False
    """True if it was delivered before the last `Rewind`, under another `seq`."""
    from_user: str | None = None
    """Id of the sender's user, if it has registered with a token."""
    from_api: bool = False
    """True for a message of the application. `sender` is then a name that it chose, and no user."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a room."""

    nick: str
    status: Literal["online", "away"]
    text: str = ""
    user: str | None = None
    """Id of the user, if it has registered with a token."""


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Changes of the members of a room. Lists that did not change are empty."""

    joined: Sequence[Member] = ()
    left: Sequence[tuple[str, str]] = ()
    """Nicknames with the reasons."""
    renamed: Sequence[tuple[str, str]] = ()
    """Former and new nicknames."""
    status: Sequence[Member] = ()
    resync: bool = False
    """True if the members were loaded again as a whole."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that are no longer kept and cannot be delivered."""

    from_seq: int
    to_seq: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """The server lost the messages after `seq`: discard them. The messages that follow are valid."""

    seq: int


@dataclass(frozen=True, slots=True)
class Typing:
    """Another user is typing."""

    sender: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """A notice of the application to everybody, or to users whose token has a tag. It is not stored."""

    id: str
    body: Json
    time: int
    """Unix milliseconds."""


RoomEvent: TypeAlias = Message | MembersChanged | Gap | Rewind | Typing
DirectEvent: TypeAlias = Message | Typing


@dataclass(frozen=True, slots=True)
class Ack:
    """Answer to a stored message."""

    id: str
    seq: int | None
    """Position in the room; `None` for a direct message."""
    time: int
    """Unix milliseconds."""
    delivered: Literal["online", "offline"] | None
    """For a direct message: the receiver is connected or not."""
    duplicate: bool
    """True if an earlier attempt had stored it already."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the messages of a room, oldest first."""

    items: Sequence[Message]
    more: bool
    """True if there are more messages in the requested direction."""


@dataclass(frozen=True, slots=True)
class User:
    """Answer of `whois`."""

    nick: str
    online: bool
    status: Literal["online", "away"] | None
    """`None` while the user is offline."""
    text: str


@dataclass(frozen=True, slots=True)
class ListedRoom:
    """A room that has members."""

    room: str
    member_count: int


@dataclass(frozen=True, slots=True)
class RoomsPage:
    """A page of the rooms that have members."""

    items: Sequence[ListedRoom]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Connecting:
    """The first connection is being opened."""

    name: Literal["connecting"] = field(default="connecting", init=False)


@dataclass(frozen=True, slots=True)
class Online:
    """The session is connected."""

    node: str
    resumed: bool
    """True if the session from before continues."""
    rooms: Sequence[str]
    took: float = 0.0
    """Seconds since the connection was lost, or since the start."""
    user: str | None = None
    """Id of the user that the token names."""
    name: Literal["online"] = field(default="online", init=False)


@dataclass(frozen=True, slots=True)
class Resuming:
    """The connection is lost, and another one is being opened."""

    name: Literal["resuming"] = field(default="resuming", init=False)


@dataclass(frozen=True, slots=True)
class Offline:
    """There is no connection. Without `will_retry` the state is final, and every pending call has been rejected."""

    reason: str
    """An error code, the name of a close code, `"closed"` after `close()`, `"no_token"` if `get_token` has failed, or
    `"connection_lost"`."""
    will_retry: bool
    retry_in: float | None = None
    """Seconds until the next attempt begins."""
    message: str = ""
    """Text of the server for people about the reason; empty without one."""
    name: Literal["offline"] = field(default="offline", init=False)


State: TypeAlias = Connecting | Online | Resuming | Offline
