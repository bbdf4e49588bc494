"""Client of a Parley cluster for asyncio.

One `Parley` is one session under one nickname. It keeps its connection alive, resumes the session after a loss, and
delivers every message of a joined room once and in order.
"""

from .client import Parley
from .conversation import Direct, Room
from .errors import ParleyError
from .events import (
    Ack,
    Announcement,
    Connecting,
    DirectEvent,
    Gap,
    HistoryPage,
    ListedRoom,
    Member,
    MembersChanged,
    Message,
    Offline,
    Online,
    Resuming,
    Rewind,
    RoomEvent,
    RoomsPage,
    State,
    Typing,
    User,
)
from .feed import FeedIterator
from .storage import FileStorage, Storage
from .user_token import GetToken

__all__ = [
    "Ack",
    "Announcement",
    "Connecting",
    "Direct",
    "DirectEvent",
    "FeedIterator",
    "FileStorage",
    "Gap",
    "GetToken",
    "HistoryPage",
    "ListedRoom",
    "Member",
    "MembersChanged",
    "Message",
    "Offline",
    "Online",
    "Parley",
    "ParleyError",
    "Resuming",
    "Rewind",
    "Room",
    "RoomEvent",
    "RoomsPage",
    "State",
    "Storage",
    "Typing",
    "User",
]
