"""The connection of a session: attempts, the registration, and the end. Pure.

`session` has the inputs. Rules of rooms and positions are in `rooms`, the order of requests is in `requests`, the
questions for tokens of the user in `user_token`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from .calls import Calls, backoff
from .effects import ChangeState, ClearTimer, Connect, Drop, Effect, Save, SetTimer, Transmit
from .errors import ParleyError
from .events import Connecting, Offline, Online, Resuming
from .replies import Replies
from .requests import encode
from .rooms import Rooms
from .deadlines import ANSWER, ANSWER_SECONDS, BYE, CONNECT, HEARTBEAT, REGISTER
from .user_token import Identity, UserToken

OWN_NICK_ATTEMPTS: Final = 10
"""Number of attempts with a nickname that a lost `register` of this client may hold."""

Phase = Literal["idle", "waiting", "connecting", "registering", "online", "closing", "ended"]


class SessionConnection:
    """The state of a session, and the life of its connection."""

    def __init__(self, identity: Identity, addresses: int, stored: dict[str, Any] | None = None) -> None:
        stored = stored or {}
        self.effects: list[Effect] = []
        self.phase: Phase = "idle"
        self.end: ParleyError | None = None
        """The reason of the end."""
        self.token: str | None = stored.get("token")
        self.calls = Calls(self.effects)
        self.rooms = Rooms(self.effects, self.calls)
        self.rooms.nick = identity.nick or ""
        self.rooms.restore(stored.get("positions", {}), has_session=self.token is not None)
        self._user_token = UserToken(self.effects, self.calls, identity)
        self._is_named = identity.nick is not None
        """False while only the token names the nickname."""
        self._replies = Replies(self.calls, self.rooms, self._user_token)
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

    def _connect(self) -> None:
        self.phase = "connecting"
        self.effects.append(ChangeState(Resuming() if self._was_online else Connecting()))
        if self._user_token.needs_new:
            self._user_token.ask()
        else:
            self._dial()

    def _dial(self) -> None:
        self.effects.append(Connect(self._address))
        self._address = (self._address + 1) % self._addresses

    def _register(self) -> None:
        self.phase = "registering"
        resume = {"resume": self.token, "since": self.rooms.since()} if self.token else {}
        user = {} if self._user_token.value is None else {"token": self._user_token.value}
        named = {"nick": self.nick} if self._is_named else {}
        frame = {"type": "register", "id": self.calls.next_id(), **named, **user, **resume}
        self.effects += [Transmit(encode(frame)), SetTimer(REGISTER, ANSWER_SECONDS)]

    def _registered(self, frame: dict[str, Any]) -> None:
        is_resumed = self.token is not None
        self.token = frame["resume"]
        self.phase, self._was_online, self._is_leaving = "online", True, False
        self._is_watched = False
        self._failures = self._own_nick_attempts = 0
        self._heartbeat = frame["heartbeat_ms"] / 1000
        self._user_token.accepted(frame)
        self.rooms.user = frame.get("user")
        self.rooms.take_nick(frame["nick"])
        self.rooms.registered([item["room"] for item in frame["rooms"]], frame["inbox"], is_resumed)
        names = tuple(self.rooms.by_name)
        self.effects += [Save(at_once=True), ClearTimer(REGISTER), SetTimer(HEARTBEAT, self._heartbeat)]
        self.effects.append(ChangeState(Online(frame["node"], is_resumed, names, user=self.rooms.user)))
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
        if self._user_token.may_help(error):
            self._back_off(error) if self._user_token.refusals > 1 else self._connect()
            return
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
        self._user_token.stop()
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
        self._user_token.stop()
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
