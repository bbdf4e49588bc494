"""A session whose inputs a test plays one by one."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from parley_chat.effects import AskToken, ChangeState, Connect, Drop, SetTimer, Settle, Timer, Transmit
from parley_chat.errors import ParleyError
from parley_chat.session import Session
from parley_chat.user_token import Identity

E = TypeVar("E")
Frame = dict[str, Any]
INBOX = {"epoch": "i", "seq": 0}


class Played:
    """Collects effects until a test takes them."""

    def __init__(
        self, addresses: int = 1, stored: Frame | None = None, identity: Identity = Identity("ann")
    ) -> None:
        self.session = Session(identity, addresses, stored)
        self.session.start()

    def take(self, kind: type[E]) -> list[E]:
        """Takes the effects of a kind, in order."""
        effects = self.session.effects
        taken: list[E] = [effect for effect in effects if isinstance(effect, kind)]
        effects[:] = [effect for effect in effects if not isinstance(effect, kind)]
        return taken

    def forget(self) -> None:
        """Forgets the effects so far."""
        self.session.effects.clear()

    def sent(self) -> list[Frame]:
        """Returns the new frames to the server."""
        return [json.loads(effect.text) for effect in self.take(Transmit)]

    def settled(self) -> list[Settle]:
        return self.take(Settle)

    def timers(self) -> dict[Timer, tuple[float, float]]:
        """Returns the new timers: delay and jitter."""
        return {effect.timer: (effect.delay, effect.jitter) for effect in self.take(SetTimer)}

    def state(self) -> object:
        """Returns the newest state."""
        return self.take(ChangeState)[-1].state

    def addresses(self) -> list[int]:
        return [effect.address for effect in self.take(Connect)]

    def questions(self) -> int:
        """Returns the number of new questions for a token."""
        return len(self.take(AskToken))

    def is_dropped(self) -> bool:
        return bool(self.take(Drop))

    def receive(self, type: str, **fields: Any) -> None:
        self.session.received({"type": type, **fields})

    def refuse(self, id: int, code: str, **fields: Any) -> None:
        self.receive("error", id=id, code=code, message="", **fields)

    def register(self, token: str = "t1", rooms: tuple[str, ...] = (), nick: str = "ann") -> None:
        """Opens the connection and registers."""
        self.session.opened()
        listed = [{"room": room, "epoch": "e", "seq": 9} for room in rooms]
        fields = {"nick": nick, "resume": token, "rooms": listed, "inbox": INBOX}
        self.receive("registered", id=0, **fields, heartbeat_ms=30000, node="g1")

    def reconnect(self, **registered: Any) -> list[Frame]:
        """Loses the connection and registers again. Returns the frames that were sent."""
        self.session.closed(None)
        self.session.elapsed(("connect", 0))
        self.forget()
        self.register(**registered)
        return self.sent()

    def join(self, room: str = "#tea", seq: int = 0) -> None:
        """Joins a room and loads its members."""
        call = self.session.call("join", {"room": room}, lane=room)
        self.receive("joined", id=call, room=room, epoch="e", seq=seq, recovered=False)
        members = self.sent()[-1]
        items = [{"nick": "ann", "status": "online"}]
        self.receive("members", id=members["id"], room=room, items=items, next_cursor=None)
        self.forget()

    def send(self, to: str = "#tea", body: Any = "hi", key: str = "k") -> int:
        return self.session.call("send", {"to": to, "body": body, "key": key}, lane=to)

    def message(self, seq: int, room: str = "#tea", sender: str = "bob", msg_id: str | None = None) -> None:
        fields = {"to": room, "from": sender, "msg_id": msg_id or f"m{seq}", "seq": seq, "time": 1, "body": seq}
        self.receive("message", **fields)


def codes(played: Played) -> list[tuple[int, str]]:
    """Returns the calls that were settled with an error."""
    errors = [(settle.call, settle.outcome) for settle in played.settled()]
    return [(call, outcome.code) for call, outcome in errors if isinstance(outcome, ParleyError)]
