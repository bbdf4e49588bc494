"""Replies to requests: their effects on rooms, and the outcomes of calls. Pure."""

from __future__ import annotations

import json
from typing import Any

from .calls import Calls
from .errors import ParleyError
from .requests import Request
from .rooms import Rooms
from .user_token import UserToken


class Replies:
    """Reads the replies of a registered connection."""

    def __init__(self, calls: Calls, rooms: Rooms, user_token: UserToken) -> None:
        self._calls = calls
        self._rooms = rooms
        self._user_token = user_token

    def read(self, frame: dict[str, Any]) -> None:
        """Applies a reply. A reply to a dropped request has no effect."""
        request = self._calls.reply(frame)
        if request is None:
            return
        if frame["type"] == "error":
            self._refused(request, ParleyError.of_frame(frame))
            return
        match request.type:
            case "join":
                self._calls.drop(request)
                self._rooms.joined(request, frame)
            case "members" if request.context is not None:
                self._calls.drop(request)
                self._rooms.loaded(request, frame)
            case "leave":
                self._left(request, frame)
            case "refresh":
                self._calls.drop(request)
                self._user_token.accepted(frame)
                for name in frame.get("left", ()):
                    self._leave(name, ParleyError("forbidden", "the token does not allow this room"))
            case "nick":
                self._rooms.take_nick(frame["nick"])
                self._calls.settle(request, frame)
            case "send":
                self._rooms.acked(frame, json.loads(request.text)["body"])
                self._calls.settle(request, frame)
            case _:
                self._calls.settle(request, frame)

    def _refused(self, request: Request, error: ParleyError) -> None:
        is_held_nick = request.type == "nick" and error.code == "nick_in_use"
        if request.is_ephemeral:
            self._calls.drop(request)
            if request.type == "refresh":
                self._user_token.refused(error)
        elif error.is_temporary and not is_held_nick:
            self._calls.retry(request, error)
        elif request.type == "leave" and error.code == "not_in_room":
            self._left(request, {})
        else:
            self._calls.settle(request, error)
            if request.context is not None:
                self._rooms.close(request.context, error)

    def _left(self, request: Request, frame: dict[str, Any]) -> None:
        self._calls.settle(request, frame)
        self._leave(request.fields["room"], ParleyError("not_in_room", "the room was left"))

    def _leave(self, name: str, error: ParleyError) -> None:
        if (room := self._rooms.find(name)) is not None:
            self._rooms.close(room, error)
