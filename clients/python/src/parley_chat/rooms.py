"""Joined rooms and the inbox: positions, members, and the events that the application receives. Pure.

`Rooms` reads events and the replies of `join`, `members` and `leave`. It opens no connection and repeats no request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .calls import Calls
from .effects import INBOX, ChangeNick, CloseRoom, Deliver, DeliverTyping, Effect, OpenRoom, Save, Settle
from .errors import ParleyError
from .events import MembersChanged, Typing
from .joined_room import JoinedRoom
from .names import fold
from .requests import Request
from .stream import Stream, message_of

MEMBERS_PAGE = 1000
"""Number of members to request at once."""
REMEMBERED_ACKS = 1000
"""Number of acknowledged messages that are recognised as own ones after a rename."""


class Rooms:
    """Rooms by name, and the inbox."""

    def __init__(self, effects: list[Effect], calls: Calls) -> None:
        self._effects = effects
        self._calls = calls
        self.by_name: dict[str, JoinedRoom] = {}
        self.inbox: Stream | None = None
        self.stored: dict[str, dict[str, Any]] = {}
        """Positions of an earlier process, by the folded name of the room."""
        self.nick = ""
        self.user: str | None = None
        self._acked: deque[str] = deque(maxlen=REMEMBERED_ACKS)
        self._early: list[dict[str, Any]] = []
        """Events of rooms whose `join` has no reply yet."""

    def find(self, name: str) -> JoinedRoom | None:
        """Returns a joined room by its name, in any case."""
        folded = fold(name)
        return next((room for room in self.by_name.values() if fold(room.name) == folded), None)

    def is_own(self, frame: dict[str, Any]) -> bool:
        """Returns true if this session has sent the message. After a rename the former nickname is not its own."""
        # The name on a message of the application is no user.
        return not frame.get("from_api") and (frame["from"] == self.nick or frame["msg_id"] in self._acked)

    def take_nick(self, nick: str) -> None:
        """Changes the nickname of this session."""
        if nick != self.nick:
            self.nick = nick
            self._effects.append(ChangeNick(nick))

    def acked(self, frame: dict[str, Any], body: Any) -> None:
        """Remembers a message of this session. A direct one is delivered to its own conversation."""
        self._acked.append(frame["msg_id"])
        if not frame["to"].startswith("#"):
            sent = {**frame, "from": self.nick, "from_user": self.user, "body": body}
            self._effects.append(Deliver(INBOX, message_of(sent, own=True)))

    # Positions

    def since(self) -> dict[str, Any]:
        """Returns the positions to resume from. Paused rooms are left out, so the server delivers nothing of them."""
        for room in self.by_name.values():
            room.is_live = not room.stream.is_paused
        since = {room.name: room.stream.position() for room in self.by_name.values() if room.is_live}
        return since if self.inbox is None else {**since, INBOX: self.inbox.position()}

    def restore(self, positions: dict[str, dict[str, Any]], has_session: bool) -> None:
        """Takes over the positions of an earlier process. Its inbox belongs to its session."""
        self.stored = {fold(name): position for name, position in positions.items() if name != INBOX}
        self.inbox = Stream.at(positions[INBOX]) if has_session and INBOX in positions else None

    def snapshot(self, handled: Callable[[str, int], int]) -> dict[str, dict[str, Any]]:
        """Returns the positions to store. `handled` lowers the seq of a stream to the last handled message."""
        positions = {name: dict(position) for name, position in self.stored.items()}
        streams = {room.name: (room.key, room.stream) for room in self.by_name.values()}
        if self.inbox is not None:
            streams[INBOX] = (INBOX, self.inbox)
        for name, (key, stream) in streams.items():
            positions[name] = {"epoch": stream.epoch, "seq": handled(key, stream.seq)}
        return positions

    def stream(self, key: str) -> Stream | None:
        """Returns the stream of a room or of the inbox."""
        room = self.by_key(key)
        return self.inbox if key == INBOX else room.stream if room is not None else None

    def by_key(self, key: str) -> JoinedRoom | None:
        """Returns the room that was opened under this name."""
        if (room := self.by_name.get(key)) is not None and room.key == key:
            return room
        return next((room for room in self.by_name.values() if room.key == key), None)

    # Connections

    def fields_of(self, request: Request) -> dict[str, Any]:
        """Returns the fields of a request: a `join` contains the position to continue after."""
        if request.type != "join":
            return request.fields
        room: JoinedRoom | None = request.context or self.find(request.fields["room"])
        if room is not None:
            return {"room": room.name, "since": room.stream.position()}
        stored = self.stored.get(fold(request.fields["room"]))
        return {**request.fields, "since": stored} if stored else request.fields

    def registered(self, names: Iterable[str], inbox: dict[str, Any], is_resumed: bool) -> None:
        """Continues in the rooms of the session, and joins the others again.

        A resumed inbox without a stored position delivers what was not read before.
        """
        if self.inbox is None:
            self.inbox = Stream.at({**inbox, "seq": 0} if is_resumed else inbox)
        listed = set(names)
        for room in list(self.by_name.values()):
            room.is_live = room.is_live and room.name in listed
            if room.is_live or (room.name in listed and room.stream.is_paused):
                self._load_members(room)
            else:
                self.join_again(room)

    def disconnected(self) -> None:
        """Nothing arrives any more."""
        self._early.clear()
        for room in self.by_name.values():
            room.is_live = False

    def join_again(self, room: JoinedRoom) -> None:
        """Joins a room from its position, before anything else is sent to it."""
        if self._calls.is_leaving(fold(room.key)):
            return
        self._calls.request("join", {"room": room.name}, lane=fold(room.key), first=True, context=room)

    def cancel(self, id: int) -> None:
        """Ends a call without an outcome. A cancelled `join` leaves the room that no other call has joined."""
        room = next((room for room in self.by_name.values() if id in room.callers), None)
        if room is not None:
            room.callers.remove(id)
            self._leave_unclaimed(room.name, was_joined=True)
        elif (request := self._calls.cancel(id)) is not None and request.type == "join":
            self._leave_unclaimed(request.fields["room"], request.was_sent)

    def unclaim(self, key: str) -> None:
        """Undoes an answered call of `join`."""
        if (room := self.by_key(key)) is not None:
            room.claims -= 1
            self._leave_unclaimed(room.name, was_joined=True)

    def _leave_unclaimed(self, name: str, was_joined: bool) -> None:
        room = self.find(name)
        if was_joined if room is None else not room.claims and not room.callers:
            lane = fold(name if room is None else room.key)
            joining = self._calls.joining(lane)
            for request in joining:
                request.is_uncertain = True  # If it is cancelled too, it leaves the room.
            if not joining:
                self._calls.request("leave", {"room": name}, lane=lane, first=True)

    def end(self, error: ParleyError) -> None:
        """Ends all rooms. Their positions are kept."""
        for room in list(self.by_name.values()):
            self.close(room, error)
            self.by_name[room.name] = room

    def begin_again(self, nick: str) -> None:
        """Begins another life of the session after its end."""
        self.stored |= {fold(room.name): room.stream.position() for room in self.by_name.values()}
        self.by_name.clear()
        self.nick = nick

    # Replies

    def joined(self, request: Request, frame: dict[str, Any]) -> None:
        """Enters the room of a `joined` reply."""
        room = self._open(request.context, frame)
        self.stored.pop(fold(request.fields["room"]), None)
        if request.has_caller:
            room.callers.append(request.id)
        self._load_members(room)
        self._effects.append(Save(at_once=True))
        early, self._early = self._early, []
        for event in early:
            self.event(event)

    def _entered(self, frame: dict[str, Any]) -> None:
        """Enters a room by order of the application."""
        self._load_members(self._open(None, frame))
        self._effects.append(Save(at_once=True))

    def _open(self, room: JoinedRoom | None, frame: dict[str, Any]) -> JoinedRoom:
        """Notes that a room delivers, and returns it."""
        room = room or self.by_name.get(frame["room"])
        if room is None:
            stored = self.stored.pop(fold(frame["room"]), None)
            room = JoinedRoom(frame["room"], frame["room"], Stream.at(stored or frame))
            self._effects.append(OpenRoom(room))
        self.by_name.pop(room.name, None)
        room.name = frame["room"]
        self.by_name[room.name] = room
        room.is_live = True
        return room

    def loaded(self, request: Request, frame: dict[str, Any]) -> None:
        """Adds a page of the members, and requests the next one."""
        room: JoinedRoom = request.context
        cursor = frame["next_cursor"]
        room.members.add_page(frame["items"], is_last=cursor is None)
        if cursor is not None:
            self._request_members(room, {"cursor": cursor})
            return
        room.loading = None
        if not room.callers:
            self._effects.append(Deliver(room.key, MembersChanged(resync=True)))
        self._effects.extend(Settle(caller, {"room": room.key}) for caller in room.callers)
        room.claims += len(room.callers)
        room.callers.clear()

    def close(self, room: JoinedRoom, error: ParleyError) -> None:
        """Ends a room."""
        self.by_name.pop(room.name, None)
        self._calls.drop_context(room)
        self._effects.extend(Settle(caller, error) for caller in room.callers)
        self._effects.append(CloseRoom(room.key))
        self._effects.append(Save())

    def _load_members(self, room: JoinedRoom) -> None:
        if room.loading is not None:
            self._calls.drop(room.loading)
        room.members.load()
        self._request_members(room, {})

    def _request_members(self, room: JoinedRoom, cursor: dict[str, Any]) -> None:
        fields = {"room": room.name, "limit": MEMBERS_PAGE, **cursor}
        room.loading = self._calls.request("members", fields, context=room)

    # Events

    def event(self, frame: dict[str, Any]) -> None:
        """Applies an event of a room or of the inbox. Unknown types and rooms are ignored."""
        name = str(frame.get("to", frame.get("room", "")))
        if not name.startswith("#"):
            self._inbox_event(frame)
        elif frame["type"] == "joined":
            self._entered(frame)
        elif (room := self.by_name.get(name)) is not None:
            self._room_event(room, frame)
        elif self._calls.joining(fold(name)):
            # The order of replies and events is not defined.
            self._early.append(frame)

    def _room_event(self, room: JoinedRoom, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "presence" if frame.get("resync"):
                self._load_members(room)
            case "presence":
                self._effects.append(Deliver(room.key, room.members.change(frame)))
            case "typing":
                self._effects.append(Deliver(room.key, Typing(frame["from"])))
            case "left":
                # A moderator has removed this session from the room.
                self.close(room, ParleyError("not_in_room", f"removed from the room: {frame.get('reason')}"))
            case _:
                self._stream_event(room.key, room.stream, frame)

    def _inbox_event(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "typing":
            self._effects.append(DeliverTyping(frame["from"]))
        elif self.inbox is not None:
            self._stream_event(INBOX, self.inbox, frame)

    def _stream_event(self, key: str, stream: Stream, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message" if message := stream.message(frame, self.is_own(frame)):
                self._effects.append(Deliver(key, message))
            case "gap" if gap := stream.gap(frame):
                self._effects.append(Deliver(key, gap))
            case "rewound" if rewind := stream.rewound(frame):
                self._effects.append(Deliver(key, rewind))
            case "epoch":
                stream.epoch_changed(frame)
            case _:
                return
        self._effects.append(Save())
