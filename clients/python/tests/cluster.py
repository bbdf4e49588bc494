"""A real cluster on free ports: one redis-server and gateways, as processes of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[3]
BIN_DIR = Path(os.environ.get("PARLEY_BIN_DIR", REPOSITORY / "target" / "debug"))
START_SECONDS = 20.0


async def eventually(condition: Callable[[], Awaitable[bool] | bool], what: str, seconds: float = 10.0) -> None:
    """Polls until the condition holds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                holds = condition()
                if holds if isinstance(holds, bool) else await holds:
                    return
                await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A running program, killed at the end of the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *command: str | Path, log: Path, **environment: str) -> Self:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=output, env={**os.environ, **environment}
            )
        return cls(process)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            # A full pipe would keep `wait` from ending.
            await self.process.communicate()


class Gateway(Program):
    """A gateway, and the addresses that it has printed."""

    listening: dict[str, Any]

    @property
    def url(self) -> str:
        return f"ws://{self.listening['ws']}/ws"

    async def is_ready(self) -> bool:
        host, port = self.listening["admin"].rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")


class Cluster:
    """Redis and gateways. Leaving the block kills them."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="parley-python-"))
        self._redis_port = free_port()
        self._redis: Program | None = None
        self.gateways: list[Gateway] = []

    async def __aenter__(self) -> Self:
        try:
            await self.start_redis()
            for _ in range(2):
                await self.add_gateway()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for program in (*self.gateways, self._redis):
            if program is not None:
                await program.kill()
        shutil.rmtree(self._directory)

    @property
    def urls(self) -> list[str]:
        return [gateway.url for gateway in self.gateways]

    async def start_redis(self) -> None:
        configuration = REPOSITORY / "deploy" / "redis" / "redis.conf"
        options = ("--port", str(self._redis_port), "--dir", str(self._directory))
        self._redis = await Program.start("redis-server", configuration, *options, log=self._directory / "redis.log")

        async def answers() -> bool:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
            except OSError:
                return False
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            return answer == b"+PONG\r\n"

        await eventually(answers, "redis answers", START_SECONDS)

    async def kill_redis(self) -> None:
        assert self._redis is not None
        await self._redis.kill()

    def _environment(self) -> dict[str, str]:
        return {"PARLEY__REDIS__URL": f"redis://127.0.0.1:{self._redis_port}"}

    async def add_gateway(self) -> Gateway:
        """Starts a gateway, and waits until it is ready."""
        binary = BIN_DIR / "gateway"
        assert binary.exists(), f"{binary} does not exist: build it, or set PARLEY_BIN_DIR"
        name = f"g{len(self.gateways) + 1}"
        addresses = ("listen.ws", "listen.tcp", "admin.addr")
        flags = [f"--set={key}=127.0.0.1:0" for key in addresses]
        log = self._directory / f"{name}.log"
        gateway = await Gateway.start(binary, *flags, f"--set=node.id={name}", log=log, **self._environment())
        self.gateways.append(gateway)
        assert gateway.process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await gateway.process.stdout.readline()
        assert line, log.read_text()
        gateway.listening = json.loads(line)
        await eventually(gateway.is_ready, f"{name} is ready", START_SECONDS)
        return gateway

    async def kick(self, nick: str) -> None:
        """Ends the session of a user as an operator."""
        log = self._directory / "ctl.log"
        program = await Program.start(BIN_DIR / "gateway", "ctl", "kick", nick, log=log, **self._environment())
        await program.process.communicate()
        assert program.process.returncode == 0, log.read_text()


@contextlib.asynccontextmanager
async def running_cluster(seconds: float = 60.0) -> AsyncIterator[Cluster]:
    """Runs a test with two gateways, within a time limit."""
    async with asyncio.timeout(seconds), Cluster() as cluster:
        yield cluster
