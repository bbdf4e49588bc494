"""Promises of the client while gateways and Redis are killed, stopped and restarted, and when the session ends."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, eventually
from talking import NewParley, bodies, node, read_to_the_end, send_all, take

from parley_chat import FileStorage, MembersChanged, Message, Offline, Online, Parley, ParleyError, Room


async def test_killed_gateway_loses_and_doubles_nothing(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls, nick="ann") as ann, parley(cluster.urls[1], nick="bob") as bob:
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
    async with Parley(cluster.urls, nick="ann") as ann, Parley(cluster.urls[::-1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await eventually(lambda: len(there.members) == 2, "both are members")
        # Read meanwhile: the room keeps fewer messages than a fast machine sends during the restart.
        listening, is_rolled = asyncio.create_task(listen_until(there, "end")), asyncio.Event()
        sending = asyncio.create_task(send_until(here, is_rolled))
        for gateway in cluster.gateways:
            await cluster.restart(gateway)
        is_rolled.set()
        sent = await sending
        await here.send("end")
        async with asyncio.timeout(10):
            assert await listening == list(range(sent))
        for chat in (ann, bob):
            assert isinstance(chat.state, Online) and chat.state.resumed


async def listen_until(room: Room, last: str) -> list[object]:
    """Takes events until the last message, and returns the bodies before it. Fails if a member leaves."""
    heard: list[object] = []
    async for event in room.events():
        assert not (isinstance(event, MembersChanged) and event.left), "the restart is invisible"
        if isinstance(event, Message) and event.body == last:
            break
        heard += [event.body] if isinstance(event, Message) else []
    return heard


async def send_until(room: Room, end: asyncio.Event) -> int:
    """Sends numbered messages until the event is set, and returns their number."""
    number = 0
    while not end.is_set():
        await room.send(number)
        number += 1
    return number


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


async def test_kick_rejects_every_pending_call(cluster: Cluster, parley: NewParley) -> None:
    async with parley(cluster.urls, nick="ann") as ann:
        room = await ann.join("#lobby")
        endings = [asyncio.create_task(ending) for ending in (read_to_the_end(room), read_to_the_end(ann.directs()))]
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


async def test_stopped_gateway_is_abandoned(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        await here.send("before")
        await cluster.gateways[0].freeze()
        async with asyncio.timeout(40):
            await here.send("after")
        assert node(ann) == "g2"
        assert bodies(await take(aiter(there), 2)) == ["before", "after"]


async def test_retry_leaves_a_stopped_gateway_soon(cluster: Cluster) -> None:
    async with Parley(cluster.urls, nick="ann") as ann:
        await cluster.gateways[0].freeze()
        ann.retry()
        await eventually(lambda: isinstance(ann.state, Online) and ann.state.node == "g2", "the other gateway", 6)


async def test_taken_nickname_refuses_the_registration(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann"):
        other = Parley(cluster.urls[1], nick="ANN")
        with pytest.raises(ParleyError) as refusal:
            async with other:
                raise AssertionError("registered twice")
        assert (refusal.value.code, refusal.value.retry_after) == ("nick_in_use", None)
        assert isinstance(other.state, Offline)
        assert other.state.message == refusal.value.message == "this nickname is in use"


async def test_closing_rejects_calls_and_ends_iterators(cluster: Cluster) -> None:
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        here, there = await ann.join("#lobby"), await bob.join("#lobby")
        reading = asyncio.create_task(read_to_the_end(here))
        await eventually(lambda: "ann" in there.members, "ann is a member")
        await cluster.gateways[0].freeze()
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


class BrokenStorage:
    """Storage on a full disk."""

    def load(self) -> dict[str, Any] | None:
        raise OSError("no such disk")

    def save(self, state: dict[str, Any]) -> None:
        raise OSError("disk full")


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
    ann.on("joined", lambda room: seen.append(room.name))
    end = ann.on("nick", seen.append)
    async with ann:
        await ann.rename("anna")
        await eventually(lambda: "anna" in seen, "the listener is called")
        end()
        await ann.rename("ann")
        await asyncio.gather(*(ann.join(name) for name in ("#Tea", "#tea")))
        cluster.gateways[0].signal(signal.SIGKILL)
        await eventually(lambda: seen.count("online") == 2, "the session is resumed")
    await eventually(lambda: len(seen) == 8, "the last listener is called")
    assert seen == ["connecting", "online", "anna", "#Tea", "offline", "resuming", "online", "offline"]
