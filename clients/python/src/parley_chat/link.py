"""One WebSocket connection, from the attempt to its end."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from .errors import ParleyError
from .packed import MessagePack

OPEN_SECONDS = 10.0
"""Time limit to open a connection."""
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Maximum size of a received frame: lists have up to 1 MiB of messages, and their JSON around."""

log = logging.getLogger("parley_chat")


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """The properties of all connections of a session."""

    context: ssl.SSLContext | None = None
    """Context for `wss:` addresses; `None` for the usual one."""
    codec: MessagePack | None = None
    """`None` for JSON in text frames."""

    @property
    def subprotocol(self) -> Subprotocol:
        """Name of the format in the handshake."""
        return Subprotocol("parley.v1" if self.codec is None else self.codec.subprotocol)

    def encode(self, text: str) -> str | bytes:
        """Returns the message of a request, which is given as JSON."""
        return text if self.codec is None else self.codec.encode(json.loads(text))

    def decode(self, message: str | bytes) -> dict[str, Any]:
        """Returns the frame of a message. Raises an error if it is not of this format."""
        if self.codec is None:
            frame: dict[str, Any] = json.loads(message)
            return frame
        if isinstance(message, str):
            raise ValueError("a text message from a gateway that speaks MessagePack")
        return self.codec.decode(message)


class LinkListener(Protocol):
    """Receives the inputs of a connection. Either `failed` or `opened` comes first, `closed` last."""

    def opened(self) -> None:
        """The connection is open."""

    def failed(self, error: ParleyError | None) -> None:
        """The connection could not be opened, with the refusal of the server if there was one."""

    def received(self, frame: dict[str, Any]) -> None:
        """A frame has arrived."""

    def closed(self, number: int | None) -> None:
        """The connection has ended."""


class Link:
    """A connection that is being opened, or is open."""

    def __init__(self, url: str, options: LinkOptions, listener: LinkListener) -> None:
        self._options = options
        self._listener: LinkListener | None = listener
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._socket: ClientConnection | None = None
        self._task = asyncio.create_task(self._run(url), name="parley connection")

    def transmit(self, text: str) -> None:
        """Queues a request."""
        self._outgoing.put_nowait(text)

    def abort(self) -> None:
        """Abandons the connection without a close frame, which would end the session. Nothing is received any more."""
        self._listener = None
        if self._socket is not None:
            self._socket.transport.abort()
        self._task.cancel()

    async def ended(self) -> None:
        """Waits until nothing of the connection runs any more."""
        await asyncio.wait([self._task])

    async def _run(self, url: str) -> None:
        options, context = self._options, self._options.context if url.startswith("wss:") else None
        secure: dict[str, Any] = {} if context is None else {"ssl": context}
        try:
            socket = self._socket = await connect(
                url,
                subprotocols=[options.subprotocol],
                compression=None,
                open_timeout=OPEN_SECONDS,
                ping_interval=None,
                max_size=FRAME_BYTES_MAX,
                **secure,
            )
            if socket.subprotocol != options.subprotocol and options.codec is not None:
                socket.transport.abort()
                raise UnknownFormat(f"the gateway does not know {options.subprotocol}")
        except Exception as error:
            log.info("connection to %s failed: %s", url, error)
            if self._listener is not None:
                self._listener.failed(_refusal(error))
            return
        writing = asyncio.create_task(self._write(socket), name="parley writer")
        number = None
        try:
            if self._listener is not None:
                self._listener.opened()
            while self._listener is not None:
                self._listener.received(options.decode(await socket.recv()))
        except ConnectionClosed as end:
            number = end.rcvd.code if end.rcvd else None
        except Exception:
            log.exception("connection to %s abandoned: its bytes are not the protocol", url)
        finally:
            writing.cancel()
            socket.transport.abort()
        if self._listener is not None:
            self._listener.closed(number)

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                await socket.send(self._options.encode(await self._outgoing.get()))
        except ConnectionClosed:
            pass  # The reader reports it.
        except Exception:
            log.exception("connection abandoned: a request cannot be written")
            socket.transport.abort()


class UnknownFormat(Exception):
    """A gateway does not speak the format of this client."""


def _refusal(error: Exception) -> ParleyError | None:
    """Reads a problem document (RFC 9457)."""
    if isinstance(error, UnknownFormat):
        return ParleyError("unsupported_data", str(error))
    if not isinstance(error, InvalidStatus):
        return None
    response = error.response
    try:
        retry_after = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after = None
    try:
        document = json.loads(response.body or b"")
        return ParleyError(str(document["code"]), str(document.get("detail", "")), retry_after)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None if retry_after is None else ParleyError("connection_lost", "", retry_after)
