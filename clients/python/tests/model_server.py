"""A model of a cluster for one client, without IO: sessions, rooms, an inbox, and their losses.

It follows gateway/PROTOCOL.md as far as the client can observe it, and remembers everything that was ever stored.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]

INBOX = "@"


@dataclass
class ModelStream:
    """Numbered messages, of which the oldest may be trimmed and the newest lost."""

    name: str
    epoch: str = "e0"
    items: list[Frame] = field(default_factory=list)
    top: int = 0
    forks: dict[str, int] = field(default_factory=dict)
    """Former epochs, with the last seq that each shares with the present one."""

    def append(self, sender: str, to: str, body: Any, msg_id: str) -> Frame:
        self.top += 1
        item = {"type": "message", "to": to, "from": sender, "msg_id": msg_id, "seq": self.top, "time": 1, "body": body}
        self.items.append(item)
        return item

    def lose(self, count: int) -> tuple[int, list[Frame]]:
        """Loses the newest messages, and begins an epoch. Returns the fork and the lost messages."""
        fork = max(self.top - count, 0)
        lost = [item for item in self.items if item["seq"] > fork]
        self.items = [item for item in self.items if item["seq"] <= fork]
        self.forks = {epoch: min(seq, fork) for epoch, seq in self.forks.items()} | {self.epoch: fork}
        self.epoch = f"e{len(self.forks)}"
        self.top = fork
        return fork, lost

    def trim(self, count: int) -> None:
        del self.items[:count]

    def after(self, position: Frame) -> list[Frame]:
        """Returns the events that continue a position."""
        epoch, seq = position["epoch"], position["seq"]
        events: list[Frame] = []
        if epoch != self.epoch or seq > self.top:
            fork = self.forks.get(epoch, 0) if epoch != self.epoch else self.top
            kind = "epoch" if seq <= fork and epoch in self.forks else "rewound"
            seq = min(seq, fork)
            events.append({"type": kind, "to": self.name, "epoch": self.epoch, "seq": fork if kind == "epoch" else seq})
        missed = [item for item in self.items if item["seq"] > seq]
        first = missed[0]["seq"] if missed else self.top + 1
        if first > seq + 1:
            events.append({"type": "gap", "to": self.name, "from_seq": seq + 1, "to_seq": first - 1})
        return events + missed

    def end(self) -> Frame:
        return {"epoch": self.epoch, "seq": self.top}


@dataclass
class ModelSession:
    """A session with its rooms, tokens, inbox and keys."""

    nick: str
    rooms: set[str] = field(default_factory=set)
    tokens: list[str] = field(default_factory=list)
    inbox: ModelStream = field(default_factory=lambda: ModelStream(INBOX))
    acks: dict[tuple[str, str], Frame] = field(default_factory=dict)


class ModelServer:
    """The cluster, and the connection of the client if there is one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rooms: dict[str, ModelStream] = {}
        self.session: ModelSession | None = None
        self.attached: ModelSession | None = None
        self.live: set[str] = set()
        """Rooms that deliver over the connection."""
        self.output: list[Frame] = []
        self.stored: list[tuple[str, Any]] = []
        """Target and body of every message, in the order of storing."""
        self.nick_blocks = 0
        """Number of registrations that the nickname is refused for: a lost `register` holds it."""
        self.valid_tokens: set[str] = set()
        """Tokens of the user whose time has not passed."""
        self._ids = 0

    def id(self) -> str:
        self._ids += 1
        return f"m{self._ids}"

    def disconnect(self) -> None:
        if (
            self.attached is not None
            and self.attached is self.session
            and self.session.tokens[:1] == self.session.tokens
        ):
            self.nick_blocks = self.rng.randint(0, 2)
        self.attached = None
        self.live.clear()
        self.output.clear()

    def forget_session(self) -> None:
        """The session expires: its token, rooms and inbox are gone."""
        if self.attached is None:
            self.session = None

    def room(self, name: str) -> ModelStream:
        return self.rooms.setdefault(name.lower(), ModelStream(name))

    # Others

    def other_sends(self, target: str) -> None:
        """Another user sends to a room, or to the client."""
        body = self.id()
        if target.startswith("#"):
            self._store_in_room(target, "bob", body)
        elif self.session is not None:
            item = self.session.inbox.append("bob", self.session.nick, body, body)
            if self.attached is self.session:
                self.output.append(item)

    def lose(self, target: str, count: int) -> None:
        """The store loses the newest messages of a stream, and the gateways republish them."""
        stream = self.rooms.get(target)
        if stream is None:
            return
        had = stream.end()
        fork, lost = stream.lose(count)
        if target in self.live:
            kind = "epoch" if had["seq"] <= fork else "rewound"
            self.output.append({"type": kind, "to": stream.name, "epoch": stream.epoch, "seq": fork})
        for item in lost:
            again = stream.append(item["from"], item["to"], item["body"], item["msg_id"])
            if target in self.live:
                self.output.append(again)

    def _store_in_room(self, target: str, sender: str, body: Any) -> Frame:
        stream = self.room(target)
        item = stream.append(sender, stream.name, body, self.id())
        self.stored.append((target.lower(), body))
        if target.lower() in self.live:
            self.output.append(item)
        return item

    # The client

    def handle(self, frame: Frame, refusal: str | None) -> bool:
        """Answers a request, or refuses it. Returns true if the connection closes."""
        live = set(self.live)
        if frame["type"] == "bye":
            return True
        if refusal in ("unavailable", "overloaded"):
            error = {"type": "error", "id": frame["id"], "code": refusal, "message": ""}
            self.output.append(error | ({"retry_after_ms": 50} if self.rng.random() < 0.5 else {}))
            return False
        if frame["type"] == "register":
            reply, events = self._register(frame)
        elif self.attached is None:
            reply, events = {"type": "error", "code": "not_registered"}, []
        else:
            self.attached.tokens = self.attached.tokens[-1:]
            reply, events = getattr(self, f"_{frame['type']}")(frame)
        if refusal == "outcome_unknown" and frame["type"] != "register":
            reply, events = {"type": "error", "code": "outcome_unknown"}, []
            self.live -= {frame["room"].lower()} - live if frame["type"] == "join" else set()
        reply = {"message": "", **reply, "id": frame["id"]}
        is_early = frame["type"] == "send" and self.rng.random() < 0.5 and reply["type"] == "ack"
        self.output.insert(len(self.output) - 1 if is_early and self.output else len(self.output), reply)
        self.output.extend(events)
        return False

    def _register(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        if frame.get("token") not in self.valid_tokens:
            return {"type": "error", "code": "token_expired" if "token" in frame else "token_required"}, []
        token = frame.get("resume")
        if token is not None and (self.session is None or token not in self.session.tokens):
            return {"type": "error", "code": "resume_failed"}, []
        if token is None:
            if self.session is not None and self.nick_blocks > 0:
                self.nick_blocks -= 1
                held = {"retry_after_ms": 50} if self.rng.random() < 0.5 else {}
                return {"type": "error", "code": "nick_in_use", **held}, []
            self.session = ModelSession(frame["nick"])
        session = self.attached = self.session
        assert session is not None
        session.tokens = [*([token] if token else []), self.id()]
        rooms = [{"room": self.rooms[name].name, **self.rooms[name].end()} for name in sorted(session.rooms)]
        since = frame.get("since", {})
        events: list[Frame] = []
        for name, position in since.items():
            if name.lower() in session.rooms:
                self.live.add(name.lower())
                events += self.rooms[name.lower()].after(position)
        if INBOX in since:
            events += session.inbox.after(since[INBOX])
        reply = {"type": "registered", "nick": session.nick, "resume": session.tokens[-1], "rooms": rooms}
        return reply | {"inbox": session.inbox.end(), "heartbeat_ms": 30000, "node": "g1"}, events

    def _refresh(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        if frame["token"] not in self.valid_tokens:
            return {"type": "error", "code": "token_expired"}, []
        return {"type": "refreshed", "expires_in_ms": 60000, "left": []}, []

    def _join(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        assert self.attached is not None
        stream, key = self.room(frame["room"]), frame["room"].lower()
        events = []
        if "since" in frame and key not in self.live:
            events = stream.after(frame["since"])
        rewound = any(event["type"] == "rewound" for event in events)
        recovered = "since" in frame and key not in self.live and not rewound
        self.attached.rooms.add(key)
        self.live.add(key)
        return {
            "type": "joined",
            "room": stream.name,
            **stream.end(),
            "recovered": recovered,
            "member_count": 1,
        }, events

    def _leave(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        assert self.attached is not None
        key = frame["room"].lower()
        if key not in self.attached.rooms:
            return {"type": "error", "code": "not_in_room"}, []
        self.attached.rooms.discard(key)
        self.live.discard(key)
        return {"type": "left", "room": self.rooms[key].name}, []

    def _send(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        session, key = self.attached, (frame["to"].lower(), frame["key"])
        assert session is not None
        if frame["to"].startswith("#") and frame["to"].lower() not in session.rooms:
            return {"type": "error", "code": "not_in_room"}, []
        if key in session.acks:
            return session.acks[key] | {"duplicate": True}, []
        if frame["to"].startswith("#"):
            item = self._store_in_room(frame["to"], session.nick, frame["body"])
            place = {"seq": item["seq"], "msg_id": item["msg_id"]}
        else:
            self.stored.append((frame["to"], frame["body"]))
            place = {"delivered": "online", "msg_id": self.id()}
        session.acks[key] = {"type": "ack", "to": frame["to"], "time": 1, "duplicate": False, **place}
        return session.acks[key], []

    def _members(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        items = [{"nick": "ann", "status": "online"}]
        return {"type": "members", "room": frame["room"], "items": items, "next_cursor": None}, []

    def _status(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        return {"type": "status", "status": frame["status"], "text": ""}, []

    def _ping(self, frame: Frame) -> tuple[Frame, list[Frame]]:
        return {"type": "pong"}, []
