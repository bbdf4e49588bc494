"""Repeats every message of a room. Usage: echo_bot.py URL ROOM"""

import asyncio
import sys

from parley_chat import FileStorage, Parley


async def main(url: str, name: str) -> None:
    async with Parley(url, nick="echo-bot", storage=FileStorage("echo-bot.json")) as chat:
        room = await chat.join(name)
        print(f"in {room.name}", flush=True)
        async for message in room:
            if not message.own:
                # The key makes the echo unique, also if a crash repeats the message.
                await room.send(message.body, key=f"echo-{message.id}")
    print("session ended:", chat.state)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
