"""Storage of the resume token and the positions between two runs of a program."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol


class Storage(Protocol):
    """Keeps one JSON object. If a method raises, the session continues with what it has in memory."""

    def load(self) -> dict[str, Any] | None:
        """Returns the object that was saved last, or `None`."""

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the object. Called often, from the event loop."""


class FileStorage:
    """Storage in a file that only its owner can read: the token is a secret."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> dict[str, Any] | None:
        """Returns the content of the file; `None` if it does not exist."""
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return None
        state = json.loads(text)
        if not isinstance(state, dict):
            raise ValueError(f"{self._path}: not a JSON object")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the file as a whole."""
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(beside, self._path)


def well_formed(state: object) -> dict[str, Any]:
    """Returns the token and the positions of a stored object. Damaged parts are left out."""
    parts = state if isinstance(state, dict) else {}
    token, positions, read = (parts.get(part) for part in ("token", "positions", "read"))
    return {
        "token": token if isinstance(token, str) else None,
        "positions": {name: position for name, position in _items(positions) if _is_position(position)},
        "read": {name: seq for name, seq in _items(read) if _is_seq(seq)},
    }


def _items(value: object) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _is_position(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("epoch"), str) and _is_seq(value.get("seq"))


def _is_seq(value: object) -> bool:
    return type(value) is int and value >= 0
