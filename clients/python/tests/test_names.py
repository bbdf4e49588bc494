"""Names that are the same to the server are the same to a client, on a real gateway."""

from __future__ import annotations

import json

from cluster import REPOSITORY, Cluster

from parley_chat import Parley, ParleyError


async def whois(chat: Parley, nick: str) -> str:
    """Returns the nickname as it is shown, or the code of the refusal."""
    try:
        return (await chat.whois(nick)).nick
    except ParleyError as refusal:
        return refusal.code


async def test_client_and_server_agree_about_equal_names(cluster: Cluster) -> None:
    table = json.loads((REPOSITORY / "clients" / "names.json").read_text())
    async with Parley(cluster.urls[0], nick="ann") as ann, Parley(cluster.urls[1], nick="bob") as bob:
        for name, other, is_same in table["pairs"] + table["old_cyrillic"]:
            what = f"{name} {other}"
            room = await ann.join(f"#{name}")
            assert ((await bob.join(f"#{other}")).name == room.name) is is_same, f"rooms of the server: {what}"
            await ann.rename(name)
            found = await whois(bob, other)
            assert found == (ann.nick if is_same else "no_such_user"), f"nicknames of the server: {what}"
            assert ((await ann.join(f"#{other}")) is room) is is_same, f"rooms: {what}"
            assert (bob.direct(name) is bob.direct(other)) is is_same, f"conversations: {what}"
