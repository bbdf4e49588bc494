"""Members of a room: pages of the list, and the changes since. Pure.

Changes that arrive while the list is loaded are applied to the old list at once, and again to the new one: the pages
may have been read before or after them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .events import Member, MembersChanged


class Members:
    """Members by nickname."""

    def __init__(self) -> None:
        self.by_nick: dict[str, Member] = {}
        self._pages: list[Member] | None = None
        self._changes: list[MembersChanged] = []

    def load(self) -> None:
        """Begins to load the list."""
        self._pages, self._changes = [], []

    def add_page(self, items: list[dict[str, Any]], is_last: bool) -> None:
        """Adds a page of the list; the last one replaces the members."""
        assert self._pages is not None
        self._pages.extend(map(_member, items))
        if is_last:
            self.by_nick.clear()
            self.by_nick.update((member.nick, member) for member in self._pages)
            for change in self._changes:
                self._apply(change)
            self._pages, self._changes = None, []

    def change(self, frame: dict[str, Any]) -> MembersChanged:
        """Applies a `presence` event."""
        change = MembersChanged(
            joined=tuple(map(_member, frame.get("joined", ()))),
            left=tuple((item["nick"], item["reason"]) for item in frame.get("left", ())),
            renamed=tuple((item["from"], item["to"]) for item in frame.get("renamed", ())),
            status=tuple(map(_member, frame.get("status", ()))),
        )
        self._apply(change)
        if self._pages is not None:
            self._changes.append(change)
        return change

    def _apply(self, change: MembersChanged) -> None:
        for nick, _reason in change.left:
            self.by_nick.pop(nick, None)
        for former, nick in change.renamed:
            member = self.by_nick.pop(former, Member(nick, "online", "", None))
            self.by_nick.setdefault(nick, replace(member, nick=nick))
        for member in change.joined:
            self.by_nick[member.nick] = member
        for member in change.status:
            known = self.by_nick.get(member.nick, member)
            self.by_nick[member.nick] = replace(member, user=member.user or known.user)


def _member(item: dict[str, Any]) -> Member:
    return Member(item["nick"], item["status"], item.get("text", ""), item.get("user"))
