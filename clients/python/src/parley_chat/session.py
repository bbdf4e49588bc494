"""The session of a client as a state machine. Pure: no clock, no socket, no randomness.

Each input appends to `effects`; the surroundings perform and remove them. Every call is settled exactly once, unless it
is cancelled. Rules of rooms and positions are in `rooms`, the order of requests is in `requests`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from .calls import Calls, backoff
from .effects import ChangeState, ClearTimer, Connect, Drop, Effect, Save, SetTimer, Timer, Transmit
from .errors import CLOSE_NAMES, FINAL_CLOSES, ParleyError
from .events import Connecting, Offline, Online, Resuming
from .replies import Replies
from .requests import encode
from .rooms import Rooms

ANSWER_SECONDS: Final = 10.0
"""Time limit for a sign of life while an answer is due. After it the connection is abandoned."""
WAKE_ANSWER_SECONDS: Final = 2.0
"""The same after `wake`."""
BYE_SECONDS: Final = 5.0
"""Time limit for the server to close the connection after `bye`."""
OWN_NICK_ATTEMPTS: Final = 10
"""Number of attempts with a nickname that a lost `register` of this client may hold."""

CONNECT: Final[Timer] = ("connect", 0)
REGISTER: Final[Timer] = ("register", 0)
HEARTBEAT: Final[Timer] = ("heartbeat", 0)
ANSWER: Final[Timer] = ("answer", 0)
BYE: Final[Timer] = ("bye", 0)

Phase = Literal["idle", "waiting", "connecting", "registering", "online", "closing", "ended"]


class Session:
    """The connection, the registration, and the calls and rooms that they carry."""

    def __init__(self, nick: str, addresses: int, stored: dict[str, Any] | None = None) -> None:
        stored = stored or {}
        self.effects: list[Effect] = []
        self.phase: Phase = "idle"
        self.end: ParleyError | None = None
        """The reason of the end."""
        self.token: str | None = stored.get("token")
        self.calls = Calls(self.effects)
        self.rooms = Rooms(self.effects, self.calls)
        self.rooms.nick = nick
        self.rooms.restore(stored.get("positions", {}), has_session=self.token is not None)
        self._replies = Replies(self.calls, self.rooms)
        self._addresses = addresses
        self._address = 0
        self._failures = 0
        self._refused_addresses = 0
        self._heartbeat = 0.0
        self._is_watched = False
        """True while the time limit for a sign of life runs."""
        self._was_online = False
        self._is_leaving = False
        self._is_refused = False
        self._own_nick_attempts = 0
        """Number of attempts in which this client's own lost `register` may still hold the nickname."""

    @property
    def nick(self) -> str:
        """Nickname of the session, as the server shows it."""
        return self.rooms.nick

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
        elif number in FINAL_CLOSES:
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
            if "id" in frame or frame["type"] == "error":
                self._replies.read(frame)
            elif frame["type"] == "going_away":
                self._is_leaving = True
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
            case _:
                self.calls.elapsed(timer)
                self._proceed()

    # Inputs of the application

    def call(self, type: str, fields: dict[str, Any], lane: str = "") -> int:
        """Begins a call, and returns the number under which it is settled."""
        if type == "nick" and self._is_refused:
            self.rooms.begin_again(fields["nick"])
            self.end, self._is_refused = None, False
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
            self.phase = "closing"
            self.effects += [Transmit(encode({"type": "bye"})), SetTimer(BYE, BYE_SECONDS)]
        elif self.phase not in ("closing", "ended"):
            self._end(ParleyError("closed"))

    # The life of a connection

    def _connect(self) -> None:
        self.phase = "connecting"
        self.effects += [ChangeState(Resuming() if self._was_online else Connecting()), Connect(self._address)]
        self._address = (self._address + 1) % self._addresses

    def _register(self) -> None:
        self.phase = "registering"
        resume = {"resume": self.token, "since": self.rooms.since()} if self.token else {}
        frame = {"type": "register", "id": self.calls.next_id(), "nick": self.nick, **resume}
        self.effects += [Transmit(encode(frame)), SetTimer(REGISTER, ANSWER_SECONDS)]

    def _registered(self, frame: dict[str, Any]) -> None:
        is_resumed = self.token is not None
        self.token = frame["resume"]
        self.phase, self._was_online, self._is_leaving = "online", True, False
        self._is_watched = False
        self._failures = self._own_nick_attempts = 0
        self._heartbeat = frame["heartbeat_ms"] / 1000
        self.rooms.take_nick(frame["nick"])
        self.rooms.registered([item["room"] for item in frame["rooms"]], frame["inbox"], is_resumed)
        names = tuple(self.rooms.by_name)
        self.effects += [Save(at_once=True), ClearTimer(REGISTER), SetTimer(HEARTBEAT, self._heartbeat)]
        self.effects.append(ChangeState(Online(frame["node"], is_resumed, names)))
        self.calls.connected()
        self._proceed()

    def _register_refused(self, error: ParleyError) -> None:
        if error.code == "resume_failed" and self.token:
            self.token = None
            self.rooms.inbox = None
            self.calls.session_lost()
            self._register()
            return
        self.effects += [ClearTimer(REGISTER), Drop()]
        if error.code == "outcome_unknown" and not self.token:
            self._own_nick_attempts = OWN_NICK_ATTEMPTS
        may_be_own = error.code == "nick_in_use" and self._own_nick_attempts > 0
        if error.is_temporary or may_be_own:
            self._own_nick_attempts -= may_be_own
            self._back_off(error)
        else:
            self._is_refused = True
            self._end(error)

    def _lost(self, reason: str) -> None:
        if self.phase == "closing":
            self._end(ParleyError("closed"))
            return
        if self.phase == "registering" and not self.token:
            self._own_nick_attempts = OWN_NICK_ATTEMPTS
        self._disconnected()
        if self._is_leaving:
            self._connect()
        else:
            self._back_off(ParleyError(reason))

    def _reconnect(self) -> None:
        self.effects.append(Drop())
        self._disconnected()
        self._connect()

    def _disconnected(self) -> None:
        self.effects += [ClearTimer(timer) for timer in (REGISTER, HEARTBEAT, ANSWER)]
        self.calls.lost()
        self.rooms.disconnected()

    def _back_off(self, error: ParleyError) -> None:
        self.phase, self._is_leaving = "waiting", False
        self._failures += 1
        self.effects.append(SetTimer(CONNECT, error.retry_after or 0.0, backoff(self._failures)))
        self.effects.append(ChangeState(Offline(error.code, will_retry=True, message=error.message)))

    def _end(self, error: ParleyError) -> None:
        self._settle_all(error)
        self.phase = "ended"
        self.effects += [ClearTimer(timer) for timer in (CONNECT, REGISTER, HEARTBEAT, ANSWER, BYE)]
        self.effects += [Drop(), Save(at_once=True)]
        self.effects.append(ChangeState(Offline(error.code, will_retry=False, message=error.message)))

    def _settle_all(self, error: ParleyError) -> None:
        if self.end is None:
            self.end = error
            self.calls.end(error)
            self.rooms.end(error)

    def _proceed(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Sends the requests whose turn it is. A time limit that runs stays."""
        if self.phase != "online":
            return
        self.calls.transmit(self.rooms.fields_of)
        if not self.calls.has_in_flight:
            self.effects.append(ClearTimer(ANSWER))
        elif not self._is_watched:
            self.effects.append(SetTimer(ANSWER, answer_seconds))
        self._is_watched = self.calls.has_in_flight
