"""A chat client over the binary frames of the TCP port, in Protobuf and without a package.

Usage: frames.py HOST PORT NICK ROOM

It registers, joins the room, sends each line of its input and prints each message. The end of the input ends it.
`protoc --python_out=. gateway/parley.proto` makes classes for all messages; the few of this program are read by hand.
"""

import itertools
import json
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator

HEADER = struct.Struct("!4sBIH")
MAGIC, PROTOBUF = b"\xca\xfe\xba\xbe", 3
REGISTER, JOIN, SEND, BYE = 1, 2, 4, 15
REGISTERED, JOINED, ERROR, MESSAGE, CLOSING, HEARTBEAT = 257, 258, 511, 513, 769, 770
ID, TO, FROM, BODY, ROOM, NICK, CODE, HEARTBEAT_MS, TEXT = 1, 2, 3, 4, 8, 9, 11, 22, 51
PAYLOAD_MAX, GREETING_MAX = 2 * 1024 * 1024, 4096


def varint(number: int) -> bytes:
    """Returns a number in groups of seven bits, the lowest first."""
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def read_varint(payload: bytes, at: int) -> tuple[int, int]:
    """Returns a number, and the place behind it."""
    number = 0
    for count in range(10):
        number |= (payload[at + count] & 127) << 7 * count
        if payload[at + count] < 128:
            return number, at + count + 1
    raise ValueError("a number has too many bytes")


def read_fields(payload: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields numbers and bytes by the number of their field. Raises `LookupError` or `ValueError` if it is malformed."""
    at = 0
    while at < len(payload):
        key, at = read_varint(payload, at)
        if key & 7 == 0:
            value, at = read_varint(payload, at)
            yield key >> 3, value
            continue
        length, at = {1: (8, at), 5: (4, at)}.get(key & 7) or read_varint(payload, at)
        if key & 7 not in (1, 2, 5) or length > len(payload) - at:
            raise ValueError("a field is cut off, or of an unknown kind")
        yield key >> 3, payload[at : (at := at + length)]


def show(text: str) -> None:
    """Prints a line. Text of others must not control a terminal."""
    print("".join(sign if sign.isprintable() else "?" for sign in text), flush=True)


class Client:
    """A connection, and what has arrived over it."""

    def __init__(self, host: str, port: int, nick: str, room: str) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.room, self.arrived, self.ids, self.silence_max = room, b"", itertools.count(1), 30.0
        self.is_greeted = self.is_joined = self.is_refused = self.is_leaving = False
        self.request(REGISTER, {NICK: nick.encode()})

    def transmit(self, type: int, payload: bytes = b"") -> None:
        """Sends a frame."""
        self.socket.sendall(HEADER.pack(MAGIC, PROTOBUF, len(payload), type) + payload)

    def request(self, type: int, fields: dict[int, bytes]) -> None:
        """Sends a request: an id, and these texts."""
        texts = [varint(number << 3 | 2) + varint(len(value)) + value for number, value in fields.items()]
        self.transmit(type, varint(ID << 3) + varint(next(self.ids)) + b"".join(texts))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yields the frames that have arrived as a whole: type and payload."""
        if not self.is_greeted:  # Lines of text come before the first frame.
            at = self.arrived.find(MAGIC)
            if at < 0 and len(self.arrived) > GREETING_MAX:
                raise ValueError("these are no frames of Parley")
            self.arrived, self.is_greeted = self.arrived[max(at, 0) :], at >= 0
        while self.is_greeted and len(self.arrived) >= HEADER.size:
            magic, version, length, type = HEADER.unpack_from(self.arrived)
            if magic != MAGIC or version != PROTOBUF or length > PAYLOAD_MAX:
                raise ValueError("these are no frames of Parley")
            if len(self.arrived) < HEADER.size + length:
                return
            payload, self.arrived = self.arrived[HEADER.size :][:length], self.arrived[HEADER.size + length :]
            yield type, payload

    def handle(self, type: int, payload: bytes) -> None:
        """Prints an event, and answers what needs an answer. Ignores all that is not used here."""
        fields = list(read_fields(payload) if type in (REGISTERED, JOINED, MESSAGE, ERROR, CLOSING) else ())
        texts = {number: value.decode("utf-8", "replace") for number, value in fields if isinstance(value, bytes)}
        if type == REGISTERED:
            self.silence_max = 3 * int(dict(fields)[HEARTBEAT_MS]) / 1000
            self.request(JOIN, {ROOM: self.room.encode()})
        elif type == JOINED:
            self.is_joined = True
            show(f"* you are in {texts[ROOM]}")
        elif type == MESSAGE:
            body = json.loads(texts[BODY])
            show(f"<{texts[FROM]}> {body if isinstance(body, str) else texts[BODY]}")
        elif type == ERROR:
            show(f"! {texts[CODE]}: {texts[TEXT]}")
            self.is_refused = not self.is_joined
        elif type == HEARTBEAT:
            self.transmit(HEARTBEAT)
        elif type == CLOSING:
            show(f"* closing: {texts[CODE]}")

    def run(self) -> bool:
        """Talks until the connection ends. Returns true if this client has ended it."""
        lines = b""
        while True:
            sources = [self.socket.fileno(), 0] if self.is_joined and not self.is_leaving else [self.socket.fileno()]
            ready, _, _ = select.select(sources, [], [], self.silence_max)
            if not ready:
                raise ValueError("the server is silent")
            if self.socket.fileno() in ready:
                self.arrived += (arrived := self.socket.recv(65536))
                for type, payload in self.frames():
                    self.handle(type, payload)
                if not arrived and not self.is_greeted:  # A refused connection has its cause in a line of text.
                    show("".join(line for line in self.arrived.decode("utf-8", "replace").splitlines() if line[:1] == "!"))
                if not arrived or self.is_refused:
                    return self.is_leaving
            if 0 in ready:
                typed = os.read(0, 4096)
                *whole, lines = (lines + typed).split(b"\n")
                for line in filter(None, whole if typed else [lines]):
                    body = json.dumps(line.decode("utf-8", "replace"))
                    self.request(SEND, {TO: self.room.encode(), BODY: body.encode()})
                if not typed:
                    self.is_leaving = True
                    self.transmit(BYE)


if __name__ == "__main__":
    try:
        has_ended = Client(sys.argv[1], int(sys.argv[2]), *sys.argv[3:5]).run()
        sys.exit(0 if has_ended else "! the connection is lost")
    except (OSError, LookupError, RecursionError, ValueError) as problem:
        sys.exit(f"! {problem}")
