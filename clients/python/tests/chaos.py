"""A client of the fault bench, which starts it, writes commands to its stdin and reads events from its stdout.

Each is a line of JSON. `tests/chaos/crowd/library.rs` describes them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from parley_chat import Gap, Message, Parley, ParleyError, Rewind, Room, State


def report(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def report_state(state: State) -> None:
    match state.name:
        case "online":
            report("state", name=state.name, node=state.node, resumed=state.resumed)
        case "offline":
            report("state", name=state.name, reason=state.reason)
        case _:
            report("state", name=state.name)


async def report_events(name: str, room: Room) -> None:
    async for event in room.events():
        match event:
            case Message(id=id, sender=sender, seq=seq, body=key):
                report("message", **{"room": name, "id": id, "from": sender, "seq": seq, "key": key})
            case Gap(from_seq=first, to_seq=last):
                report("gap", **{"room": name, "from": first, "to": last})
            case Rewind(seq=seq):
                report("rewind", room=name, seq=seq)


async def send(room: Room, key: str) -> None:
    try:
        ack = await room.send(key, key)
        report("acked", room=room.name, key=key, id=ack.id, seq=ack.seq)
    except ParleyError as error:
        report("refused", key=key, code=error.code)


async def commands() -> AsyncIterator[dict[str, str]]:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        yield json.loads(line)


async def main(urls: list[str], nick: str, rooms: list[str]) -> None:
    chat = Parley(urls, nick=nick)
    chat.on("state", report_state)
    async with asyncio.TaskGroup() as tasks, chat:
        joined = {name: await chat.join(name) for name in rooms}
        for name, room in joined.items():
            report("joined", room=name, seq=room.read_seq)
            tasks.create_task(report_events(name, room))
        async for command in commands():
            tasks.create_task(send(joined[command["room"]], command["key"]))


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
