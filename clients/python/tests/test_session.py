"""Rules of the session machine, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from played import Played, codes

from parley_chat.effects import ClearTimer, CloseRoom, Deliver
from parley_chat.errors import CLOSE_NAMES, FINAL_CLOSES, ParleyError
from parley_chat.events import Connecting, Message, Offline, Online, Resuming


@pytest.fixture
def online() -> Played:
    played = Played()
    played.register()
    played.forget()
    return played


def test_registration_resumes_with_newest_token() -> None:
    played = Played()
    assert played.state() == Connecting()
    played.session.opened()
    assert played.sent() == [{"type": "register", "id": 1, "nick": "ann"}]
    played.register(token="t1")
    assert played.state() == Online("g1", resumed=False, rooms=())
    played.join("#tea", seq=7)
    frames = played.reconnect(token="t2", rooms=("#tea",))
    since = {"#tea": {"epoch": "e", "seq": 7}, "@": {"epoch": "i", "seq": 0}}
    assert frames[0] == {"type": "register", "id": frames[0]["id"], "nick": "ann", "resume": "t1", "since": since}
    assert [frame["type"] for frame in frames[1:]] == ["members"]
    assert played.reconnect(token="t3")[0]["resume"] == "t2"


@pytest.mark.parametrize("number", [*CLOSE_NAMES, None])
def test_close_number_decides_about_reconnecting(online: Played, number: int | None) -> None:
    call = online.send()
    online.session.closed(number)
    name = CLOSE_NAMES.get(number or 0, "connection_lost")
    if number in FINAL_CLOSES:
        assert codes(online) == [(call, name)]
        assert online.session.phase == "ended"
        assert codes_of_new_call(online) == [name]
    else:
        assert online.state() == Offline(name, will_retry=True)
        online.session.elapsed(("connect", 0))
        assert online.state() == Resuming()


def codes_of_new_call(played: Played) -> list[str]:
    played.session.call("rooms", {})
    return [code for _call, code in codes(played)]


def test_waiting_time_doubles_up_to_thirty_seconds() -> None:
    played = Played(addresses=3)
    assert played.addresses() == [0]
    jitters, addresses = [], []
    for _ in range(8):
        played.session.failed()
        jitters.append(played.timers()["connect", 0])
        played.session.elapsed(("connect", 0))
        addresses += played.addresses()
    assert jitters == [(0, limit) for limit in (0.5, 1, 2, 4, 8, 16, 30, 30)]
    assert addresses == [1, 2, 0, 1, 2, 0, 1, 2]


def test_permanent_http_refusal_ends_after_all_addresses() -> None:
    played = Played(addresses=2)
    played.session.failed(ParleyError("not_found", "no such page"))
    assert played.state() == Offline("connection_lost", will_retry=True)
    played.session.elapsed(("connect", 0))
    played.session.failed(ParleyError("not_found", "no such page"))
    assert played.state() == Offline("not_found", will_retry=False, message="no such page")


TEMPORARY = [
    "rate_limited",
    "slow_mode",
    "overloaded",
    "unavailable",
    "hook_unavailable",
    "outcome_unknown",
    "going_away",
    "internal",
]


@pytest.mark.parametrize("code", TEMPORARY)
@pytest.mark.parametrize("type", ["send", "join", "leave", "status", "nick", "rooms", "history", "whois"])
def test_temporary_refusals_are_repeated(online: Played, type: str, code: str) -> None:
    fields: dict[str, Any] = {"room": "#tea"} if type in ("join", "leave") else {"to": "#tea", "body": 1, "key": "k"}
    call = online.session.call(type, fields)
    first = online.sent()
    online.refuse(call, code, retry_after_ms=1500)
    assert online.timers()["retry", call] == (1.5, 0)
    online.session.elapsed(("retry", call))
    assert online.sent() == first
    online.refuse(call, code)
    assert online.timers()["retry", call] == (0, 1)
    assert codes(online) == []


def test_permanent_refusals_settle_the_call(online: Played) -> None:
    call = online.send()
    online.refuse(call, "not_in_room")
    assert codes(online) == [(call, "not_in_room")]
    online.refuse(call, "not_in_room")
    assert codes(online) == []


def test_refusal_without_id_answers_oldest_request(online: Played) -> None:
    calls = [online.session.call("rooms", {}) for _ in range(3)]
    online.receive("rooms", id=calls[0], items=[], next_cursor=None)
    online.session.cancel(calls[1])
    online.forget()
    online.receive("error", code="bad_request", message="")
    assert codes(online) == []
    online.receive("error", code="bad_request", message="")
    assert codes(online) == [(calls[2], "bad_request")]


def test_lost_session_joins_again_with_positions(online: Played) -> None:
    online.join("#tea", seq=7)
    uncertain = online.send()
    online.session.closed(None)
    certain = online.send(key="k2")
    online.session.elapsed(("connect", 0))
    online.session.opened()
    online.forget()
    online.receive("error", id=0, code="resume_failed", message="")
    assert codes(online) == [(uncertain, "outcome_unknown")]
    assert [set(frame) for frame in online.sent()] == [{"type", "id", "nick"}]
    fields = {"nick": "ann", "resume": "t9", "rooms": [], "inbox": {"epoch": "j", "seq": 4}}
    online.receive("registered", id=0, **fields, heartbeat_ms=30000, node="g1")
    [join] = online.sent()
    assert (join["type"], join["since"]) == ("join", {"epoch": "e", "seq": 7})
    online.receive("joined", id=join["id"], room="#tea", epoch="e", seq=9, recovered=True)
    assert [frame["id"] for frame in online.sent() if frame["type"] == "send"] == [certain]


def test_wake_retries_at_once_or_checks(online: Played) -> None:
    online.session.wake()
    [ping] = online.sent()
    assert (ping["type"], online.timers()["answer", 0]) == ("ping", (2, 0))
    online.session.wake()
    assert ("answer", 0) not in online.timers(), "the first time limit stays"
    online.session.elapsed(("answer", 0))
    assert online.state() == Offline("connection_lost", will_retry=True)
    online.forget()
    online.session.wake()
    assert online.take(ClearTimer) == [ClearTimer(("connect", 0))]
    assert (online.addresses(), online.state()) == ([0], Resuming())
    online.session.wake()
    assert online.session.effects == [], "an attempt is under way"


def test_offline_state_has_the_text_of_the_server() -> None:
    played = Played()
    played.session.opened()
    played.receive("error", id=1, code="unavailable", message="try later")
    assert played.state() == Offline("unavailable", will_retry=True, message="try later")
    played.session.elapsed(("connect", 0))
    played.session.failed(ParleyError("overloaded", "too many connections", 7))
    assert played.timers()["connect", 0] == (7, 1)
    assert played.state() == Offline("overloaded", will_retry=True, message="too many connections")
    played.session.elapsed(("connect", 0))
    played.session.opened()
    played.receive("error", id=1, code="bad_nick", message="too long")
    assert played.state() == Offline("bad_nick", will_retry=False, message="too long")


def test_going_away_works_until_the_close() -> None:
    played = Played(addresses=2)
    played.register()
    played.forget()
    call = played.session.call("rooms", {})
    played.receive("going_away", retry_after_ms=1500)
    played.receive("rooms", id=call, items=[], next_cursor=None)
    played.forget()
    played.send()
    assert [frame["type"] for frame in played.sent()] == ["send"]
    assert not played.is_dropped()
    played.session.closed(1012)
    assert played.state() == Resuming()
    assert played.addresses() == [1]


def test_close_after_going_away_reconnects_at_once(online: Played) -> None:
    online.session.call("rooms", {})
    online.receive("going_away", retry_after_ms=1500)
    online.session.closed(1012)
    assert online.addresses() == [0]


def test_silence_is_answered_with_a_ping(online: Played) -> None:
    online.message(1)
    assert online.timers()["heartbeat", 0] == (30, 0)
    online.session.elapsed(("heartbeat", 0))
    [ping] = online.sent()
    assert ping["type"] == "ping"
    assert online.timers()["answer", 0] == (10, 0)
    online.receive("pong", id=ping["id"])
    assert online.session.phase == "online"
    online.session.elapsed(("answer", 0))
    assert online.is_dropped()
    assert online.state() == Offline("connection_lost", will_retry=True)


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_held_nickname_is_tried_again(seconds: float | None) -> None:
    played = Played()
    if seconds is None:
        # The answer to an own `register` was lost, and holds the nickname.
        played.session.opened()
        played.session.closed(None)
        played.session.elapsed(("connect", 0))
    played.session.opened()
    played.forget()
    played.refuse(0, "nick_in_use", **({} if seconds is None else {"retry_after_ms": seconds * 1000}))
    assert played.timers()["connect", 0][0] == (seconds or 0)
    assert played.session.phase == "waiting"


def test_used_nickname_ends_until_renamed(online: Played) -> None:
    online.join("#tea", seq=7)
    online.session.closed(None)
    online.session.elapsed(("connect", 0))
    online.session.opened()
    call = online.send()
    online.forget()
    online.refuse(0, "nick_in_use")
    assert codes(online) == [(call, "nick_in_use")]
    assert [effect.key for effect in online.take(CloseRoom)] == ["#tea"]
    renamed = online.session.call("nick", {"nick": "anna"}, lane="nick")
    online.session.opened()
    assert [frame["nick"] for frame in online.sent()] == ["anna"]
    online.register(nick="anna", rooms=("#tea",))
    online.receive("nick", id=renamed, nick="anna")
    assert [settle.call for settle in online.settled()] == [renamed]


def test_rename_begins_nothing_after_close() -> None:
    played = Played()
    played.session.opened()
    played.refuse(0, "bad_nick")
    played.session.close()
    played.forget()
    call = played.session.call("nick", {"nick": "anna"}, lane="nick")
    assert codes(played) == [(call, "bad_nick")]
    assert played.addresses() == []


def test_held_nickname_refuses_a_rename(online: Played) -> None:
    call = online.session.call("nick", {"nick": "bob"}, lane="nick")
    online.refuse(call, "nick_in_use", retry_after_ms=60000)
    [settle] = online.settled()
    assert isinstance(settle.outcome, ParleyError) and settle.outcome.retry_after == 60


def test_own_messages_stay_own_after_rename(online: Played) -> None:
    online.join()
    call = online.send()
    online.receive("ack", id=call, to="#tea", msg_id="m1", seq=1, time=1, duplicate=False)
    renamed = online.session.call("nick", {"nick": "anna"}, lane="nick")
    online.receive("nick", id=renamed, nick="anna")
    online.forget()
    for seq, sender in enumerate(("ann", "anna", "ann"), start=1):
        online.message(seq, sender=sender)
    events = [effect.event for effect in online.take(Deliver)]
    assert [event.own for event in events if isinstance(event, Message)] == [True, True, False]


def test_whois_returns_the_reply(online: Played) -> None:
    call = online.session.call("whois", {"nick": "bob"})
    assert online.sent() == [{"type": "whois", "id": call, "nick": "bob"}]
    reply = {"nick": "bob", "online": True, "status": "online", "text": ""}
    online.receive("whois", id=call, **reply)
    assert [(settle.call, settle.outcome) for settle in online.settled()] == [
        (call, {"type": "whois", "id": call, **reply})
    ]


def test_unknown_events_and_fields_are_ignored(online: Played) -> None:
    online.join()
    online.receive("celebration", to="#tea", balloons=99)
    online.receive("presence", room="#elsewhere", joined=[{"nick": "eve", "status": "online"}])
    online.message(1, room="#elsewhere")
    assert online.take(Deliver) == []
