"""A real cluster on free ports: one redis-server, gateways and presence, as processes of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[3]
BIN_DIR = Path(os.environ.get("PARLEY_BIN_DIR", REPOSITORY / "target" / "debug"))
START_SECONDS = 20.0
STOP_SECONDS = 40.0


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
    async def start(
        cls,
        *command: str | Path,
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Self:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
        return cls(process)

    @property
    def output(self) -> asyncio.StreamReader:
        """Standard output of the program."""
        assert self.process.stdout is not None
        return self.process.stdout

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def freeze(self) -> None:
        """Sends SIGSTOP, and waits until every thread has stopped."""
        self.signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")

        def is_frozen() -> bool:
            return all(task.read_text().rsplit(")", 1)[1].split()[0] == "T" for task in tasks.glob("*/stat"))

        await eventually(is_frozen, "the program has stopped")

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            # A full pipe would keep `wait` from ending.
            await self.process.communicate()


class Node(Program):
    """A program of Parley."""

    admin: str

    async def until_ready(self, log: Path) -> dict[str, str]:
        """Waits until it is ready. Returns the addresses of its listeners."""
        async with asyncio.timeout(START_SECONDS):
            line = await self.output.readline()
        assert line, log.read_text()
        addresses: dict[str, str] = json.loads(line)
        self.admin = addresses["admin"]
        await eventually(self.is_ready, f"{log.stem} is ready", START_SECONDS)
        return addresses

    async def is_ready(self) -> bool:
        host, port = self.admin.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")


class Gateway(Node):
    """A gateway under its address."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


class Cluster:
    """Redis, gateways and presence. Leaving the block kills them."""

    def __init__(self, **settings: str) -> None:
        """`settings`: variables of the gateways."""
        self._settings = settings
        self._directory = Path(tempfile.mkdtemp(prefix="parley-python-"))
        self._redis_port = free_port()
        self._redis: Program | None = None
        self.gateways: list[Gateway] = []
        self._presence: Node | None = None

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
        for program in (*self.gateways, self._presence, self._redis):
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
        return {**self._settings, "PARLEY__REDIS__URL": f"redis://127.0.0.1:{self._redis_port}"}

    async def add_gateway(self) -> None:
        """Starts a gateway, and waits until it is ready."""
        name, port = f"g{len(self.gateways) + 1}", free_port()
        self.gateways.append(await self._start_gateway(name, port))

    async def restart(self, gateway: Gateway) -> None:
        """Drains a gateway as a rolling restart does, and starts it again under its address."""
        gateway.signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            await gateway.process.communicate()
        index = self.gateways.index(gateway)
        self.gateways[index] = await self._start_gateway(gateway.name, gateway.port)

    async def _start_gateway(self, name: str, port: int) -> Gateway:
        binary = BIN_DIR / "gateway"
        assert binary.exists(), f"{binary} does not exist: build it, or set PARLEY_BIN_DIR"
        addresses = {"listen.ws": port, "listen.tcp": 0, "admin.addr": 0}
        flags = [f"--set={key}=127.0.0.1:{number}" for key, number in addresses.items()]
        flags += ["--set=limits.profile=open", "--set=session.hold_after_seconds=0", f"--set=node.id={name}"]
        log = self._directory / f"{name}.log"
        gateway = await Gateway.start(binary, *flags, log=log, environment=self._environment())
        gateway.name, gateway.port = name, port
        try:
            await gateway.until_ready(log)
        except BaseException:
            await gateway.kill()
            raise
        return gateway

    async def start_presence(self, **settings: str) -> str:
        """Starts presence with variables of its own, and returns the address of its API."""
        log = self._directory / "presence.log"
        free = {f"PARLEY__{listener}__ADDR": "127.0.0.1:0" for listener in ("API", "ADMIN")}
        environment = {**free, **settings, "PARLEY__REDIS__URL": self._environment()["PARLEY__REDIS__URL"]}
        self._presence = await Node.start(BIN_DIR / "presence", log=log, environment=environment)
        return f"http://{(await self._presence.until_ready(log))['api']}"

    async def ctl(self, *words: str) -> Any:
        """Runs a command of an operator. Returns its JSON."""
        log = self._directory / "ctl.log"
        program = await Program.start(
            BIN_DIR / "gateway", "ctl", "--json", *words, log=log, environment=self._environment()
        )
        output, _ = await program.process.communicate()
        assert program.process.returncode == 0, log.read_text()
        return json.loads(output)

    async def kick(self, nick: str) -> None:
        """Ends the session of a user as an operator."""
        await self.ctl("kick", nick)
