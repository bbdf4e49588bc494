"""Users with tokens on a real cluster. The tokens live for 8 seconds, so a test sees several of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, eventually
from talking import bodies, take
from test_examples import readme_block

from parley_chat import FileStorage, Offline, Online, Parley, ParleyError, Room

SECRET = "the secret that the application shares with its gateways"
ISSUER = "https://id.example.org"
SHORT, LONG = 3, 600
"""Seconds of a token. The clocks of a gateway may differ by 5 s, so it admits the token longer."""


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Runs Redis and two gateways that check tokens."""
    settings = {"MODE": "token", "ISSUER": ISSUER, "AUDIENCE": "parley", "SECRET": SECRET}
    variables = {f"PARLEY__AUTH__{name}": value for name, value in settings.items()}
    async with asyncio.timeout(90), Cluster(**variables) as cluster:
        yield cluster


def token(sub: str, seconds: int, secret: str = SECRET, **claims: Any) -> str:
    """Signs a token (JWT)."""
    exp = int(time.time()) + seconds

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    payload = {"iss": ISSUER, "aud": "parley", "sub": sub, "exp": exp, **claims}
    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, payload))
    return f"{signed}.{part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


async def talk(room: Room, is_done: Callable[[], bool]) -> int:
    """Sends numbers one after the other, and returns how many."""
    sent = 0
    while not is_done():
        await room.send(sent)
        sent += 1
    return sent


async def test_two_refreshes_lose_and_double_nothing(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "parley_chat")
    tokens: list[str] = []

    async def get_token() -> str:
        tokens.append(token("user:1", SHORT, nick="Ann"))
        return tokens[-1]

    stored = tmp_path / "ann.json"
    there = Parley(cluster.urls[1], nick="bob", token=token("user:2", LONG))
    async with Parley(cluster.urls[0], get_token=get_token, storage=FileStorage(stored)) as ann, there as bob:
        states: list[object] = []
        ann.on("state", states.append)
        assert isinstance(ann.state, Online) and (ann.nick, ann.state.user) == ("Ann", "user:1")
        rooms = await ann.join("#refresh"), await bob.join("#refresh")
        heard = [aiter(room) for room in rooms]
        sent = 0
        while len(tokens) < 4:
            await rooms[sent % 2].send(sent)
            for messages in heard:
                assert bodies(await take(messages, 1)) == [sent]
            sent += 1
        assert states == [], "one connection for all tokens"
    for part in (part for token in tokens for part in token.split(".")[1:]):
        assert part not in stored.read_text() and part not in caplog.text


async def test_missed_refresh_ends_in_a_resume_without_loss(cluster: Cluster) -> None:
    asked, cancelled = list[int](), asyncio.Event()

    async def get_token() -> str:
        asked.append(len(asked))
        if len(asked) == 2:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return token("user:1", SHORT if len(asked) == 1 else LONG)

    there = Parley(cluster.urls[1], nick="bob", token=token("user:2", LONG))
    async with Parley(cluster.urls[0], nick="ann", get_token=get_token) as ann, there as bob:
        rooms = await ann.join("#late"), await bob.join("#late")
        heard = [aiter(room) for room in rooms]
        sent = await talk(rooms[1], lambda: len(asked) == 3 and ann.state.name == "online")
        for messages in heard:
            assert bodies(await take(messages, sent)) == [*range(sent)]
        assert isinstance(ann.state, Online) and ann.state.resumed and cancelled.is_set()


async def test_readme_example_signs_in(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    async def sign_token(user: str) -> str:
        return token(user, LONG)

    names: dict[str, Any] = {"Parley": Parley, "gateways": cluster.urls, "sign_token": sign_token}
    source = "async def example():\n" + textwrap.indent(readme_block("python signin"), "    ")
    exec(compile(source, "README.md", "exec"), names)
    await names["example"]()
    assert capsys.readouterr().out == "user:1\n"


async def test_refused_tokens_end_with_a_clear_error(cluster: Cluster) -> None:
    asked: list[int] = []

    async def forged() -> str:
        asked.append(1)
        return token("user:3", LONG, secret="not the secret of the gateways, but one as long")

    async def guest() -> None:
        return None

    for chat, code in (
        (Parley(cluster.urls, nick="eve", get_token=forged), "token_invalid"),
        (Parley(cluster.urls, nick="guest", get_token=guest), "token_required"),
        (Parley(cluster.urls, nick="old", token=token("user:4", -60)), "token_expired"),
    ):
        with pytest.raises(ParleyError) as refusal:
            async with chat:
                pass
        assert refusal.value.code == code
    assert len(asked) == 2


async def test_another_user_does_not_continue_a_session(cluster: Cluster, tmp_path: Path) -> None:
    stored = tmp_path / "session.json"
    first = Parley(cluster.urls, nick="uno", storage=FileStorage(stored), token=token("user:5", LONG))
    async with first as one:
        await (await one.join("#mine")).send("hi")
        second = Parley(cluster.urls[1], nick="duo", storage=FileStorage(stored), token=token("user:6", LONG))
        async with second as two:
            assert isinstance(two.state, Online) and not two.state.resumed and two.state.user == "user:6"
            assert one.state.name == "online"


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_close_never_waits_for_a_token(is_stubborn: bool) -> None:
    began, end = asyncio.Event(), asyncio.Event()

    async def get_token() -> None:
        began.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                if not is_stubborn:
                    raise

    chat = Parley("ws://127.0.0.1:9/ws", get_token=get_token)
    entering = asyncio.create_task(chat.__aenter__())
    await began.wait()
    async with asyncio.timeout(5):
        await chat.close()
    assert chat.state == Offline("closed", will_retry=False)
    with pytest.raises(ParleyError):
        await entering
    end.set()
    await eventually(lambda: not any(task.get_name() == "parley token" for task in asyncio.all_tasks()), "it has ended")


async def test_function_that_raises_is_asked_again() -> None:
    asked: list[int] = []

    async def get_token() -> None:
        asked.append(1)
        raise OSError("a secret")

    chat = Parley("ws://127.0.0.1:9/ws", get_token=get_token)
    entering = asyncio.create_task(chat.__aenter__())
    await eventually(lambda: len(asked) > 1, "the question is repeated")
    assert chat.state.name != "offline" or "secret" not in str(chat.state)
    await chat.close()
    with pytest.raises(ParleyError):
        await entering
