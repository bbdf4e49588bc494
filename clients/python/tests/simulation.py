"""Plays a session against the model server, with faults that a seed draws, and judges what the application received."""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any

from model_server import INBOX, Frame, ModelServer

from parley_chat.effects import (
    AskToken,
    ClearTimer,
    CloseRoom,
    Connect,
    Deliver,
    Drop,
    DropQuestion,
    OpenRoom,
    SetTimer,
    Settle,
    Timer,
    Transmit,
)
from parley_chat.events import Gap, Message, Rewind
from parley_chat.session import Session
from parley_chat.user_token import Identity

ROOMS = ("#tea", "#Coffee")
DRAIN_STEPS = 5000


async def never() -> None:
    """The source of tokens. The simulation answers in its place."""
    raise AssertionError("the session is pure")


class Simulation:
    """A client, its network and its timers."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = ModelServer(self.rng)
        self.session = Session(Identity("ann", get_token=never), 2)
        self.is_opening = self.is_open = self.is_asked = False
        self.requests: deque[Frame] = deque()
        self.timers: set[Timer] = set()
        self.calls: dict[int, tuple[str, str]] = {}
        """Kind and target of every call."""
        self.sends: dict[int, Frame] = {}
        self.outcomes: dict[int, list[Any]] = {}
        self.cancelled: set[int] = set()
        self.events: dict[str, list[Any]] = {INBOX: []}
        self.open_rooms: set[str] = set()
        self.starts: dict[str, int] = {}
        self.session.start()
        self.perform()

    # The surroundings of the session

    def perform(self) -> None:
        effects = self.session.effects
        while effects:
            match effects.pop(0):
                case Connect():
                    assert not self.is_open and not self.is_opening, "one connection at a time"
                    self.is_opening = True
                case Transmit(text):
                    assert self.is_open, "frames need a connection"
                    self.requests.append(json.loads(text))
                case Drop():
                    self.cut()
                case AskToken():
                    assert not self.is_asked, "one question at once"
                    self.is_asked = True
                case DropQuestion():
                    self.is_asked = False
                case SetTimer(timer):
                    self.timers.add(timer)
                case ClearTimer(timer):
                    self.timers.discard(timer)
                case Settle(call, outcome):
                    self.outcomes.setdefault(call, []).append(outcome)
                case OpenRoom(room):
                    assert room.key not in self.open_rooms
                    self.open_rooms.add(room.key)
                    self.events[room.key] = []
                    self.starts[room.key] = room.stream.seq
                case CloseRoom(key):
                    self.open_rooms.remove(key)
                case Deliver(stream, event) if isinstance(event, Message | Gap | Rewind):
                    assert stream == INBOX or stream in self.open_rooms
                    self.events[stream].append(event)

    def cut(self) -> None:
        self.is_open = self.is_opening = False
        self.requests.clear()
        self.server.disconnect()

    def close(self, number: int | None) -> None:
        self.cut()
        self.session.closed(number)
        self.perform()

    # Steps

    def answer_question(self, is_good: bool = True) -> None:
        """Answers a question for a token. A bad answer is an exception, or a token whose time has passed."""
        token = self.server.id()
        if is_good:
            self.server.valid_tokens.add(token)
        self.session.token_answered(token if is_good or self.rng.random() < 0.5 else OSError())
        self.perform()

    def answer_connect(self, succeeds: bool) -> None:
        self.is_opening, self.is_open = False, succeeds
        if succeeds:
            self.session.opened()
        else:
            self.session.failed()
        self.perform()

    def serve(self, refusal: str | None = None) -> None:
        if self.server.handle(self.requests.popleft(), refusal):
            self.close(1000)

    def receive(self) -> None:
        self.session.received(self.server.output.pop(0))
        self.perform()

    def elapse(self, timer: Timer) -> None:
        self.timers.remove(timer)
        self.session.elapsed(timer)
        self.perform()

    def call(self, kind: str, target: str, fields: Frame) -> None:
        id = self.session.call(kind, fields, lane=target.lower())
        self.calls[id] = (kind, target)
        if kind == "send":
            self.sends[id] = fields
        self.perform()

    def random_call(self) -> None:
        room = self.rng.choice(ROOMS)
        match self.rng.choice(("send", "send", "send", "direct", "join", "leave", "status")):
            case "send":
                self.send(room)
            case "direct":
                self.send("bob")
            case "status":
                self.call("status", "status", {"status": "away"})
            case kind if kind == "join" or self.rng.random() < 0.3:
                self.call(kind, room, {"room": room})

    def send(self, target: str) -> None:
        self.call("send", target, {"to": target, "body": len(self.calls), "key": f"k{len(self.calls)}"})

    def cancel(self) -> None:
        waiting = [id for id in self.calls if id not in self.outcomes and id not in self.cancelled]
        if waiting:
            id = self.rng.choice(waiting)
            self.cancelled.add(id)
            self.session.cancel(id)
            self.perform()

    def random_step(self) -> None:
        """One step of the client, the network, the server or the clock."""
        rng = self.rng
        match rng.choices(
            ("call", "serve", "receive", "other", "timer", "cut", "cancel", "lose", "trim", "pause", "away", "forget")
            + ("answer", "expire", "announce"),
            (8, 30, 40, 8, 6, 1.5, 1, 0.5, 0.5, 1, 0.5, 0.3, 10, 0.5, 1),
        )[0]:
            case "answer" if self.is_asked:
                self.answer_question(rng.random() < 0.8)
            case "announce" if self.server.attached:
                self.server.output.append({"type": "expiring", "expires_in_ms": 30000})
            case "expire":
                self.server.valid_tokens.clear()
                if self.is_open and self.server.attached:
                    self.close(4005)
            case "call":
                self.random_call()
            case "serve" if self.requests:
                self.serve(rng.choice((None,) * 6 + ("unavailable", "overloaded", "outcome_unknown")))
            case "receive" if self.server.output:
                self.receive()
            case "other":
                self.server.other_sends(rng.choice((*ROOMS, "ann")))
            case "timer" if timers := sorted(timer for timer in self.timers if timer[0] != "expire"):
                self.elapse(rng.choice(timers))
            case "cut" if self.is_open:
                self.close(rng.choice((None, 1011, 1012, 4000, 4002)))
            case "cancel":
                self.cancel()
            case "lose":
                self.server.lose(rng.choice(ROOMS).lower(), rng.randint(0, 3))
            case "trim" if self.server.rooms and not self.is_open:
                rng.choice(list(self.server.rooms.values())).trim(rng.randint(0, 3))
            case "pause":
                stream = rng.choice((*self.open_rooms, INBOX))
                rng.choice((self.session.pause, self.session.unpause))(stream)
                self.perform()
            case "away" if self.server.attached:
                self.server.output.append({"type": "going_away", "retry_after_ms": 10})
            case "forget" if not self.is_open:
                self.server.forget_session()
                if rng.random() < 0.5 and self.server.session:
                    self.server.session.rooms.discard(rng.choice(ROOMS).lower())
            case _ if self.is_opening:
                self.answer_connect(rng.random() < 0.8)

    def drain(self) -> None:
        """Ends all faults, and plays on until nothing is left to do."""
        for stream in (*self.open_rooms, INBOX):
            self.session.unpause(stream)
            self.perform()
        for _ in range(DRAIN_STEPS):
            waiting = [timer for timer in self.timers if timer[0] in ("connect", "retry")]
            if self.is_asked:
                self.answer_question()
            elif self.is_opening:
                self.answer_connect(True)
            elif self.server.output:
                self.receive()
            elif self.requests:
                self.serve()
            elif waiting:
                self.elapse(waiting[0])
            else:
                return
        raise AssertionError("the client does not come to rest")

    # Judgements

    def judge(self) -> None:
        assert self.session.phase == "online"
        for id, (kind, target) in self.calls.items():
            count = len(self.outcomes.get(id, []))
            assert count == 1 or (id in self.cancelled and count == 0), f"{kind} to {target}: {count} outcomes"
        self._judge_sends()
        assert self.server.session is not None
        assert {name.lower() for name in self.open_rooms} == self.server.session.rooms
        received = [event.body for event in self.events[INBOX] if not event.own]
        assert len(received) == len(set(received)), "a direct message is delivered twice"
        sent = [item["body"] for item in self.server.session.inbox.items]
        assert received[len(received) - len(sent) :] == sent, "a direct message is missing"
        for name in self.open_rooms:
            self._judge_stream(name, self.server.rooms[name.lower()].items, self.starts[name])

    def _judge_sends(self) -> None:
        bodies = [body for _target, body in self.server.stored if isinstance(body, int)]
        assert len(bodies) == len(set(bodies)), "a send is stored twice"
        for target in (*ROOMS, "bob"):
            stored = [body for to, body in self.server.stored if to == target.lower() and isinstance(body, int)]
            assert stored == sorted(stored), "the order of the calls is the order in the room"
        for call, fields in self.sends.items():
            if isinstance(self.outcomes.get(call, [None])[0], dict):
                assert (fields["to"].lower(), fields["body"]) in self.server.stored, "acknowledged, and not stored"

    def _judge_stream(self, name: str, items: list[Frame], start: int) -> None:
        seq, kept, seen = start, list[Message](), set[str]()
        for event in self.events[name]:
            if isinstance(event, Rewind):
                assert event.seq <= seq
                kept = [message for message in kept if (message.seq or 0) <= event.seq]
                seq = event.seq
            elif isinstance(event, Gap):
                assert event.from_seq == seq + 1 <= event.to_seq
                seq = event.to_seq
            else:
                assert event.seq == seq + 1, f"{name}: {seq} then {event.seq}"
                assert event.repeated == (event.id in seen), "a repeated message is marked"
                seen.add(event.id)
                seq = event.seq
                kept.append(event)
        assert seq == self.server.rooms[name.lower()].top, f"{name}: messages are missing"
        here = {message.seq: message.id for message in kept}
        assert all(here.get(item["seq"], item["msg_id"]) == item["msg_id"] for item in items)
