"""Rooms, direct messages, requests and iterators against a real cluster, in each format."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, eventually
from talking import NewParley, bodies, send_all, take

from parley_chat import FileStorage, Gap, MembersChanged, Message, Online, Parley, ParleyError, User


async def test_members_talk_across_two_gateways(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await eventually(lambda: set(here.members) == {"ann", "bob"}, "both are members")
        acks = await asyncio.gather(*(here.send(number) for number in range(20)))
        heard = await take(aiter(there), 20)
        assert bodies(heard) == list(range(20))
        assert [message.id for message in heard] == [ack.id for ack in acks]
        assert (there.unread, heard[0].own, there.seq) == (20, False, 20)
        there.read(heard[-1].seq)
        assert there.unread == 0
        ack = await there.send({"text": "hi", "at": [12, 30]}, key="greeting")
        assert (await there.send({"text": "hi", "at": [12, 30]}, key="greeting")).id == ack.id
        assert (await here.history(limit=1)).items[0].body == {"text": "hi", "at": [12, 30]}


async def test_direct_messages_reach_both_conversations(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
        inbox, conversation = bob.directs(), bob.direct("ANN")
        ack = await ann.direct("bob").send("psst")
        assert ack.delivered == "online"
        assert bodies(await take(inbox, 1)) == ["psst"]
        await conversation.send("what?")
        both = await take(aiter(conversation), 2)
        assert [(message.body, message.own) for message in both] == [("psst", False), ("what?", True)]
        with pytest.raises(ParleyError) as refusal:
            await ann.direct("nobody-yet").send("hello?")
        assert refusal.value.code == "no_such_user"


async def test_requests_return_what_the_server_answers(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
        room = await ann.join("#Garden")
        await send_all(room, 3)
        other = await bob.join("#garden", history=2)
        assert bodies(list(other.recent)) == [1, 2]
        assert other.name == "#Garden"
        assert await bob.join("#GARDEN") is other
        assert [(item.room, item.member_count) for item in (await ann.rooms()).items] == [("#Garden", 2)]
        await ann.status("away", "tea")
        await eventually(lambda: other.members["ann"].text == "tea", "the status arrives")
        await ann.rename("anna")
        await eventually(lambda: set(other.members) == {"anna", "bob"}, "the new nickname arrives")
        assert ann.nick == "anna"
        assert (await room.send("still me")).seq == 4
        assert 0 < await ann.ping() < 5
        with pytest.raises(ParleyError) as refusal:
            await ann.rename("bob")
        assert refusal.value.code == "nick_in_use"
        await room.leave()
        await eventually(lambda: set(other.members) == {"bob"}, "the leave arrives")
        assert dict(ann.joined) == {}


async def test_restarted_program_continues_after_handled_message(
    cluster: Cluster, parley: NewParley, tmp_path: Path
) -> None:
    storage = FileStorage(tmp_path / "session.json")
    async with parley(cluster.urls[1], nick="bob") as bob:
        there = await bob.join("#lobby")
        async with parley(cluster.urls[0], nick="ann", storage=storage) as ann:
            here = await ann.join("#lobby")
            await send_all(there, 4)
            async for message in here:
                if message.body == 1:
                    break
        await bob.direct("ann").send("while you were away")
        async with parley(cluster.urls[1], nick="ann", storage=storage) as again:
            assert bodies(await take(again.directs(), 1)) == ["while you were away"]
            here = await again.join("#lobby")
            assert bodies(await take(aiter(here), 2)) == [2, 3]


async def test_cancelled_calls_leave_the_client_sound(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        for delay in range(10):
            await cancel_after(here.send(delay), delay)
            await cancel_after(ann.join("#other"), delay)
        with pytest.raises(TimeoutError):
            await here.send("never waited for", timeout=0)
        await check_rooms(bob, ["#lobby"])
        await here.send("end")
        async with asyncio.timeout(10):
            async for message in there:
                if message.body == "end":
                    break
        assert (await (await ann.join("#other")).send("hi")).seq == 1


async def cancel_after(call: Coroutine[Any, Any, object], steps: int) -> None:
    """Cancels a call after some steps of the event loop, before it is answered."""
    task = asyncio.create_task(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def check_rooms(chat: Parley, expected: list[str]) -> None:
    """Waits until these rooms have members."""

    async def are_listed() -> bool:
        return [item.room for item in (await chat.rooms()).items] == expected

    await eventually(are_listed, f"the rooms are {expected}")


async def test_join_cancelled_with_its_answer_is_undone(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann:
        joining = asyncio.create_task(ann.join("#other"))
        async with asyncio.timeout(10):
            while not ("#other" in ann.joined and ann.joined["#other"]._room.claims):
                await asyncio.sleep(0)
        assert not joining.done(), "the answer is there, and the task has not run"
        joining.cancel()
        await asyncio.wait([joining])
        assert joining.cancelled()
        await check_rooms(ann, [])
        assert not ann.joined


async def test_slow_iterator_loses_nothing(
    cluster: Cluster, parley: NewParley, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_chat.feed.FEED_EVENTS_MAX", 50)
    async with parley(cluster.urls[0], nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await eventually(lambda: "bob" in here.members, "both are members")
        messages = aiter(there)
        await send_all(here, 200)
        assert there.seq <= 50, "the feed is full"
        async with asyncio.timeout(10):
            assert (await there.send("not blocked")).seq == 201
        assert bodies(await take(messages, 201)) == [*range(200), "not blocked"]
        await there.leave()
        async with asyncio.timeout(10):
            async for event in here.events():
                if isinstance(event, MembersChanged):
                    assert event.left == (("bob", "left"),), "the reconnects are invisible"
                    break


async def test_unread_room_keeps_its_newest_messages(
    cluster: Cluster, parley: NewParley, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_chat.feed.FEED_EVENTS_MAX", 50)
    async with parley(cluster.urls, nick="ann") as ann:
        room = await ann.join("#lobby")
        await send_all(room, 100)
        await eventually(lambda: room.seq == 100, "all have arrived")
        events = room.events()
        gap = await anext(events)
        assert isinstance(gap, Gap) and gap.from_seq == 1
        first = next(event for event in [await anext(events), await anext(events)] if isinstance(event, Message))
        assert first.seq == gap.to_seq + 1


async def test_whois_shows_presence_across_gateways(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls[0], nick="ann") as ann:
        async with parley(cluster.urls[1], nick="Bob") as bob:
            assert await ann.whois("bob") == User("Bob", online=True, status="online", text="")
            await bob.status("away", "tea")
            assert await ann.whois("bob") == User("Bob", online=True, status="away", text="tea")
        assert await ann.whois("bob") == User("Bob", online=False, status=None, text="")
        with pytest.raises(ParleyError, match="no_such_user"):
            await ann.whois("stranger")


async def test_half_of_a_surrogate_pair_is_refused(cluster: Cluster, parley: NewParley) -> None:
    with pytest.raises(ParleyError, match="bad_request"):
        async with asyncio.timeout(10), parley(cluster.urls, nick="\ud800"):
            raise AssertionError("registered")
    async with asyncio.timeout(10), parley(cluster.urls, nick="ann") as ann:
        room = await ann.join("#lobby")
        ann.direct("\udfff").typing()
        for refused in (ann.join("#\ud800"), ann.whois("\ud800"), room.send("\ud83d"), room.send({"\ud83d": 1})):
            with pytest.raises(ParleyError, match="bad_request"):
                await refused
        ack = await room.send("\U0001f600")
        assert ack.seq == 1
        assert isinstance(ann.state, Online) and not ann.state.resumed
