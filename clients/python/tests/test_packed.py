"""MessagePack: the codec against the tables of PROTOCOL.md, and clients of both formats in one room."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import msgpack
import pytest
from cluster import REPOSITORY, Cluster
from talking import bodies, take
from websockets.asyncio.server import serve

from parley_chat import Parley, ParleyError
from parley_chat.link import Link, LinkOptions
from parley_chat.packed import EVENTS, FIELDS, REPLIES, REQUESTS, MessagePack

BODIES: list[Any] = [
    "hi",
    "\N{SNOWMAN} \0",
    None,
    False,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    [],
    {},
    [1, [2, {"1": [None]}]],
    {"id": 1, "to": {"from": 2}, "": [True]},
]


def table(heading: str) -> dict[str, int]:
    """Returns the rows of the table behind a heading of the page."""
    page = (REPOSITORY / "gateway" / "PROTOCOL.md").read_text()
    _, section = page.split(heading, 1)
    rows = re.search(r"\n\| (?:type|field) \| number \|\n\|---\|---\|\n((?:\|.*\n)+)", section)
    assert rows is not None
    return {name: int(number) for name, number in re.findall(r"\| `(\w+)` \| (\d+) \|", rows[1])}


def test_numbers_are_those_of_the_protocol_page() -> None:
    assert table("**Requests**") == REQUESTS
    assert table("**Replies**") == {name: number for number, name in REPLIES.items()}
    assert table("**Events**") == {name: number for number, name in EVENTS.items()}
    assert table("### Fields") == {name: number for number, name in FIELDS.items()}


def test_requests_are_a_type_and_a_map() -> None:
    codec = MessagePack()
    assert codec.encode({"type": "ping", "id": 7}).hex(" ") == "00 0e 81 01 07"
    assert codec.encode({"type": "bye"}) == b"\0\x0f"
    since = {"#a": {"epoch": "e", "seq": 1}, "@": {"epoch": "f", "seq": 0}}
    register = codec.encode({"type": "register", "nick": "ann", "since": since})
    rooms = [{8: "#a", 12: "e", 5: 1}, {8: "@", 12: "f", 5: 0}]
    assert msgpack.unpackb(register[2:], strict_map_key=False) == {9: "ann", 16: rooms}
    join = codec.encode({"type": "join", "room": "#a", "since": since["#a"]})
    assert msgpack.unpackb(join[2:], strict_map_key=False) == {8: "#a", 16: {12: "e", 5: 1}}


def test_every_json_body_is_carried_unchanged() -> None:
    options = LinkOptions(codec=MessagePack())
    for body in BODIES:
        sent = options.encode(f'{{"type":"send","id":1,"to":"#a","body":{json.dumps(body)}}}')
        assert isinstance(sent, bytes)
        event = (513).to_bytes(2, "big") + sent[2:]
        assert options.decode(event) == {"type": "message", "id": 1, "to": "#a", "body": body}


def test_values_beyond_messagepack_reach_the_server_as_near_ones() -> None:
    codec = MessagePack()
    for body, near in ((2**64, float(2**64)), (-(10**30), -1e30), (10**400, float("inf"))):
        sent = codec.encode({"type": "send", "body": body})
        assert msgpack.unpackb(sent[2:], strict_map_key=False) == {4: near}
    # JSON has no deeper values in Python.
    assert len(codec.encode({"type": "send", "body": deep_list(980)})) > 980
    assert b"\xed\xa0\x80" in codec.encode({"type": "send", "body": "\ud800"}), "the server refuses it"


def test_replies_and_events_have_the_names_of_json() -> None:
    codec = MessagePack()

    def decoded(type: int, fields: dict[Any, Any]) -> dict[str, Any]:
        return codec.decode(type.to_bytes(2, "big") + msgpack.packb(fields))

    assert decoded(263, {1: 3, 8: "#a", 32: [{9: "ann", 31: "online"}]}) == {
        "type": "members",
        "id": 3,
        "room": "#a",
        "items": [{"nick": "ann", "status": "online"}],
        "next_cursor": None,
    }
    joined = decoded(514, {8: "#a", 37: [{9: "b", 31: "away", 15: "tea"}], 36: [{9: "c", 42: "left"}]})
    assert joined["left"] == [{"nick": "c", "reason": "left"}]
    assert decoded(269, {1: 1, 36: ["#a"]}) == {"type": "refreshed", "id": 1, "left": ["#a"]}
    assert decoded(258, {1: 1, 27: {15: "tea", 43: "ann", 6: 7}})["topic"] == {"text": "tea", "by": "ann", "time": 7}
    assert decoded(700, {1: 2, 900: 1, "x": 2}) == {"type": "700", "id": 2}, "of a later version"
    assert codec.decode(b"\1\x0e") == {"type": "pong"}


@pytest.mark.parametrize("message", [b"", b"\1", b"\1\1\x90", b"\1\1\x81", b"\1\1\xc1", b"\1\1\x80\x80", "{}"])
def test_malformed_messages_are_refused(message: str | bytes) -> None:
    with pytest.raises(ValueError):
        LinkOptions(codec=MessagePack()).decode(message)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match=r"pip install 'parley-chat\[msgpack\]'"):
        Parley("ws://127.0.0.1:9/ws", nick="ann", format="msgpack")
    assert Parley("ws://127.0.0.1:9/ws", nick="ann").nick == "ann"
    with pytest.raises(ValueError, match="not a format: 'xml'"):
        Parley("ws://127.0.0.1:9/ws", nick="ann", format="xml")  # type: ignore[arg-type]


async def test_gateway_without_the_format_is_refused() -> None:
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ParleyError) as refusal:
            async with asyncio.timeout(20), Parley(f"ws://127.0.0.1:{port}/ws", nick="ann", format="msgpack"):
                pass
        assert refusal.value.code == "unsupported_data"


async def test_request_that_cannot_be_packed_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Unwritable(MessagePack):
        def encode(self, frame: dict[str, Any]) -> bytes:
            raise RecursionError(frame)

    ended = asyncio.Event()

    class Transmitter:
        def opened(self) -> None:
            link.transmit("{}")

        def failed(self, _: ParleyError | None) -> None: ...

        def received(self, _: dict[str, Any]) -> None: ...

        def closed(self, _: int | None) -> None:
            ended.set()

    options = LinkOptions(codec=Unwritable())
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0, subprotocols=[options.subprotocol]) as server:
        port = server.sockets[0].getsockname()[1]
        link = Link(f"ws://127.0.0.1:{port}", options, Transmitter())
        await asyncio.wait_for(ended.wait(), 10)
    assert "a request cannot be written" in caplog.text


async def test_clients_of_both_formats_share_a_room(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob", format="msgpack") as bob:
        rooms = [await ann.join("#lobby"), await bob.join("#lobby")]
        heard = [aiter(room) for room in rooms]
        for room in rooms:
            for body in BODIES:
                await room.send(body)
        for messages in heard:
            taken = bodies(await take(messages, 2 * len(BODIES)))
            assert [(type(body), body) for body in taken] == [(type(body), body) for body in BODIES * 2]
        for body in (10**400, {"deep": deep_list(40)}):
            with pytest.raises(ParleyError) as refusal:
                await rooms[1].send(body)
            assert refusal.value.code == "bad_request"
        await rooms[1].send({1: (2, 3)})
        assert bodies(await take(heard[0], 1)) == [{"1": [2, 3]}]


def deep_list(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value
