"""Streams, members and announcements: what a session delivers, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from played import Played

from parley_chat.effects import Announce, CloseRoom, Deliver, Drop, OpenRoom
from parley_chat.events import Announcement, Gap, Member, MembersChanged, Message, Rewind


@pytest.fixture
def online() -> Played:
    played = Played()
    played.register()
    played.join("#tea", seq=4)
    return played


def delivered(played: Played) -> list[Any]:
    """Returns the new events: messages as their seq."""
    events = [effect.event for effect in played.take(Deliver)]
    return [event.seq if isinstance(event, Message) else event for event in events]


def test_messages_are_delivered_once(online: Played) -> None:
    for seq in (4, 5, 5, 6, 3):
        online.message(seq)
    assert delivered(online) == [5, 6]


def test_message_of_the_application_is_never_own(online: Played) -> None:
    for seq, fields in ((5, {}), (6, {"from_api": True})):
        online.receive("message", to="#tea", **{"from": "ann"}, msg_id=f"m{seq}", seq=seq, time=1, body=seq, **fields)
    events = [effect.event for effect in online.take(Deliver)]
    seen = [(event.own, event.from_api) for event in events if isinstance(event, Message)]
    assert seen == [(True, False), (False, True)]


def test_gap_moves_the_position(online: Played) -> None:
    online.receive("gap", to="#tea", from_seq=3, to_seq=8)
    online.message(8)
    online.message(9)
    assert delivered(online) == [Gap(5, 8), 9]


def test_rewind_marks_repeated_messages(online: Played) -> None:
    for seq in (5, 6, 7):
        online.message(seq)
    online.receive("rewound", to="#tea", epoch="f", seq=5)
    online.message(6, msg_id="m7")
    online.message(7, msg_id="new")
    events = [effect.event for effect in online.take(Deliver)][3:]
    assert events[0] == Rewind(5)
    assert [(event.seq, event.repeated) for event in events if isinstance(event, Message)] == [(6, True), (7, False)]
    assert online.reconnect(rooms=("#tea",))[0]["since"]["#tea"] == {"epoch": "f", "seq": 7}


def test_epoch_changes_the_next_position(online: Played) -> None:
    online.receive("epoch", to="#tea", epoch="f", seq=4)
    assert online.reconnect(rooms=("#tea",))[0]["since"]["#tea"] == {"epoch": "f", "seq": 4}
    assert delivered(online) == []


def test_removal_by_a_moderator_closes_the_room(online: Played) -> None:
    online.receive("moderation", room="#tea", action="kick", nick="ann", time=1)
    assert online.take(CloseRoom) == []
    online.receive("left", room="#tea", reason="kicked", by="bob")
    assert online.take(CloseRoom) == [CloseRoom("#tea")]


def test_inbox_keeps_a_position_of_its_own(online: Played) -> None:
    online.message(1, room="ann")
    online.receive("rewound", to="@", epoch="j", seq=0)
    online.message(1, room="ann", msg_id="m1")
    assert online.reconnect()[0]["since"]["@"] == {"epoch": "j", "seq": 1}


def test_paused_room_continues_over_another_connection(online: Played) -> None:
    online.message(5)
    online.session.pause("#tea")
    online.message(6)
    assert delivered(online) == [5]
    online.session.unpause("#tea")
    assert len(online.take(Drop)) == 1
    online.register(rooms=("#tea",))
    assert online.sent()[0]["since"]["#tea"] == {"epoch": "e", "seq": 5}


def test_room_paused_during_a_loss_joins_again(online: Played) -> None:
    online.session.pause("#tea")
    assert "#tea" not in online.reconnect(rooms=("#tea",))[0]["since"]
    online.session.unpause("#tea")
    [join] = online.sent()
    assert (join["type"], join["since"]) == ("join", {"epoch": "e", "seq": 4})


def test_members_follow_presence_in_order(online: Played) -> None:
    change: dict[str, Any] = {
        "joined": [{"nick": "bob", "status": "online"}],
        "left": [{"nick": "bob", "reason": "closed"}],
        "renamed": [{"from": "ann", "to": "anna"}],
        "status": [{"nick": "anna", "status": "away", "text": "tea"}],
    }
    online.receive("presence", room="#tea", **change)
    members = online.session.rooms.by_name["#tea"].members.by_nick
    assert members == {"bob": Member("bob", "online"), "anna": Member("anna", "away", "tea")}
    [event] = delivered(online)
    assert (event.left, event.renamed) == ((("bob", "closed"),), (("ann", "anna"),))


def test_resync_loads_members_with_later_changes(online: Played) -> None:
    online.receive("presence", room="#tea", resync=True)
    [request] = online.sent()
    online.receive("presence", room="#tea", left=[{"nick": "eve", "reason": "closed"}])
    page = {"room": "#tea", "items": [{"nick": "ann", "status": "online"}, {"nick": "eve", "status": "online"}]}
    online.receive("members", id=request["id"], **page, next_cursor="c")
    [second] = online.sent()
    assert second["cursor"] == "c"
    page["items"] = [{"nick": "bob", "status": "online"}]
    online.receive("members", id=second["id"], **page, next_cursor=None)
    assert set(online.session.rooms.by_name["#tea"].members.by_nick) == {"ann", "bob"}
    assert delivered(online)[-1] == MembersChanged(resync=True)


def test_join_continues_after_the_stored_position() -> None:
    position = {"epoch": "e", "seq": 7}
    played = Played(stored={"token": "t0", "positions": {"#Tea": position, "@": position}})
    played.session.opened()
    assert played.sent()[0]["since"] == {"@": position}
    played.register(rooms=("#Tea",))
    call = played.session.call("join", {"room": "#tea"}, lane="#tea")
    assert played.sent()[-1]["since"] == position
    played.receive("joined", id=call, room="#Tea", epoch="e", seq=9, recovered=True)
    played.message(7, room="#Tea")
    played.message(8, room="#Tea")
    assert delivered(played) == [8]


def test_resumed_inbox_without_position_starts_at_read_mark() -> None:
    played = Played(stored={"token": "t0"})
    played.session.opened()
    fields = {"nick": "ann", "resume": "t1", "rooms": [], "inbox": {"epoch": "i", "seq": 9}}
    played.receive("registered", id=0, **fields, heartbeat_ms=30000, node="g1")
    played.message(8, room="ann")
    assert delivered(played) == [8]
    assert played.reconnect()[0]["since"] == {"@": {"epoch": "i", "seq": 8}}


def test_events_before_a_reply_wait_for_it(online: Played) -> None:
    calls = [online.session.call("join", {"room": room}, lane=room) for room in ("#attic", "#hall")]
    online.forget()
    for seq in (3, 4):
        online.message(seq, room="#Attic")
    assert delivered(online) == []
    online.receive("joined", id=calls[1], room="#hall", epoch="e", seq=0, recovered=False)
    online.receive("joined", id=calls[0], room="#Attic", epoch="e", seq=3, recovered=False)
    assert delivered(online) == [4]


def test_cancelled_join_leaves_the_room(online: Played) -> None:
    call = online.session.call("join", {"room": "#attic"}, lane="#attic")
    online.forget()
    online.session.cancel(call)
    [leave] = online.sent()
    assert (leave["type"], leave["room"]) == ("leave", "#attic")
    online.receive("joined", id=call, room="#attic", epoch="e", seq=0, recovered=False)
    online.receive("left", id=leave["id"], room="#attic")
    assert set(online.session.rooms.by_name) == {"#tea"}


def test_leave_of_a_lost_room_succeeds(online: Played) -> None:
    call = online.session.call("leave", {"room": "#tea"}, lane="#tea")
    online.refuse(call, "not_in_room")
    assert [settle.outcome for settle in online.settled()] == [{}]
    assert [effect.key for effect in online.take(CloseRoom)] == ["#tea"]


def test_user_of_a_message_is_given_to_the_application(online: Played) -> None:
    online.receive("message", to="#tea", msg_id="m5", seq=5, time=1, body=1, **{"from": "bob", "from_user": "user:7"})
    online.message(6)
    call = online.session.call("send", {"to": "bob", "body": "hi", "key": "k"})
    online.receive("ack", id=call, to="bob", msg_id="d1", delivered="online", time=1, duplicate=False)
    events = [effect.event for effect in online.take(Deliver)]
    assert [event.from_user for event in events if isinstance(event, Message)] == ["user:7", None, None]


def test_member_keeps_its_user_when_it_changes(online: Played) -> None:
    room = online.session.rooms.by_name["#tea"]
    online.receive("presence", room="#tea", joined=[{"nick": "bob", "status": "online", "user": "user:7"}])
    online.receive("presence", room="#tea", renamed=[{"from": "bob", "to": "rob"}])
    online.receive("presence", room="#tea", status=[{"nick": "rob", "status": "away"}])
    assert (room.members.by_nick["rob"].user, room.members.by_nick["rob"].status) == ("user:7", "away")
    assert room.members.by_nick["ann"].user is None


def test_announcement_is_an_event_and_answers_nothing() -> None:
    played = Played()
    played.register()
    call = played.session.call("whois", {"nick": "bob"})
    for id in ("a1", call):
        played.receive("announcement", msg_id=id, body={"at": 12}, time=7)
    played.receive("news of a later version", id="a2", room=7)
    played.receive("news of a later version", to=None)
    assert played.take(Announce)[0] == Announce(Announcement("a1", {"at": 12}, 7))
    assert played.settled() == []


def test_room_entered_by_the_application_delivers_messages() -> None:
    played = Played()
    played.register()
    for _ in range(2):
        played.receive("joined", room="#hall", epoch="e1", seq=3, member_count=2)
    played.receive("message", to="#hall", **{"from": "bob"}, msg_id="m4", seq=4, time=7, body="hi")
    assert len(played.take(OpenRoom)) == 1
    assert [deliver.event.body for deliver in played.take(Deliver) if isinstance(deliver.event, Message)] == ["hi"]
