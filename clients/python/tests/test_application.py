"""Messages of the application behind the chat, as its users receive them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

from cluster import Cluster, eventually
from talking import bodies, take
from test_app import API_KEY, post

from parley_chat import Announcement, Parley

KEYS = f"backend:publish=sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}"


async def call(api: str, path: str, **fields: Any) -> None:
    """Calls the server API."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    status, answer = await asyncio.to_thread(post, api + path, json.dumps(fields).encode(), headers)
    assert status == 200, answer


async def test_application_under_the_own_nickname_is_another(cluster: Cluster) -> None:
    api = await cluster.start_presence(PARLEY__API__KEYS=KEYS)
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        room = await ann.join("#lobby")
        await room.send("hi")
        await call(api, "/v1/messages", to="#lobby", **{"from": "ann"}, body="news", key="k1")
        for messages in (await take(aiter(room), 2), list((await room.history()).items)):
            seen = [(message.sender, message.own, message.from_api) for message in messages]
            assert seen == [("ann", True, False), ("ann", False, True)]

        directs, with_bob = ann.directs(), aiter(ann.direct("bob"))
        await call(api, "/v1/messages", to="ann", **{"from": "bob"}, body=1, key="k2")
        await bob.direct("ann").send(2)
        assert [(message.from_api, message.body) for message in await take(directs, 2)] == [(True, 1), (False, 2)]
        assert bodies(await take(with_bob, 1)) == [2], "an answer in this conversation reaches bob"
        assert ann.direct("bob").unread == 1


async def test_announcement_reaches_every_session_once(cluster: Cluster) -> None:
    api = await cluster.start_presence(PARLEY__API__KEYS=KEYS)
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        heard: dict[str, list[Announcement]] = {"ann": [], "bob": []}
        for chat in (ann, bob):
            chat.on("announcement", heard[chat.nick].append)
        for body, key in (({"at": 12}, "a1"), ({"at": 12}, "a1"), ("last", "a2")):
            await call(api, "/v1/announcements", body=body, key=key)
        await eventually(lambda: all(len(got) >= 2 for got in heard.values()), "both got both")
        assert [[got.body for got in all] for all in heard.values()] == [[{"at": 12}, "last"]] * 2
        assert heard["ann"] == heard["bob"]
