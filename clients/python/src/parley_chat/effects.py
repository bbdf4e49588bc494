"""Effects that the session asks its surroundings for. They are performed in order, before the next input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .errors import ParleyError
from .events import Announcement, Gap, MembersChanged, Message, Rewind, State, Typing

if TYPE_CHECKING:
    from .joined_room import JoinedRoom

INBOX: Final = "@"
"""Name of the stream of direct messages."""

Timer: TypeAlias = tuple[str, int]
"""Name of a timer: a purpose, and the request that it belongs to or 0."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection to the address with this index."""

    address: int


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a text frame over the open connection."""

    text: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Abandon the connection without a close frame. Nothing that it still receives is an input."""


@dataclass(frozen=True, slots=True)
class AskToken:
    """Ask the application for a token of the user. There is no other question."""


@dataclass(frozen=True, slots=True)
class DropQuestion:
    """Cancel the question for a token, if it runs. Its answer is not an input any more."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Start the timer again: it elapses after `delay` plus a random part of `jitter`, in seconds."""

    timer: Timer
    delay: float
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class ClearTimer:
    """Stop the timer, if it runs."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Settle:
    """Answer a call with the frame of the reply, or with an error."""

    call: int
    outcome: dict[str, Any] | ParleyError


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """A room was joined: its events follow."""

    room: JoinedRoom


@dataclass(frozen=True, slots=True)
class CloseRoom:
    """A room was left, or the session ended: no events follow."""

    key: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """An event of a room, or of the inbox."""

    stream: str
    event: Message | MembersChanged | Gap | Rewind | Typing


@dataclass(frozen=True, slots=True)
class DeliverTyping:
    """A user is typing to this session."""

    sender: str


@dataclass(frozen=True, slots=True)
class Announce:
    """The application has sent a notice."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class ChangeState:
    """The connection has another state."""

    state: State


@dataclass(frozen=True, slots=True)
class ChangeNick:
    """The session has another nickname."""

    nick: str


@dataclass(frozen=True, slots=True)
class Save:
    """Store the token and the positions: at once if the token changed, else soon."""

    at_once: bool = False


Effect: TypeAlias = (
    Connect
    | Transmit
    | Drop
    | AskToken
    | DropQuestion
    | SetTimer
    | ClearTimer
    | Settle
    | OpenRoom
    | CloseRoom
    | Deliver
    | DeliverTyping
    | Announce
    | ChangeState
    | ChangeNick
    | Save
)
