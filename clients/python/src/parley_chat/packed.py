"""MessagePack of binary frames: the type as two bytes, then one map with numbers as keys. Pure.

A frame is the object of a JSON text frame, so a session knows nothing of formats. Values are those of JSON: what has no
JSON is refused before it gets here.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

REQUESTS: Final = {
    name: number
    for first, names in (
        (1, "register join leave send nick status members rooms whois history read typing refresh ping bye options"),
        (32, "kick ban unban mute unmute op deop invite topic"),
    )
    for number, name in enumerate(names.split(), first)
}
REPLIES: Final = {
    **{number + 256: name for name, number in REQUESTS.items() if name != "bye"},
    **{257: "registered", 258: "joined", 259: "left", 260: "ack", 269: "refreshed", 270: "pong", 511: "error"},
}
EVENTS: Final = dict(
    enumerate(
        "message presence gap epoch rewound typing moderation left expiring announcement going_away".split(), 513
    )
)
FIELDS: Final = dict(
    enumerate(
        (
            "id to from body seq time msg_id room nick key code epoch user from_user text since resume token session"
            " rooms inbox heartbeat_ms node expires_in_ms member_count recovered topic role delivered duplicate status"
            " items next_cursor online more left joined renamed resync from_seq to_seq reason by until action seconds"
            " limit cursor before after message retry_after_ms from_api snappy close_code"
        ).split(),
        1,
    )
)
"""Names of the fields by number."""

_TYPES: Final = {**REPLIES, **EVENTS}
_NUMBERS: Final = {name: number for number, name in FIELDS.items()}
_BODY: Final = _NUMBERS["body"]
_MSG_ID: Final = _NUMBERS["msg_id"]


class MessagePack:
    """The codec. Making it needs the package `msgpack`."""

    subprotocol: Final = "parley.v1.msgpack"

    def __init__(self) -> None:
        """Loads the package. Raises `ImportError` if it is not installed."""
        try:
            import msgpack
        except ImportError as error:
            raise ImportError("the format msgpack needs a package: pip install 'parley-chat[msgpack]'") from error
        self._pack = msgpack.Packer(default=_as_float, unicode_errors="surrogatepass", autoreset=True).pack
        self._unpack = msgpack.unpackb

    def encode(self, frame: dict[str, Any]) -> bytes:
        """Returns the message of a request."""
        fields = dict(frame)
        number = REQUESTS[fields.pop("type")]
        since = fields.get("since")
        if since is not None and number == REQUESTS["register"]:
            fields["since"] = [{"room": room, **position} for room, position in since.items()]
        payload: bytes = self._pack(_numbered(fields)) if fields else b""
        return number.to_bytes(2, "big") + payload

    def decode(self, message: bytes) -> dict[str, Any]:
        """Returns the frame of a message. Fields without a name here are left out; a type without one is its number.

        Raises `ValueError` if the bytes are not the protocol.
        """
        number = int.from_bytes(message[:2], "big")
        fields = self._unpack(memoryview(message)[2:], strict_map_key=False) if len(message) > 2 else {}
        if len(message) < 2 or not isinstance(fields, dict):
            raise ValueError("a binary message is not a type and a map")
        frame = _named(fields)
        frame["type"] = _TYPES.get(number, str(number))
        if frame["type"] in ("members", "rooms") and "items" in frame:
            frame.setdefault("next_cursor", None)
        return frame


def _as_float(value: object) -> float:
    """Returns a number for an integer of more than 64 bits: the only value of JSON that MessagePack lacks."""
    if not isinstance(value, int):
        raise TypeError(f"not a value of JSON: {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return float("inf")  # The server refuses it, as it refuses the digits in JSON.


def _numbered(fields: dict[str, Any]) -> dict[int, Any]:
    return {
        _NUMBERS[name]: value if name == "body" else _inner(value, _numbered) for name, value in fields.items()
    }


def _named(fields: dict[Any, Any]) -> dict[str, Any]:
    return {
        FIELDS[number]: _uuid(value) if number == _MSG_ID else value if number == _BODY else _inner(value, _named)
        for number, value in fields.items()
        if number in FIELDS
    }


def _uuid(value: Any) -> Any:
    """Returns the text of a UUID. Another id is a text already."""
    return str(UUID(bytes=value)) if isinstance(value, bytes) and len(value) == 16 else value


def _inner(value: Any, renamed: Any) -> Any:
    """Renames the fields of the objects in a value."""
    if isinstance(value, dict):
        return renamed(value)
    return [_inner(item, renamed) for item in value] if isinstance(value, list) else value
