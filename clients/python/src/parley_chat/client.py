"""The client: one session under one nickname."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from .conversation import HISTORY_MAX, Direct, Room
from .engine import Engine
from .errors import ParleyError
from .events import Connecting, ListedRoom, Message, RoomsPage, State, User
from .feed import FeedIterator
from .link import LinkOptions
from .names import fold
from .packed import MessagePack
from .router import EventName, Router
from .storage import Storage
from .user_token import GetToken, Identity


class Parley:
    """A session, kept alive over lost connections. Use it with `async with`: entering waits until it is registered.

    It belongs to the event loop that enters it. Leaving the block ends the session.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        nick: str | None = None,
        token: str | None = None,
        get_token: GetToken | None = None,
        storage: Storage | None = None,
        ssl: ssl.SSLContext | None = None,
        format: Literal["json", "msgpack"] = "json",
    ) -> None:
        """Describes a session.

        `urls`: addresses of gateways (`ws:` or `wss:`); each failure moves on to the next. `storage` keeps the resume
        token and the positions, so that the session continues in the next run. `ssl`: context for `wss:`.

        `token`: the first token of the user. `get_token`: called for the first one if there is none, before a token
        expires, and after the server has refused one; never twice at once. It returns `None` for a guest. An exception,
        or no answer within 10 seconds, is a failed attempt. `nick` may be left out if the token names it. A token is
        never stored.

        `format`: of the messages on the wire; nothing else depends on it. `msgpack` needs the extra of that name.

        Raises `ValueError` if an address is not valid, or if there is neither a nickname nor a token.
        Raises `ImportError` if the package of the format is not installed.
        """
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        for url in self._urls:
            if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
                raise ValueError(f"not a ws: or wss: address: {url!r}")
        if not self._urls:
            raise ValueError("no address")
        if nick is None and token is None and get_token is None:
            raise ValueError("a nickname is needed, unless a token names it")
        self._identity = Identity(nick, token, get_token)
        self._storage = storage
        if format not in ("json", "msgpack"):
            raise ValueError(f"not a format: {format!r}")
        self._options = LinkOptions(ssl, MessagePack() if format == "msgpack" else None)
        self._router = Router()
        self._entered: Engine | None = None

    async def __aenter__(self) -> Self:
        """Connects and registers. Temporary failures are retried without a time limit: use `asyncio.timeout`.

        Raises `ParleyError` if the registration is refused.
        """
        if self._entered is not None:
            raise RuntimeError("a session is entered only once")
        engine = self._entered = Engine(self._urls, self._identity, self._storage, self._options, self._router)
        self._router.engine = engine
        engine.start()
        try:
            async for state in self.states():
                if state.name == "online":
                    return self
                if state.name == "offline" and not state.will_retry:
                    raise ParleyError(state.reason, state.message)
            raise ParleyError("closed")
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _engine(self) -> Engine:
        if self._entered is None:
            raise RuntimeError("the session is not entered: use `async with`")
        return self._entered

    # State

    @property
    def state(self) -> State:
        """State of the connection."""
        return Connecting() if self._entered is None else self._entered.state

    @property
    def nick(self) -> str:
        """Nickname of this session, as the server shows it. Empty until a token has named it."""
        return self._identity.nick or "" if self._entered is None else self._entered.session.nick

    @property
    def joined(self) -> Mapping[str, Room]:
        """Joined rooms by name."""
        return MappingProxyType({room.name: room for room in self._router.rooms.values()})

    def states(self) -> FeedIterator[State]:
        """Returns an iterator over the present and all later states. It ends after the final one."""
        return FeedIterator(self._router.new_state_feed(self.state))

    def on(self, event: EventName, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Subscribes to an event, and returns the function that ends the subscription.

        `"state"`: a `State`. `"nick"`: the new nickname of this session. `"joined"`: the `Room` that any task has
        joined; its members may still be loading. `"gap"`: a `Gap` of the direct messages. `"announcement"`: an
        `Announcement` of the application. The event loop calls the listener; an exception is logged.
        """
        return self._router.on(event, listener)

    # Conversations

    async def join(self, room: str, *, history: int = 0) -> Room:
        """Joins a room and loads its members.

        The room keeps the events that arrive until it is iterated. `history`: number of older messages to load into
        `recent`, at most 200. A room of an earlier run continues after the last message that was handled in it.
        Cancelling leaves the room again.

        Raises `ParleyError`.
        """
        if not 0 <= history <= HISTORY_MAX:
            raise ValueError(f"history must be from 0 to {HISTORY_MAX}")
        engine = self._engine
        outcome = await engine.call(
            "join", {"room": room}, lane=fold(room), undo=lambda outcome: engine.unclaim(outcome["room"])
        )
        joined = self._router.rooms[outcome["room"]]
        if history and not joined.recent:
            try:
                await joined._load_recent(history)
            except BaseException:
                engine.unclaim(outcome["room"])
                raise
        return joined

    def direct(self, nick: str) -> Direct:
        """Returns the conversation with a nickname; the same object for the same name."""
        return self._router.direct(self._engine, nick)

    def directs(self) -> FeedIterator[Message]:
        """Returns an iterator over the direct messages of all senders, until the session ends.

        It alone has those of the application (`Message.from_api`).
        """
        return FeedIterator(self._router.inbox)

    # Requests

    async def whois(self, nick: str) -> User:
        """Returns the presence of a user. Raises `ParleyError`: `no_such_user`."""
        frame = await self._engine.call("whois", {"nick": nick})
        return User(frame["nick"], frame["online"], frame.get("status"), frame.get("text", ""))

    async def rooms(self, *, limit: int = 100, cursor: str | None = None) -> RoomsPage:
        """Returns a page of the rooms that have members. `limit`: at most 1,000. Raises `ParleyError`."""
        fields = {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}
        frame = await self._engine.call("rooms", fields)
        items = tuple(ListedRoom(item["room"], item["member_count"]) for item in frame["items"])
        return RoomsPage(items, frame["next_cursor"])

    async def status(self, status: Literal["online", "away"], text: str = "") -> None:
        """Sets the status of this session. Raises `ParleyError`."""
        fields = {"status": status, "text": text} if text else {"status": status}
        await self._engine.call("status", fields, lane="status")

    async def rename(self, nick: str) -> None:
        """Takes another nickname. After a refused registration the session begins again under it.

        A name that is held for another session is refused with `retry_after`. Cancelling ends only the waiting.

        Raises `ParleyError`.
        """
        await self._engine.call("nick", {"nick": nick}, lane="nick")

    async def ping(self) -> float:
        """Measures the time to the server and back, in seconds. Raises `ParleyError` if the session ends."""
        begin = asyncio.get_running_loop().time()
        await self._engine.call("ping", {})
        return asyncio.get_running_loop().time() - begin

    def retry(self) -> None:
        """Ends the wait for the next attempt at once. While the session is online it checks the connection.

        Call it when the network is back. Before `async with` it does nothing.
        """
        if self._entered is not None:
            self._entered.wake()

    async def close(self) -> None:
        """Ends the session: others see it leave at once. Pending calls are rejected with `closed`."""
        if self._entered is not None:
            await self._entered.close()
