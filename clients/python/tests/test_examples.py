"""The examples, and those of README.md, run against a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cluster import REPOSITORY, Cluster, Program, eventually

import parley_chat
from parley_chat import Parley, Room

EXAMPLES = REPOSITORY / "clients" / "examples"
README = REPOSITORY / "clients" / "python" / "README.md"


@contextlib.asynccontextmanager
async def running(folder: Path, *command: str | Path) -> AsyncIterator[Program]:
    """Runs a Python program in a folder, and kills it at the end: as a crash would."""
    program = await Program.start(sys.executable, *command, log=folder / "log", folder=folder)
    try:
        yield program
    finally:
        await program.kill()


async def take_echoes(room: Room, count: int) -> list[object]:
    """Returns the next messages of others, within a time limit."""
    echoes: list[object] = []
    async with asyncio.timeout(20):
        async for message in room:
            echoes += [] if message.own else [message.body]
            if len(echoes) == count:
                break
    return echoes


async def check_echo_bot(cluster: Cluster, folder: Path, *command: str | Path) -> None:
    """Talks to an echo bot that crashes in between."""
    async with Parley(cluster.urls[1], nick="ann") as ann:
        room = await ann.join("#lobby")
        async with running(folder, *command):
            await eventually(lambda: "echo-bot" in room.members, "the bot joins", 20)
            await room.send("one")
            assert await take_echoes(room, 1) == ["one"]
        await room.send("two")
        async with running(folder, *command):
            await room.send("three")
            assert await take_echoes(room, 2) == ["two", "three"]


async def test_echo_bot_continues_after_a_crash(cluster: Cluster, tmp_path: Path) -> None:
    program = EXAMPLES / "echo_bot.py"
    assert len(program.read_text().splitlines()) <= 30
    await check_echo_bot(cluster, tmp_path, program, cluster.urls[0], "#lobby")


def readme_block(opening: str) -> str:
    found = re.search(rf"^```{opening}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


async def test_readme_bot_continues_after_a_crash(cluster: Cluster, tmp_path: Path) -> None:
    bot = readme_block("python bot")
    assert len(bot.splitlines()) <= 30
    program = tmp_path / "bot.py"
    program.write_text(bot.replace("ws://127.0.0.1:8080/ws", cluster.urls[0]))
    await check_echo_bot(cluster, tmp_path, program)


async def test_readme_overview_runs_line_by_line(cluster: Cluster) -> None:
    source = "async def overview(chat):\n" + textwrap.indent(readme_block("python"), "    ")
    names: dict[str, Any] = {"asyncio": asyncio, **vars(parley_chat)}
    exec(compile(source, README, "exec"), names)
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        await ann.direct("bob").send("hello")
        await bob.direct("ann").send("hello")
        await names["overview"](ann)
        assert ann.nick == "anna"
        assert not ann.joined


class Webhook(BaseHTTPRequestHandler):
    """A webhook that refuses the first request."""

    received: list[Any]
    is_away: bool

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = 503 if type(self).is_away else 204
        if status == 204:
            self.received.append(body)
        type(self).is_away = False
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[ThreadingHTTPServer]:
    Webhook.received, Webhook.is_away = [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_webhook_bridge_posts_every_message(
    cluster: Cluster, tmp_path: Path, webhook: ThreadingHTTPServer
) -> None:
    command = (EXAMPLES / "webhook_bridge.py", cluster.urls[0], "#lobby", f"http://127.0.0.1:{webhook.server_port}/")
    async with Parley(cluster.urls[1], nick="ann") as ann:
        room = await ann.join("#lobby")
        async with running(tmp_path, *command):
            await eventually(lambda: "webhook-bridge" in room.members, "the bridge joins", 20)
            for number in range(3):
                await room.send(number)
            await eventually(lambda: len(Webhook.received) == 3, "three messages are posted", 20)
        ack = await room.send({"text": "after the crash"})
        async with running(tmp_path, *command):
            await eventually(lambda: Webhook.received[-1]["id"] == ack.id, "the last message is posted", 20)
    ids = {message["id"]: message for message in Webhook.received}
    assert [message["body"] for message in ids.values()] == [0, 1, 2, {"text": "after the crash"}]
    assert {key: ids[ack.id][key] for key in ("room", "from")} == {"room": "#lobby", "from": "ann"}
