"""Performs the effects of a session: sockets, timers, storage, and the futures of calls."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable
from typing import Any

from .effects import (
    Announce,
    AskToken,
    ChangeNick,
    ChangeState,
    ClearTimer,
    CloseRoom,
    Connect,
    Deliver,
    DeliverTyping,
    Drop,
    DropQuestion,
    Effect,
    OpenRoom,
    Save,
    SetTimer,
    Settle,
    Timer,
    Transmit,
)
from .errors import ParleyError
from .events import Connecting, Offline, Online, State
from .link import Link, LinkOptions
from .listener import EngineListener
from .question import Question
from .session import Session
from .storage import Storage, well_formed
from .deadlines import BYE, CONNECT
from .user_token import Identity

SAVE_SECONDS = 0.2
"""Maximum time until changed positions are stored."""

log = logging.getLogger("parley_chat")


class Engine:
    """Surroundings of a session: it feeds inputs, and performs effects in order."""

    def __init__(
        self,
        urls: list[str],
        identity: Identity,
        storage: Storage | None,
        options: LinkOptions,
        listener: EngineListener,
    ) -> None:
        self._urls = urls
        self._get_token = identity.get_token
        self._question: Question | None = None
        self._storage = storage
        self._options = options
        self._listener = listener
        stored = self._load()
        self.read_positions: dict[str, int] = dict(stored.get("read", {}))
        """Positions of `read` by stream, stored with the session."""
        self.session = Session(identity, len(urls), stored)
        self.state: State = Connecting()
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        self._link: Link | None = None
        self._futures: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._retry_in = 0.0
        self._saving: asyncio.TimerHandle | None = None
        self._is_performing = False

    # Inputs

    def start(self) -> None:
        """Opens the first connection."""
        self.session.start()
        self._perform_all()

    async def call(
        self,
        type: str,
        fields: dict[str, Any],
        *,
        lane: str = "",
        undo: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Begins a request and waits for its reply.

        Cancelling ends the call. If its reply arrived in the same moment, `undo` receives it.

        Raises `ParleyError` if the server refuses, or the session ends.
        """
        id = self.session.call(type, fields, lane)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._futures[id] = future
        self._perform_all()
        try:
            return await future
        except asyncio.CancelledError:
            if self._futures.pop(id, None) is not None:
                self.session.cancel(id)
                self._perform_all()
            elif undo is not None and not future.cancelled() and future.exception() is None:
                undo(future.result())
            raise

    def notify(self, type: str, fields: dict[str, Any]) -> None:
        """Sends a request without an outcome, unless the connection is lost."""
        self.session.notify(type, fields)
        self._perform_all()

    def unclaim(self, room: str) -> None:
        """Undoes an answered `join`."""
        self.session.unclaim(room)
        self._perform_all()

    def pause(self, stream: str) -> None:
        """Stops deliveries of a stream."""
        self.session.pause(stream)

    def unpause(self, stream: str) -> None:
        """Continues deliveries of a stream."""
        self.session.unpause(stream)
        self._perform_all()

    def save_soon(self) -> None:
        """Stores the positions within `SAVE_SECONDS`."""
        if self._storage is not None and self._saving is None and not self._loop.is_closed():
            self._saving = self._loop.call_later(SAVE_SECONDS, self.save)

    def wake(self) -> None:
        """Ends the wait for the next attempt. A connection is checked."""
        self.session.wake()
        self._perform_all()

    async def close(self) -> None:
        """Ends the session, and waits until nothing of it runs any more."""
        self._listener.closing()
        self.session.close()
        link, question = self._link, self._question
        try:
            self._perform_all()
            await self.ended.wait()
        finally:
            if not self.ended.is_set():
                self.session.elapsed(BYE)
                self._perform_all()
            self.save()
            for running in (link, question):
                if running is not None:
                    await running.ended()

    def token_answered(self, answer: object) -> None:
        """Takes what the function of the application has returned or raised."""
        self.session.token_answered(answer)
        self._perform_all()

    # Inputs of the link

    def opened(self) -> None:
        self.session.opened()
        self._perform_all()

    def failed(self, error: ParleyError | None) -> None:
        self.session.failed(error)
        self._perform_all()

    def received(self, frame: dict[str, Any]) -> None:
        self.session.received(frame)
        self._perform_all()

    def closed(self, number: int | None) -> None:
        self._link = None
        self.session.closed(number)
        self._perform_all()

    def _elapsed(self, timer: Timer) -> None:
        del self._timers[timer]
        self.session.elapsed(timer)
        self._perform_all()

    # Effects

    def _perform_all(self) -> None:
        if self._is_performing:
            return
        self._is_performing = True
        effects = self.session.effects
        try:
            while effects:
                self._perform(effects.pop(0))
        finally:
            self._is_performing = False

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Transmit(text) if self._link is not None:
                self._link.transmit(text)
            case Deliver(stream, event):
                self._listener.delivered(stream, event)
            case Settle(call, outcome):
                self._settle(call, outcome)
            case SetTimer(timer, delay, jitter):
                self._set_timer(timer, delay + random.uniform(0, jitter))
            case ClearTimer(timer):
                self._clear_timer(timer)
            case Connect(address):
                self._link = Link(self._urls[address], self._options, self)
            case Drop() if self._link is not None:
                self._link.abort()
                self._link = None
            case AskToken() if self._get_token is not None:
                self._question = Question(self._get_token, self.token_answered)
            case DropQuestion() if self._question is not None:
                self._question.drop()
            case OpenRoom(room):
                self._listener.room_opened(room)
            case CloseRoom(room_key):
                self._listener.room_closed(room_key)
            case DeliverTyping(sender):
                self._listener.typing(sender)
            case Announce(announcement):
                self._listener.announced(announcement)
            case ChangeNick(nick):
                self._listener.nick_changed(nick)
            case ChangeState(state):
                self._change_state(state)
            case Save(at_once=True):
                self.save()
            case Save():
                self.save_soon()

    def _settle(self, call: int, outcome: dict[str, Any] | ParleyError) -> None:
        future = self._futures.pop(call, None)
        if future is None or future.done():
            return
        if isinstance(outcome, ParleyError):
            # Each call gets an exception of its own: a shared one would collect tracebacks.
            future.set_exception(ParleyError(outcome.code, outcome.message, outcome.retry_after))
        else:
            future.set_result(outcome)

    def _set_timer(self, timer: Timer, delay: float) -> None:
        self._clear_timer(timer)
        self._timers[timer] = self._loop.call_later(delay, self._elapsed, timer)
        if timer == CONNECT:
            self._retry_in = delay

    def _clear_timer(self, timer: Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _change_state(self, state: State) -> None:
        if isinstance(state, Online):
            state = dataclasses.replace(state, took=self._loop.time() - self._lost_at)
        elif isinstance(self.state, Online):
            self._lost_at = self._loop.time()
        if isinstance(state, Offline) and state.will_retry:
            state = dataclasses.replace(state, retry_in=self._retry_in)
        self.state = state
        if isinstance(state, Offline) and not state.will_retry:
            self.ended.set()
        elif self.ended.is_set():
            self.ended.clear()
        self._listener.state_changed(state)

    # Storage

    def _load(self) -> dict[str, Any]:
        try:
            return well_formed(self._storage.load() if self._storage is not None else None)
        except Exception:
            log.exception("stored session not loaded, starting a new one")
            return {}

    def save(self) -> None:
        """Stores the token and the positions."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if self._storage is None or self.session.token is None:
            return
        positions = self.session.rooms.snapshot(self._listener.handled)
        try:
            self._storage.save({"token": self.session.token, "positions": positions, "read": self.read_positions})
        except Exception:
            log.exception("session not stored, continuing in memory")
            self._storage = None
