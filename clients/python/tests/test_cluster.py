"""Promises of the client against a real cluster whose parts are killed, stopped and restarted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, eventually, running_cluster

from parley_chat import FeedIterator, FileStorage, Gap, Message, Offline, Online, Parley, ParleyError, Room


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as cluster:
        yield cluster


class BrokenStorage:
    """Storage on a full disk."""

    def load(self) -> dict[str, Any] | None:
        raise OSError("no such disk")

    def save(self, state: dict[str, Any]) -> None:
        raise OSError("disk full")


async def take(messages: FeedIterator[Message], count: int) -> list[Message]:
    """Returns the next messages, within a time limit."""
    async with asyncio.timeout(40):
        return [await anext(messages) for _ in range(count)]


def bodies(messages: list[Message]) -> list[object]:
    return [message.body for message in messages]


async def send_all(room: Room, count: int) -> None:
    """Sends numbered messages one after the other."""
    for number in range(count):
        await room.send(number)


def node(chat: Parley) -> str:
    return chat.state.node if isinstance(chat.state, Online) else "none"


async def test_members_talk_across_two_gateways(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await eventually(lambda: set(here.members) == {"ann", "bob"}, "both are members")
        acks = await asyncio.gather(*(here.send(number) for number in range(20)))
        heard = await take(aiter(there), 20)
        assert bodies(heard) == list(range(20))
        assert [message.id for message in heard] == [ack.id for ack in acks]
        assert (there.unread, heard[0].own, here.seq) == (20, False, there.seq)
        there.read(heard[-1].seq)
        assert there.unread == 0
        ack = await there.send({"text": "hi", "at": [12, 30]}, key="greeting")
        assert (await there.send({"text": "hi", "at": [12, 30]}, key="greeting")).id == ack.id
        assert (await here.history(limit=1)).items[0].body == {"text": "hi", "at": [12, 30]}


async def test_direct_messages_reach_both_conversations(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
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


async def test_requests_return_what_the_server_answers(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
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


async def test_killed_gateway_loses_and_doubles_nothing(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        messages, heard = aiter(there), aiter(here)
        sending = asyncio.create_task(send_all(here, 300))
        first = await take(messages, 50)
        cluster.gateways[0].signal(signal.SIGKILL)
        rest = await take(messages, 250)
        await sending
        assert bodies(first + rest) == list(range(300))
        assert bodies(await take(heard, 300)) == list(range(300))
        assert isinstance(ann.state, Online) and ann.state.resumed


async def test_rolling_restart_loses_and_doubles_nothing(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        left = [event async for event in _left_events(there, 300, asyncio.create_task(send_all(here, 300)), cluster)]
        assert left == []
        assert node(ann) == "g2"
        assert isinstance(ann.state, Online) and ann.state.resumed


async def _left_events(room: Room, count: int, sending: asyncio.Task[None], cluster: Cluster) -> AsyncIterator[object]:
    """Drains the first gateway after 50 messages. Yields each leave, and checks the messages."""
    heard: list[object] = []
    async for event in room.events():
        if not isinstance(event, Message):
            for leave in getattr(event, "left", ()):
                yield leave
            continue
        heard.append(event.body)
        if len(heard) == 50:
            cluster.gateways[0].signal(signal.SIGTERM)
        if len(heard) == count:
            break
    await sending
    assert heard == list(range(count))


async def test_sends_wait_while_redis_is_away(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann:
        room = await ann.join("#lobby")
        messages = aiter(room)
        await room.send("before")
        await cluster.kill_redis()

        async def is_unready() -> bool:
            return not await cluster.gateways[0].is_ready()

        waiting = [asyncio.create_task(room.send(number)) for number in range(3)]
        await eventually(is_unready, "the gateway is not ready")
        assert not any(task.done() for task in waiting)
        await cluster.start_redis()
        async with asyncio.timeout(30):
            await asyncio.gather(*waiting)
        assert bodies(await take(messages, 4)) == ["before", 0, 1, 2]


async def test_kick_rejects_every_pending_call(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann:
        room = await ann.join("#lobby")
        endings = [asyncio.create_task(ending) for ending in (_read_to_the_end(room), _read_to_the_end(ann.directs()))]
        states = asyncio.create_task(_last_state(ann))
        sends = [asyncio.create_task(room.send(number)) for number in range(2000)]
        leaving = asyncio.create_task(room.leave())
        await sends[50]
        async with asyncio.timeout(30):
            await cluster.kick("ann")
            outcomes = await asyncio.gather(*sends, leaving, return_exceptions=True)
            await asyncio.gather(*endings)
            assert await states == Offline("kicked", will_retry=False)
        assert isinstance(outcomes[-1], ParleyError), "the leave was still waiting"
        assert {outcome.code for outcome in outcomes if isinstance(outcome, ParleyError)} == {"kicked"}
        with pytest.raises(ParleyError, match="kicked"):
            await room.send("too late")


async def _read_to_the_end(messages: AsyncIterable[Message]) -> None:
    async for _message in messages:
        pass


async def _last_state(chat: Parley) -> object:
    return [state async for state in chat.states()][-1]


async def test_second_client_with_token_takes_over(cluster: Cluster, tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "session.json")
    async with Parley(cluster.urls[0], nick="ann", storage=storage) as first:
        room = await first.join("#lobby")
        await room.send("hi")
        async with Parley(cluster.urls[1], nick="ann", storage=storage) as second:
            assert isinstance(second.state, Online) and second.state.resumed
            await eventually(lambda: first.state == Offline("taken_over", will_retry=False), "the first one ends")
            with pytest.raises(ParleyError, match="taken_over"):
                await room.send("too late")
            assert (await (await second.join("#lobby")).send("mine")).seq == 2


async def test_restarted_program_continues_after_handled_message(cluster: Cluster, tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "session.json")
    async with Parley(cluster.urls[1], nick="bob") as bob:
        there = await bob.join("#lobby")
        async with Parley(cluster.urls[0], nick="ann", storage=storage) as ann:
            here = await ann.join("#lobby")
            await send_all(there, 4)
            async for message in here:
                if message.body == 1:
                    break
        await bob.direct("ann").send("while you were away")
        async with Parley(cluster.urls[1], nick="ann", storage=storage) as again:
            assert bodies(await take(again.directs(), 1)) == ["while you were away"]
            here = await again.join("#lobby")
            assert bodies(await take(aiter(here), 2)) == [2, 3]


async def test_stopped_gateway_is_abandoned(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await here.send("before")
        cluster.gateways[0].signal(signal.SIGSTOP)
        async with asyncio.timeout(40):
            await here.send("after")
        assert node(ann) == "g2"
        assert bodies(await take(aiter(there), 2)) == ["before", "after"]


async def test_taken_nickname_refuses_the_registration(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann"):
        with pytest.raises(ParleyError) as refusal:
            async with Parley(cluster.urls[1], nick="ANN"):
                raise AssertionError("registered twice")
        assert (refusal.value.code, refusal.value.retry_after) == ("nick_in_use", None)


async def test_cancelled_calls_leave_the_client_sound(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        for delay in range(20):
            call = asyncio.create_task(ann.join("#other") if delay % 2 else here.send(delay))
            for _ in range(delay):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        with pytest.raises(TimeoutError):
            await here.send("never waited for", timeout=0)
        await here.send("end")
        async with asyncio.timeout(10):
            async for message in there:
                if message.body == "end":
                    break

        async def is_alone() -> bool:
            return [item.room for item in (await bob.rooms()).items] == ["#lobby"] or "#other" in ann.joined

        await eventually(is_alone, "a cancelled join is undone")
        room = await ann.join("#other")
        assert (await room.send("hi")).seq == 1


async def test_closing_rejects_calls_and_ends_iterators(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        reading = asyncio.create_task(_read_to_the_end(here))
        await eventually(lambda: "ann" in there.members, "ann is a member")
        cluster.gateways[0].signal(signal.SIGSTOP)
        waiting = asyncio.create_task(here.send("never answered"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(ann.close())
        with pytest.raises(ParleyError, match="closed"):
            await waiting
        await reading
        cluster.gateways[0].signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            await closing
        assert ann.state == Offline("closed", will_retry=False)
        await eventually(lambda: "ann" not in there.members, "the leave is announced at once", 4)


async def test_slow_iterator_loses_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_chat.feed.FEED_EVENTS_MAX", 50)
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        messages = aiter(there)
        await send_all(here, 200)
        assert there.seq <= 50, "the feed is full"
        async with asyncio.timeout(10):
            assert (await there.send("not blocked")).seq == 201
        assert bodies(await take(messages, 201)) == [*range(200), "not blocked"]


async def test_unread_room_keeps_its_newest_messages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_chat.feed.FEED_EVENTS_MAX", 50)
    async with Parley(cluster.urls, nick="ann") as ann:
        room = await ann.join("#lobby")
        await send_all(room, 100)
        await eventually(lambda: room.seq == 100, "all have arrived")
        events = room.events()
        gap = await anext(events)
        assert isinstance(gap, Gap) and gap.from_seq == 1
        first = next(event for event in [await anext(events), await anext(events)] if isinstance(event, Message))
        assert first.seq == gap.to_seq + 1


async def test_failing_storage_leaves_a_session_in_memory(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    async with Parley(cluster.urls, nick="ann", storage=BrokenStorage()) as ann:
        room = await ann.join("#lobby")
        cluster.gateways[0].signal(signal.SIGKILL)
        await room.send("hi")
        assert isinstance(ann.state, Online) and ann.state.resumed
    assert [record.levelname for record in caplog.records if record.name == "parley_chat"].count("ERROR") == 2


async def test_wrong_address_refuses_the_session(cluster: Cluster) -> None:
    with pytest.raises(ParleyError, match="not_found"):
        async with Parley(cluster.urls[0].replace("/ws", "/nope"), nick="ann"):
            raise AssertionError("connected")


async def test_listeners_receive_states_and_nicknames(cluster: Cluster) -> None:
    seen: list[object] = []
    ann = Parley(cluster.urls, nick="ann")
    ann.on("state", lambda state: seen.append(state.name))
    end = ann.on("nick", seen.append)
    async with ann:
        await ann.rename("anna")
        await eventually(lambda: "anna" in seen, "the listener is called")
        end()
        await ann.rename("ann")
        cluster.gateways[0].signal(signal.SIGKILL)
        await eventually(lambda: seen.count("online") == 2, "the session is resumed")
    await eventually(lambda: len(seen) == 7, "the last listener is called")
    assert seen == ["connecting", "online", "anna", "offline", "resuming", "online", "offline"]
