//! Lines of moderators: the orders that they are read as, and the lines that members see.

use presence::model::moderation::{Moderation, ModerationAction, RemovalReason, RoomRole, RoomTopic};

use super::*;
use crate::message::Target;
use crate::wire::Request;

pub(super) fn notice() -> Moderation {
    Moderation {
        action: ModerationAction::Mute,
        nick: Some("bob".into()),
        user: None,
        by: Some("ann".into()),
        reason: Some("a\nb".into()),
        until: Some(9),
        role: None,
        text: None,
        time: 7,
    }
}

#[test]
fn events_of_moderators_encode_as_frozen() {
    let of = |action| Moderation { action, until: None, reason: None, ..notice() };
    let promotion = Moderation { role: Some(RoomRole::Owner), ..of(ModerationAction::Op) };
    let lift = Moderation { nick: None, user: UserId::parse("u 1"), ..of(ModerationAction::Unban) };
    let topic = Moderation { nick: None, text: Some("tea".into()), ..of(ModerationAction::Topic) };
    for (notice, text) in [
        (notice(), "* ann muted bob in #lobby: a\\nb\n"),
        (of(ModerationAction::Kick), "* ann kicked bob in #lobby\n"),
        (promotion, "* ann made bob owner in #lobby\n"),
        (lift, "* ann lifted the ban of u 1 in #lobby\n"),
        (topic, "* ann set the topic in #lobby: tea\n"),
    ] {
        assert_eq!(event(&Event::Moderation { room: "#lobby".into(), notice: Box::new(notice) }), text);
    }
    let left = |by: Option<&str>, text: Option<&str>| Event::Left {
        room: "#lobby".into(),
        reason: RemovalReason::Kicked,
        by: by.map(str::to_owned),
        text: text.map(str::to_owned),
    };
    assert_eq!(event(&left(Some("ann"), None)), "* you were kicked from #lobby by ann\n");
    assert_eq!(event(&left(None, Some("a\nb"))), "* you were kicked from #lobby: a\\nb\n");
}

#[test]
fn joined_shows_topic_and_role() {
    let Answer::Joined { room, epoch, seq, member_count, recovered, .. } = joined("#lobby") else { panic!() };
    let topic = Some(Box::new(RoomTopic { text: "tea".into(), by: "ann".into(), time: 7 }));
    let (role, by_order) = (Some(RoomRole::Owner), false);
    let answer = Answer::Joined { room, epoch, seq, member_count, recovered, topic, role, by_order };
    assert_eq!(
        reply(&mut in_lobby(), answer),
        "* you are in #lobby, members: 3\n* the topic of #lobby is: tea (set by ann)\n* you are owner of #lobby\n"
    );
}

#[test]
fn ordered_entry_keeps_the_current_room() {
    let entered = || {
        let Answer::Joined { room, epoch, seq, member_count, recovered, topic, role, .. } = joined("#tea") else {
            panic!()
        };
        Answer::Joined { room, epoch, seq, member_count, recovered, topic, role, by_order: true }
    };
    let mut dialect = in_lobby();
    assert_eq!(reply(&mut dialect, entered()), "* you are in #tea, members: 3\n");
    assert_eq!(room_of_text(&mut dialect), "#lobby");
    let mut dialect = LineDialect::default();
    reply(&mut dialect, registered("ann"));
    reply(&mut dialect, entered());
    assert_eq!(room_of_text(&mut dialect), "#tea", "the first room is the current one");
}

/// Returns the room to which a text without a command goes.
fn room_of_text(dialect: &mut LineDialect) -> String {
    match dialect.decode("hi") {
        Decoded::Request(Request { command: Command::Send { to: Target::Room(room), .. }, .. }) => room.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_of_moderators_act_on_the_room() {
    let mut dialect = in_lobby();
    for (line, meaning) in [
        ("/kick Bob", r##"kick #lobby Bob None """##),
        ("/KICK bob  too loud ", r##"kick #lobby bob None "too loud""##),
        ("/ban bob 60 spam and more", r##"ban #lobby bob Some(60) "spam and more""##),
        ("/ban bob 6o spam", r##"ban #lobby bob None "6o spam""##),
        ("/mute bob 5", r##"mute #lobby bob Some(5) """##),
        ("/unban bob", r##"unban #lobby bob None """##),
        ("/unmute bob", r##"unmute #lobby bob None """##),
        ("/op bob", r##"op #lobby bob None """##),
        ("/op bob owner", r##"op #lobby bob None "" owner"##),
        ("/deop bob", r##"deop #lobby bob None """##),
        ("/invite bob", r##"invite #lobby bob None """##),
        ("/topic tea at five", r##"topic #lobby  None "tea at five""##),
        ("/topic", r##"topic #lobby  None """##),
        ("/kick", "= ! bad_request: a part is missing, type /kick NAME"),
        ("/op bob king", "= ! bad_request: type /op NAME"),
        ("/ban bob 0", "= ! bad_request: SECONDS is a number from 1 to 316224000"),
        ("/ban bob 99999999999999999999", "= ! bad_request: SECONDS is a number from 1 to 316224000"),
    ] {
        assert_eq!(read(&mut dialect, line), meaning, "{line}");
    }
    let mut outside = LineDialect::default();
    reply(&mut outside, registered("ann"));
    assert_eq!(read(&mut outside, "/kick bob"), "= ! not_in_room: type /join #ROOM first");
}
