"""The example application: with a real cluster, and with a server API that fails."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cluster import REPOSITORY, Cluster, Program, eventually, free_port
from talking import bodies, take
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from parley_chat import Parley, ParleyError

APP = REPOSITORY / "clients" / "examples" / "app" / "app.py"
LINES_MAX = 149
ISSUER = "https://app.example.org"
TOKEN_SECRET = "the secret that the application shares with its gateways"
WEBHOOK_SECRET = "the-secret-of-its-webhook"
API_KEY = "the-key-of-the-application-to-the-server-api"
BANNED = 4006


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """Posts a body, and returns the status and the JSON of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            status, text = refusal.code, refusal.read()
    return status, json.loads(text or b"null")


class RunningApp:
    """The application as a process."""

    def __init__(self, folder: Path, api: str, port: int) -> None:
        self.port = port
        self._log = folder / "app.log"
        self._environment = {
            "APP_DATABASE": str(folder / "app.db"),
            "APP_PORT": str(port),
            "TOKEN_ISSUER": ISSUER,
            "TOKEN_SECRET": TOKEN_SECRET,
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "API_KEY": API_KEY,
            "API_URL": api,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs it, and kills it at the end."""
        program = await Program.start(sys.executable, APP, "serve", log=self._log, environment=self._environment)
        try:
            assert json.loads(await program.output.readline()) == {"port": self.port}, self._log.read_text()
            yield
        finally:
            await program.kill()

    def try_add(self, name: str, password: str) -> str:
        """Adds a user, and returns the error."""
        command = (sys.executable, APP, "add", name)
        added = subprocess.run(
            command, input=password, text=True, env=self._environment, timeout=10, capture_output=True
        )
        assert added.returncode == (1 if added.stderr else 0)
        return added.stderr

    def add(self, name: str, password: str) -> None:
        assert self.try_add(name, password) == ""

    async def login(self, name: Any, password: Any) -> tuple[int, Any]:
        body = json.dumps({"name": name, "password": password}).encode()
        return await asyncio.to_thread(post, f"http://127.0.0.1:{self.port}/login", body, {})

    async def token(self, name: str, password: str) -> str:
        status, answer = await self.login(name, password)
        assert status == 200, answer
        return str(answer["token"])

    async def deliver(self, body: bytes, signature: str) -> int:
        """Posts a delivery as Parley does, and returns the status."""
        headers = {"Parley-Signature": signature, "Content-Type": "application/json"}
        return (await asyncio.to_thread(post, f"http://127.0.0.1:{self.port}/webhooks", body, headers))[0]


@contextlib.asynccontextmanager
async def app_in_cluster(folder: Path) -> AsyncIterator[tuple[RunningApp, Cluster]]:
    """Runs the application with two gateways, which check its tokens, and presence, which sends it events."""
    port = free_port()
    auth = {"MODE": "token", "ISSUER": ISSUER, "AUDIENCE": "parley", "SECRET": TOKEN_SECRET}
    webhook = {"url": f"http://127.0.0.1:{port}/webhooks", "secret": WEBHOOK_SECRET, "events": ["message"]}
    presence = {
        "PARLEY__API__KEYS": f"house:publish+moderate=sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}",
        "PARLEY__WEBHOOKS": json.dumps([{**webhook, "rooms": ["#app-*"]}]),
        "PARLEY__CALLBACKS__ALLOW_PRIVATE": "true",
    }
    gateways = {f"PARLEY__AUTH__{name}": value for name, value in auth.items()}
    async with asyncio.timeout(90), Cluster(**gateways) as cluster:
        app = RunningApp(folder, await cluster.start_presence(**presence), port)

        async def is_leading() -> bool:
            return isinstance((await cluster.ctl("webhooks"))["leader"], str)

        async with app.running():
            await eventually(is_leading, "webhooks are sent", 20)
            yield app, cluster


async def advertise(url: str, token: str) -> int:
    """Advertises in a room, and returns the number with which the connection ends."""
    async with connect(url, subprotocols=[Subprotocol("parley.v1")]) as socket:
        register, join = {"type": "register", "token": token}, {"type": "join", "room": "#app-tea"}
        for request in (register, join, {"type": "send", "to": "#app-tea", "body": "Buy now!"}):
            await socket.send(json.dumps(request))
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
        return socket.close_code or 0


async def test_app_answers_users_and_bans_one(tmp_path: Path) -> None:
    async with app_in_cluster(tmp_path) as (app, cluster):
        for name in ("ann", "eve"):
            app.add(name, f"password of {name}")
        eve = await app.token("eve", "password of eve")
        async with Parley(cluster.urls[0], get_token=lambda: app.token("ann", "password of ann")) as ann:
            assert ann.nick == "ann"
            with pytest.raises(ParleyError, match="forbidden"):
                await ann.join("#another")
            room = await ann.join("#app-tea")
            messages = aiter(room)
            await room.send("!rules")
            question, answer = await take(messages, 2)
            assert (question.sender, question.own, question.from_user) == ("ann", True, "user:ann")
            assert (answer.sender, answer.own, answer.from_user, answer.from_api) == ("house", False, None, True)
            assert str(answer.body).startswith("Be kind")

            assert await advertise(cluster.urls[1], eve) == BANNED
            assert bodies(await take(messages, 1)) == ["Buy now!"]
            assert await app.login("eve", "password of eve") == (403, {"error": "this account is banned"})
            with pytest.raises(ParleyError, match="banned: advertising"):
                async with Parley(cluster.urls[0], token=eve):
                    pass
            await room.send("still here")
            assert bodies(await take(messages, 1)) == ["still here"]


class FailingApi(BaseHTTPRequestHandler):
    """A server API that answers with the given statuses, then with 200."""

    calls: list[Any]
    statuses: list[int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    FailingApi.calls, FailingApi.statuses = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FailingApi)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def delivery(*ids: str, body: Any = "!rules", **fields: Any) -> bytes:
    """Returns a delivery with a message for each id."""
    message = {"type": "message", "room": "#app-tea", "from": "ann", "user": "user:ann", "body": body, **fields}
    return json.dumps({"sent": 1, "events": [{"id": id, **message} for id in ids]}).encode()


def signed(body: bytes, seconds_ago: int = 0, secret: str = WEBHOOK_SECRET) -> str:
    """Returns the signature that Parley made so many seconds ago."""
    seconds = int(time.time()) - seconds_ago
    return f"t={seconds},v1={hmac.digest(secret.encode(), f'{seconds}.'.encode() + body, 'sha256').hex()}"


def keys() -> list[str]:
    return [body["key"] for _, _, body in FailingApi.calls]


async def test_app_refuses_forged_and_stale_deliveries(tmp_path: Path, api: str) -> None:
    app, body = RunningApp(tmp_path, api, free_port()), delivery("m1")
    good = signed(body)
    async with app.running():
        for signature in (
            signed(body, 301),
            signed(body, -310),
            signed(body, secret="another secret"),
            signed(delivery("m2")),
            good.replace("v1=", "v2="),
            good.replace("t=", "t=1"),
            good.replace("t=", "u="),
            "t=²,v1=é",
            "",
        ):
            assert await app.deliver(body, signature) == 401, signature
        assert keys() == []
        assert await app.deliver(body, f"{good},v1=00") == 204
        assert keys() == ["rules-m1"]


async def test_app_handles_each_event_once(tmp_path: Path, api: str) -> None:
    app, body = RunningApp(tmp_path, api, free_port()), delivery("m1", "m2")
    async with app.running():
        FailingApi.statuses = [200, 503]
        assert await app.deliver(body, signed(body)) == 503
        assert await app.deliver(body, signed(body)) == 204
        assert keys() == ["rules-m1", "rules-m2", "rules-m2"], "only what failed comes again, under its key"
    async with app.running():
        more = delivery("m1", "m2", "m3")
        assert await app.deliver(more, signed(more)) == 204
        assert keys()[3:] == ["rules-m3"], "after a restart too"
        assert FailingApi.calls[-1][:2] == ("/v1/messages", f"Bearer {API_KEY}")


async def test_app_ignores_what_asks_nothing(tmp_path: Path, api: str) -> None:
    app = RunningApp(tmp_path, api, free_port())
    async with app.running():
        events: list[dict[str, Any]] = [{"from_api": True}, {"body": {"a": 1}}, {"type": "gap"}, {"body": "hi"}]
        for number, fields in enumerate(events):
            body = delivery(f"m{number}", **fields)
            assert await app.deliver(body, signed(body)) == 204
        assert keys() == []
        FailingApi.statuses = [404, 403, 401, 413, 429]
        for number in range(10, 14):
            body = delivery(f"m{number}")
            assert await app.deliver(body, signed(body)) == 204, "the refusal would be the same again"
        body = delivery("m14")
        assert [await app.deliver(body, signed(body)) for _ in range(2)] == [503, 204]


def test_app_adds_nicknames_once(tmp_path: Path) -> None:
    app = RunningApp(tmp_path, "http://127.0.0.1:9", 0)
    app.add("john.doe-1", "secret")
    assert app.try_add("john.doe-1", "secret") == "there is a user john.doe-1 already\n"
    for name in ("", "a b", "a@b", "-a", "Ann", "ä", "a" * 49, "ann\n"):
        assert app.try_add(name, "secret").startswith("a name has 1 to 48"), name


async def test_app_refuses_wrong_passwords_and_bodies(tmp_path: Path, api: str) -> None:
    app = RunningApp(tmp_path, api, free_port())
    app.add("ann", "right")
    async with app.running():
        wrong = (401, {"error": "name or password is wrong"})
        assert await app.login("ann", "wrong") == await app.login("bob", "right") == wrong
        assert (await app.login("ann", "right"))[0] == 200
        url = f"http://127.0.0.1:{app.port}"
        bad = (b"", b"[]", b"{}", b"[" * 4000, b'{"name":"\\ud800","password":"x"}', b"\xff")
        assert [post(f"{url}/login", body, {})[0] for body in bad] == [400] * len(bad)
        assert post(f"{url}/login", b" " * 4097, {})[0] == 413
        assert post(f"{url}/elsewhere", b"{}", {})[0] == 404
        # Nothing is read of a body that is too large for a delivery, or whose length is no number.
        for length in ("1048577", "9" * 5000, "x"):
            assert post(f"{url}/webhooks", b"", {"Content-Length": length})[0] == 413


def test_app_is_short_and_described() -> None:
    assert len(APP.read_text().splitlines()) <= LINES_MAX
    readme = APP.with_name("README.md").read_text()
    names = ("TOKEN_SECRET", "TOKEN_ISSUER", "API_KEY", "API_URL", "WEBHOOK_SECRET", "APP_PORT", "APP_DATABASE")
    assert [name for name in names if name not in readme or name not in APP.read_text()] == []
