"""Feeds and storage: which events wait, which count as handled, and what is kept between two runs."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from parley_chat import Announcement, FeedIterator, FileStorage, Gap, Message, Parley
from parley_chat.feed import FEED_EVENTS_MAX, Feed
from parley_chat.router import Router
from parley_chat.storage import well_formed


def message(seq: int) -> Message:
    return Message(f"m{seq}", "#tea", "bob", seq, 1, seq, own=False)


async def test_next_request_handles_the_event() -> None:
    feed = Feed()
    for seq in (1, 2):
        feed.push(message(seq))
    messages = FeedIterator[Message](feed)
    assert feed.unhandled() == 1
    await anext(messages)
    assert feed.unhandled() == 1
    await anext(messages)
    assert feed.unhandled() == 2
    await messages.aclose()
    assert feed.unhandled() is None


async def test_broken_loop_leaves_later_events() -> None:
    feed = Feed()
    for seq in (1, 2, 3):
        feed.push(message(seq))
    taken: list[int | None] = []
    async for first in FeedIterator[Message](feed):
        taken.append(first.seq)
        break
    assert taken == [1]
    feed.close()
    assert [later.seq async for later in FeedIterator[Message](feed)] == [2, 3]


async def test_second_iterator_is_refused_while_open() -> None:
    feed = Feed()
    messages = FeedIterator[Message](feed)
    with pytest.raises(RuntimeError):
        FeedIterator[Message](feed)
    await messages.aclose()
    FeedIterator[Message](feed)


async def test_repeated_announcement_is_emitted_once() -> None:
    router, emitted = Router(), list[Announcement]()
    router.on("announcement", emitted.append)
    for id in ("a1", "a2", "a1"):
        router.announced(Announcement(id, "noon", 7))
    await asyncio.sleep(0)
    assert [announcement.id for announcement in emitted] == ["a1", "a2"]


async def test_reopened_feed_takes_later_events() -> None:
    feed = Feed()
    feed.close()
    assert [event async for event in FeedIterator[Message](feed)] == []
    feed.reopen()
    feed.push(message(1))
    assert (await anext(FeedIterator[Message](feed))).seq == 1


async def test_cancelled_wait_loses_no_event() -> None:
    feed = Feed()
    messages = FeedIterator[Message](feed)
    waiting = asyncio.create_task(anext(messages))
    await asyncio.sleep(0)
    feed.push(message(1))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await anext(messages)).seq == 1


async def test_unread_feed_reports_dropped_messages() -> None:
    feed = Feed()
    for seq in range(1, FEED_EVENTS_MAX + 4):
        feed.push(message(seq))
    assert not feed.is_full
    events = FeedIterator[object](feed)
    assert feed.is_full
    assert await anext(events) == Gap(1, 3)
    assert await anext(events) == message(4)


def test_file_storage_is_private_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    assert FileStorage(path).load() is None
    FileStorage(path).save({"token": "secret"})
    assert FileStorage(path).load() == {"token": "secret"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("url", ["http://chat.example/ws", "ws://", "chat.example", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Parley(url, nick="ann")


@pytest.mark.parametrize(
    "state",
    [
        {"token": 5},
        {"token": ["t"], "positions": [], "read": []},
        {"positions": {"#tea": 5, "@": {}}},
        {"positions": {"#tea": {"epoch": "e", "seq": "x"}, "@": {"epoch": 1, "seq": -1}}},
        {"token": "t", "read": {"#tea": "x", "bob": None}},
    ],
)
async def test_damaged_parts_of_a_storage_are_ignored(state: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({**state, "kept": True}))
    loaded = well_formed(FileStorage(path).load())
    assert loaded == {"token": "t" if state.get("token") == "t" else None, "positions": {}, "read": {}}
    sound = {"token": "t", "positions": {"#tea": {"epoch": "e", "seq": 3}}, "read": {"#tea": 2}}
    assert well_formed(sound) == sound
    assert well_formed(None) == {"token": None, "positions": {}, "read": {}}
