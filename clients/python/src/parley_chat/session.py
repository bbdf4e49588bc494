"""The session of a client as a state machine. Pure: no clock, no socket, no randomness.

Each input appends to `effects`; the surroundings perform and remove them. Every call is settled exactly once, unless it
is cancelled. `connection` has the life of the connection.
"""

from __future__ import annotations

from typing import Any, Final

from .connection import SessionConnection
from .effects import Announce, ClearTimer, Drop, SetTimer, Timer, Transmit
from .errors import CLOSE_NAMES, FINAL_CLOSES, ParleyError
from .events import Announcement
from .requests import encode
from .deadlines import BYE, BYE_SECONDS, CONNECT, HEARTBEAT, WAKE_ANSWER_SECONDS

TOKEN_EXPIRED: Final = 4005
"""Close number of a connection whose token has expired."""


class Session(SessionConnection):
    """The inputs of the connection and of the application."""

    # Inputs of the connection

    def start(self) -> None:
        """Opens the first connection."""
        self._connect()

    def opened(self) -> None:
        """The connection is open."""
        self._refused_addresses = 0
        self._register()

    def failed(self, error: ParleyError | None = None) -> None:
        """The connection could not be opened, with the refusal of the server if there was one."""
        is_permanent = error is not None and not error.is_temporary
        self._refused_addresses = self._refused_addresses + 1 if is_permanent else 0
        if error is not None and self._refused_addresses >= self._addresses:
            self._end(error)
        else:
            # A refusal says nothing about the other addresses.
            self._back_off(error if error is not None and self._addresses == 1 else ParleyError("connection_lost"))

    def closed(self, number: int | None) -> None:
        """The connection has ended, with the number of a close frame if there was one."""
        if self.phase == "closing":
            self._end(ParleyError("closed"))
        elif number in FINAL_CLOSES or (number == TOKEN_EXPIRED and not self._user_token.expired()):
            self._end(ParleyError(CLOSE_NAMES[number]))
        else:
            self._lost(CLOSE_NAMES.get(number or 0, "connection_lost"))

    def received(self, frame: dict[str, Any]) -> None:
        """A frame has arrived."""
        if self.phase == "registering":
            if frame["type"] == "registered":
                self._registered(frame)
            elif frame["type"] == "error":
                self._register_refused(ParleyError.of_frame(frame))
        elif self.phase == "online":
            self.effects.append(SetTimer(HEARTBEAT, self._heartbeat))
            self._is_watched = False
            if frame["type"] == "announcement":
                self.effects.append(Announce(Announcement(frame["msg_id"], frame["body"], frame["time"])))
            elif "id" in frame or frame["type"] == "error":
                self._replies.read(frame)
            elif frame["type"] == "going_away":
                self._is_leaving = True
            elif frame["type"] == "expiring":
                self._user_token.expiring(frame)
            else:
                self.rooms.event(frame)
            self._proceed()

    def elapsed(self, timer: Timer) -> None:
        """A timer has elapsed."""
        match timer[0]:
            case "connect":
                self._connect()
            case "heartbeat":
                self.calls.notify("ping", {})
                self._proceed()
            case "register" | "answer":
                self.effects.append(Drop())
                self._lost("connection_lost")
            case "bye":
                self._end(ParleyError("closed"))
            case "token":
                self.token_answered(TimeoutError())
            case "renew":
                self._user_token.renew()
                self._proceed()
            case _:
                self.calls.elapsed(timer)
                self._proceed()

    # Inputs of the application

    def token_answered(self, answer: object) -> None:
        """The application has answered a question: a token, `None` for a guest, or an exception."""
        if not self._user_token.is_asked:
            return
        error = self._user_token.answered(answer)
        if self.phase != "online":
            self._dial() if error is None else self._back_off(error)
        elif error is not None:
            self._user_token.renew_later(error)
        else:
            self._user_token.renew()
            self._proceed()

    def call(self, type: str, fields: dict[str, Any], lane: str = "") -> int:
        """Begins a call, and returns the number under which it is settled."""
        if type == "nick" and self._is_refused:
            self.rooms.begin_again(fields["nick"])
            self.end, self._is_refused, self._is_named = None, False, True
            self._user_token.refusals = 0
            self._connect()
        request = self.calls.call(type, fields, lane)
        if self.end is not None and request.progress != "done":
            self.calls.settle(request, self.end)
        self._proceed()
        return request.id

    def notify(self, type: str, fields: dict[str, Any]) -> None:
        """Sends a request without an outcome, unless the connection is lost."""
        if self.phase == "online":
            self.calls.notify(type, fields)
            self._proceed()

    def cancel(self, id: int) -> None:
        """Ends a call without an outcome."""
        self.rooms.cancel(id)
        self._proceed()

    def unclaim(self, room: str) -> None:
        """Undoes an answered `join`: the room is left unless another call has joined it."""
        self.rooms.unclaim(room)
        self._proceed()

    def pause(self, stream: str) -> None:
        """Stops deliveries of a room or of the inbox. The position does not move."""
        if (paused := self.rooms.stream(stream)) is not None:
            paused.is_paused = True

    def unpause(self, stream: str) -> None:
        """Delivers everything after the position. For this a live stream needs another connection."""
        resumed, room = self.rooms.stream(stream), self.rooms.by_key(stream)
        if resumed is None or not resumed.is_paused:
            return
        resumed.is_paused = False
        if self.phase == "online" and room is not None and not room.is_live:
            self.rooms.join_again(room)
            self._proceed()
        elif self.phase == "online":
            self._reconnect()

    def wake(self) -> None:
        """Ends the wait for the next attempt. A connection is checked."""
        if self.phase == "waiting":
            self.effects.append(ClearTimer(CONNECT))
            self._connect()
        elif self.phase == "online":
            self.calls.notify("ping", {})
            self._proceed(WAKE_ANSWER_SECONDS)

    def close(self) -> None:
        """Ends the session. Calls are settled with `closed` at once."""
        self._is_refused = False
        if self.phase in ("registering", "online"):
            self._settle_all(ParleyError("closed"))
            self._user_token.stop()
            self.phase = "closing"
            self.effects += [Transmit(encode({"type": "bye"})), SetTimer(BYE, BYE_SECONDS)]
        elif self.phase not in ("closing", "ended"):
            self._end(ParleyError("closed"))
