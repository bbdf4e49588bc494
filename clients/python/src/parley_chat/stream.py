"""Position in a numbered stream: the messages of a room, or the inbox. Pure.

Every message is released once and in order. A paused stream releases nothing and keeps its position.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .events import Gap, Message, Rewind

REMEMBERED_IDS = 1000
"""Number of delivered messages that are recognised when they come again after a rewind."""


class Stream:
    """Epoch and seq of the last released message."""

    def __init__(self, epoch: str, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self.start = seq
        """Seq after which this client receives messages."""
        self.is_paused = False
        self._released: deque[str] = deque(maxlen=REMEMBERED_IDS)
        self._before_rewind: frozenset[str] = frozenset()

    @classmethod
    def at(cls, position: dict[str, Any]) -> Stream:
        """Returns the stream at a position of the protocol."""
        return cls(str(position["epoch"]), int(position["seq"]))

    def position(self) -> dict[str, Any]:
        """Returns the position for `since`."""
        return {"epoch": self.epoch, "seq": self.seq}

    def message(self, frame: dict[str, Any], own: bool) -> Message | None:
        """Returns the message if it is new."""
        if self.is_paused or frame["seq"] <= self.seq:
            return None
        self.seq = frame["seq"]
        repeated = frame["msg_id"] in self._before_rewind
        self._released.append(frame["msg_id"])
        return message_of(frame, own, repeated)

    def gap(self, frame: dict[str, Any]) -> Gap | None:
        """Moves the position behind messages that cannot be delivered."""
        if self.is_paused or frame["to_seq"] <= self.seq:
            return None
        gap = Gap(max(frame["from_seq"], self.seq + 1), frame["to_seq"])
        self.seq = gap.to_seq
        return gap

    def rewound(self, frame: dict[str, Any]) -> Rewind | None:
        """Moves the position back to the last valid message."""
        if self.is_paused:
            return None
        self._before_rewind = frozenset(self._released)
        self.epoch, self.seq = frame["epoch"], frame["seq"]
        self.start = min(self.start, self.seq)
        return Rewind(self.seq)

    def epoch_changed(self, frame: dict[str, Any]) -> None:
        """Enters the next numbering, which continues this one."""
        if not self.is_paused:
            self.epoch = frame["epoch"]


def message_of(frame: dict[str, Any], own: bool, repeated: bool = False) -> Message:
    """Returns the message of an event or of an item of `history`."""
    place = (frame["msg_id"], frame["to"], frame["from"], frame.get("seq"), frame["time"])
    return Message(*place, frame["body"], own, repeated, frame.get("from_user"), bool(frame.get("from_api")))
