"""Sends: their order, their repetition after losses and refusals, and the life of their keys."""

from __future__ import annotations

import pytest
from played import Played, codes

from parley_chat.calls import KEY_SECONDS
from parley_chat.effects import ClearTimer


@pytest.fixture
def online() -> Played:
    played = Played()
    played.register()
    played.forget()
    return played


def test_sends_to_one_target_go_one_by_one(online: Played) -> None:
    calls = [online.send("#tea", body, f"k{body}") for body in range(3)]
    other = online.send("bob", 9, "k9")
    assert [frame["body"] for frame in online.sent()] == [0, 9]
    online.refuse(calls[0], "overloaded")
    online.receive("ack", id=other, to="bob", msg_id="m9", time=1, delivered="online", duplicate=False)
    assert online.sent() == []
    online.session.elapsed(("retry", calls[0]))
    online.receive("ack", id=calls[0], to="#tea", msg_id="m0", seq=1, time=1, duplicate=False)
    assert [frame["body"] for frame in online.sent()] == [0, 1]


def test_send_is_repeated_unchanged_after_losses(online: Played) -> None:
    body = {"text": "tea?"}
    online.send(body=body)
    first = online.sent()
    body["text"] = "changed by the application"
    assert online.reconnect()[1:] == first
    assert online.reconnect()[1:] == first


def test_send_gives_up_before_its_key_expires(online: Played) -> None:
    call = online.send()
    expire = ("expire", call)
    assert online.timers()[expire] == (KEY_SECONDS, 0)
    for _ in range(2):
        online.reconnect()
        online.refuse(call, "overloaded")
        assert expire not in online.timers()
        assert expire not in [effect.timer for effect in online.take(ClearTimer)]
    online.session.elapsed(("expire", call))
    assert codes(online) == [(call, "outcome_unknown")]


def test_refused_send_waits_without_a_limit(online: Played) -> None:
    call = online.send()
    online.forget()
    online.refuse(call, "overloaded")
    assert ("expire", call) in [effect.timer for effect in online.take(ClearTimer)]
    online.session.elapsed(("retry", call))
    assert online.timers()["expire", call] == (KEY_SECONDS, 0)
    waiting = Played()
    call = waiting.send()
    waiting.session.closed(None)
    assert ("expire", call) not in waiting.timers()
