"""A joined room. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .members import Members
from .requests import Request
from .stream import Stream


@dataclass(slots=True, eq=False)
class JoinedRoom:
    """A room that this session has joined."""

    key: str
    """Name at the time of the first `join`."""
    name: str
    """Name as the server shows it."""
    stream: Stream
    members: Members = field(default_factory=Members)
    is_live: bool = True
    """True if its events arrive over the current connection."""
    loading: Request | None = None
    """The request for its members."""
    callers: list[int] = field(default_factory=list)
    """Calls of `join` that wait for the members."""
    claims: int = 0
    """Number of answered calls of `join`."""
