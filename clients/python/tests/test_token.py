"""The token of the user in the session machine: when the application is asked, and what a refusal leads to."""

from __future__ import annotations

from typing import Any

import pytest
from played import INBOX, Played, codes

from parley_chat.effects import CloseRoom, DropQuestion
from parley_chat.events import Connecting, Offline, Online, Resuming
from parley_chat.user_token import Identity


async def never() -> None:
    raise AssertionError("the session is pure")


RENEW, TOKEN = ("renew", 0), ("token", 0)


def asking(**identity: Any) -> Played:
    return Played(identity=Identity(**{"nick": "ann", "get_token": never, **identity}))


def registered(played: Played, **fields: Any) -> None:
    """Registers with a token that is valid for 15 minutes."""
    played.session.opened()
    reply = {"nick": "ann", "resume": "t1", "rooms": [], "inbox": INBOX, "heartbeat_ms": 30000, "node": "g1"}
    played.receive("registered", id=0, **{**reply, "user": "user:1", "expires_in_ms": 900_000, **fields})


@pytest.fixture
def online() -> Played:
    """A session that is online with the token `u1`."""
    played = asking()
    played.session.token_answered("u1")
    registered(played)
    played.forget()
    return played


def expire(played: Played, ms: object = 30_000) -> None:
    played.receive("expiring", expires_in_ms=ms)


@pytest.fixture
def renewing(online: Played) -> Played:
    """A session that asks for its second token."""
    online.join()
    expire(online)
    online.session.elapsed(RENEW)
    assert online.questions() == 1
    online.forget()
    return online


def last(played: Played, type: str) -> dict[str, Any]:
    return [frame for frame in played.sent() if frame["type"] == type][-1]


def test_first_token_is_asked_for_before_the_connection() -> None:
    played = asking()
    assert (played.questions(), played.addresses(), played.state()) == (1, [], Connecting())
    assert played.timers() == {TOKEN: (10.0, 0)}
    played.session.token_answered("u1")
    assert played.addresses() == [0]
    registered(played)
    assert last(played, "register")["token"] == "u1"
    assert played.state() == Online("g1", resumed=False, rooms=(), user="user:1")


def test_given_token_is_used_before_any_question() -> None:
    played = asking(token="u0")
    played.session.opened()
    register = last(played, "register")
    assert (played.questions(), register["token"]) == (0, "u0")
    played.refuse(register["id"], "token_expired")
    assert (played.questions(), played.is_dropped()) == (1, True)
    played.session.token_answered("u1")
    played.session.opened()
    assert last(played, "register")["token"] == "u1"


def test_guest_registers_without_a_token() -> None:
    played = asking()
    played.session.token_answered(None)
    registered(played, user=None)
    assert "token" not in last(played, "register")


def test_nickname_of_the_token_is_not_sent() -> None:
    played = asking(nick=None)
    played.session.token_answered("u1")
    registered(played, nick="Ann")
    assert "nick" not in last(played, "register")
    assert played.session.nick == "Ann"
    assert "nick" not in played.reconnect()[0]


def test_reconnect_uses_the_accepted_token_again(online: Played) -> None:
    register = online.reconnect()[0]
    assert (register["token"], register["resume"], online.questions()) == ("u1", "t1", 0)


def test_expiring_token_is_renewed_on_its_connection(online: Played) -> None:
    expire(online)
    assert online.timers()[RENEW] == (0.0, 0)
    online.session.elapsed(RENEW)
    expire(online)
    online.session.elapsed(RENEW)
    assert online.questions() == 1
    online.session.token_answered("u2")
    refresh = last(online, "refresh")
    assert refresh["token"] == "u2"
    online.receive("refreshed", id=refresh["id"], expires_in_ms=900_000, left=[])
    assert not online.is_dropped()
    assert online.reconnect()[0]["token"] == "u2"


def test_short_token_is_renewed_after_half_its_life() -> None:
    played = asking()
    played.session.token_answered("u1")
    registered(played, expires_in_ms=8_000)
    expire(played, 8_000)
    assert played.timers()[RENEW] == (4.0, 0)


@pytest.mark.parametrize("ms", [None, "x", -1, 0, 1e300, True])
def test_announced_time_is_never_trusted_blindly(online: Played, ms: object) -> None:
    online.receive("expiring", expires_in_ms=ms)
    assert 0 <= online.timers()[RENEW][0] <= 15


def test_rooms_that_the_new_token_forbids_are_left(renewing: Played) -> None:
    renewing.session.token_answered("u2")
    renewing.receive("refreshed", id=last(renewing, "refresh")["id"], expires_in_ms=900_000, left=["#TEA"])
    assert renewing.take(CloseRoom) == [CloseRoom("#tea")]


def test_refresh_that_fails_for_a_while_is_repeated(renewing: Played) -> None:
    renewing.session.token_answered("u2")
    renewing.refuse(last(renewing, "refresh")["id"], "unavailable", retry_after_ms=1000)
    assert renewing.timers()[RENEW] == (1.0, 0.5)
    renewing.session.elapsed(RENEW)
    assert (last(renewing, "refresh")["token"], renewing.questions()) == ("u2", 0)


def test_refused_refresh_leads_to_one_more_question(renewing: Played) -> None:
    renewing.session.token_answered("u2")
    renewing.refuse(last(renewing, "refresh")["id"], "token_invalid")
    assert renewing.questions() == 1
    renewing.session.token_answered("u3")
    renewing.timers()
    renewing.refuse(last(renewing, "refresh")["id"], "token_invalid")
    assert (renewing.questions(), RENEW in renewing.timers(), renewing.session.phase) == (0, False, "online")
    renewing.session.closed(4005)
    renewing.session.elapsed(("connect", 0))
    assert renewing.questions() == 1


def test_guest_is_not_renewed_and_ends_as_one(renewing: Played) -> None:
    renewing.session.token_answered(None)
    assert (renewing.sent(), renewing.session.phase) == ([], "online")


def test_closed_connection_resumes_with_a_new_token(online: Played) -> None:
    online.join()
    online.session.closed(4005)
    assert online.state() == Offline("token_expired", will_retry=True)
    online.session.elapsed(("connect", 0))
    assert (online.questions(), online.addresses(), online.state()) == (1, [], Resuming())
    online.session.token_answered("u2")
    online.session.opened()
    register = last(online, "register")
    assert (register["token"], register["resume"]) == ("u2", "t1")
    assert register["since"]["#tea"] == {"epoch": "e", "seq": 0}


def test_session_of_another_user_begins_anew(online: Played) -> None:
    online.session.closed(4005)
    online.session.elapsed(("connect", 0))
    online.session.token_answered("eve")
    online.session.opened()
    online.refuse(last(online, "register")["id"], "resume_failed")
    register = last(online, "register")
    assert (register["token"], "resume" in register) == ("eve", False)


@pytest.mark.parametrize("code", ["token_invalid", "token_required"])
def test_refused_fresh_token_is_final_at_the_second_time(code: str) -> None:
    played = asking()
    call = played.session.call("rooms", {})
    for token in ("u1", "u2"):
        assert (played.questions(), codes(played)) == (1, [])
        played.session.token_answered(token)
        played.session.opened()
        played.refuse(last(played, "register")["id"], code)
    assert (played.questions(), codes(played)) == (0, [(call, code)])
    assert played.state() == Offline(code, will_retry=False)


def test_expired_fresh_tokens_are_waited_for() -> None:
    played = asking()
    waits = []
    for attempt in range(5):
        played.session.token_answered(f"u{attempt}")
        played.session.opened()
        played.refuse(last(played, "register")["id"], "token_expired")
        if attempt > 0:
            assert played.state() == Offline("token_expired", will_retry=True)
            waits.append(played.timers()["connect", 0][1])
            played.session.elapsed(("connect", 0))
    assert waits == [0.5, 1, 2, 4]


@pytest.mark.parametrize("code", ["token_expired", "token_invalid", "token_required"])
def test_token_without_a_source_ends_the_session(code: str) -> None:
    played = asking(token="u1", get_token=None)
    played.session.opened()
    played.refuse(last(played, "register")["id"], code)
    assert played.state() == Offline(code, will_retry=False)


def test_end_of_the_only_token_is_final() -> None:
    played = asking(token="u1", get_token=None)
    registered(played)
    expire(played)
    played.session.closed(4005)
    assert (played.state(), played.questions()) == (Offline("token_expired", will_retry=False), 0)


@pytest.mark.parametrize("answer", [TypeError("a secret"), 7, b"u1", True])
def test_failed_question_is_a_failed_attempt(answer: object) -> None:
    played = asking()
    played.session.token_answered(answer)
    assert played.state() == Offline("no_token", will_retry=True, message="get_token: TypeError")
    assert played.timers()["connect", 0] == (0, 0.5)
    played.session.elapsed(("connect", 0))
    assert played.questions() == 2


def test_question_without_an_answer_is_given_up() -> None:
    played = asking()
    played.session.elapsed(TOKEN)
    assert played.take(DropQuestion)
    assert played.state() == Offline("no_token", will_retry=True, message="get_token: TimeoutError")
    played.session.token_answered("late")
    assert played.addresses() == []


def test_failed_renewals_are_repeated_while_it_is_online(renewing: Played) -> None:
    for jitter in (0.5, 1, 2):
        renewing.session.token_answered(OSError())
        assert (renewing.timers()[RENEW], renewing.session.phase) == ((0.0, jitter), "online")
        renewing.session.elapsed(RENEW)
        assert renewing.questions() == 1


def test_close_never_waits_for_an_answer(renewing: Played) -> None:
    played = asking()
    call = played.session.call("rooms", {})
    played.session.close()
    assert (codes(played), played.session.phase, bool(played.take(DropQuestion))) == ([(call, "closed")], "ended", True)
    renewing.session.close()
    assert renewing.take(DropQuestion)
    renewing.forget()
    renewing.session.token_answered("late")
    assert renewing.sent() == []


def test_loss_of_the_connection_ends_a_question(renewing: Played) -> None:
    renewing.session.closed(None)
    assert renewing.take(DropQuestion)
    renewing.session.elapsed(("connect", 0))
    assert renewing.questions() == 1


def test_token_is_in_no_description_and_no_error() -> None:
    assert "secret" not in repr(Identity("ann", token="secret"))
    played = asking(token="secret")
    played.session.opened()
    played.refuse(last(played, "register")["id"], "token_invalid")
    assert "secret" not in repr(played.session.effects)
