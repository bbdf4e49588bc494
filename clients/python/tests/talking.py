"""Steps that several stories share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import TypeAlias

from parley_chat import FeedIterator, Message, Online, Parley, Room

NewParley: TypeAlias = Callable[..., Parley]
"""The constructor of a client, with the format of a test."""


async def take(messages: FeedIterator[Message], count: int) -> list[Message]:
    """Returns the next messages, within a time limit."""
    async with asyncio.timeout(40):
        return [await anext(messages) for _ in range(count)]


def bodies(messages: list[Message]) -> list[object]:
    """Returns the bodies of messages."""
    return [message.body for message in messages]


async def send_all(room: Room, count: int) -> None:
    """Sends numbered messages one after the other."""
    for number in range(count):
        await room.send(number)


def node(chat: Parley) -> str:
    """Returns the gateway that the client is connected to."""
    return chat.state.node if isinstance(chat.state, Online) else "none"


async def read_to_the_end(messages: AsyncIterable[Message]) -> None:
    """Takes all messages until the iterator ends."""
    async for _message in messages:
        pass
