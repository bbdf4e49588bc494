//! Rights of users whose token limits their rooms or their nickname.

use std::sync::Arc;

use presence::model::{RoomPattern, UserId};

use super::*;
use crate::identity::{Grant, RoomRight, RoomRule};

/// A token for a nickname, with rights in `#team-*` and other ones in `#news`.
fn user_grant(name: Option<&str>) -> Arc<Grant> {
    let rule = |pattern, rights: &[RoomRight]| RoomRule::new(RoomPattern::parse(pattern).unwrap(), rights.to_vec());
    Arc::new(Grant {
        user: UserId::parse("user:1").unwrap(),
        nick: name.map(nick),
        name: None,
        rooms: Some(
            [
                rule("#team-*", &[RoomRight::Join, RoomRight::Send, RoomRight::History]),
                rule("#news", &[RoomRight::Join]),
            ]
            .into(),
        ),
        roles: Box::default(),
        tags: Box::default(),
        expires: 0,
    })
}

fn registered_user(granted: &Arc<Grant>) -> Core {
    let mut core = core();
    ask(&mut core, register("ann"));
    let user_grant = Some(Arc::clone(granted));
    let begun = SessionBegun { nick: nick("ann"), user_grant, grant: grant(1), inbox: inbox() };
    let effects = succeed(&mut core, OperationOutcome::Begun(begun));
    assert!(format!("{effects:?}").contains(r#"user: Some(UserId("user:1"))"#), "{effects:?}");
    core
}

fn join(name: &str, since: Option<Since>) -> Command {
    Command::Join { room: room(name), since }
}

#[test]
fn user_joins_only_granted_rooms() {
    let mut core = registered_user(&user_grant(None));
    for (name, expected) in [("#team-a", "do Join"), ("#TEAM-b", "do Join"), ("#news", "do Join")] {
        assert_eq!(summary(&ask(&mut core, join(name, None))).last().map(String::as_str), Some(expected), "{name}");
        succeed(&mut core, joined(name));
    }
    for name in ["#lobby", "#team", "#news2"] {
        assert_eq!(summary(&ask(&mut core, join(name, None))), ["forbidden"], "{name}");
        let members = Command::Members { room: room(name), limit: 1, cursor: None };
        assert_eq!(summary(&ask(&mut core, members)), ["forbidden"], "{name}");
    }
    assert_eq!(core.rooms().count(), 3);
}

#[test]
fn user_uses_rooms_by_its_rights() {
    let mut core = registered_user(&user_grant(None));
    for name in ["#team-a", "#news"] {
        ask(&mut core, join(name, None));
        succeed(&mut core, joined(name));
    }
    let typing = |name: &str| Command::Typing { to: Target::Room(room(name)) };
    let history = |name: &str| Command::History { room: room(name), range: Range::Newest, limit: 1 };
    assert_eq!(summary(&ask(&mut core, send("#team-a"))), ["publish"]);
    assert_eq!(summary(&ask(&mut core, send("bob"))), ["publish"], "a direct message is no matter of rooms");
    for refused in [send("#news"), typing("#news"), history("#news")] {
        assert_eq!(summary(&ask(&mut core, refused)), ["forbidden"]);
    }
    assert_eq!(summary(&ask(&mut core, send("#lobby"))), ["not_in_room"]);
    assert_eq!(summary(&ask(&mut core, history("#team-a"))), ["do History"]);
}

#[test]
fn position_needs_the_right_to_history() {
    let mut core = registered_user(&user_grant(None));
    for (name, expected) in [("#team-a", Some(since("e", 3))), ("#news", None)] {
        let effects = ask(&mut core, join(name, Some(since("e", 3))));
        let Some(Effect::Perform(Operation::Join(JoinRoom { since, .. }))) = effects.last() else {
            panic!("{effects:?}")
        };
        assert_eq!(*since, expected, "{name}");
        succeed(&mut core, joined_after(name, expected));
    }
}

#[test]
fn nickname_of_the_token_stays() {
    let mut core = registered_user(&user_grant(Some("ann")));
    let rename = |name: &str| Command::Nick { nick: nick(name) };
    assert_eq!(summary(&ask(&mut core, rename("bob"))).last().map(String::as_str), Some("forbidden"));
    assert_eq!(summary(&ask(&mut core, rename("Ann"))), ["do ClaimNick"], "another spelling is allowed");
    let mut free = registered_user(&user_grant(None));
    assert_eq!(summary(&ask(&mut free, rename("bob"))).last().map(String::as_str), Some("do ClaimNick"));
}

#[test]
fn resumed_user_leaves_rooms_without_grant() {
    let mut core = core();
    let command = resume("ann", &["#news", "#lobby"]);
    let Command::Register { resume: Some(request), .. } = &command else { panic!("{command:?}") };
    let OperationOutcome::Resumed(resumed) = restored(request.clone(), "ann", &["#lobby", "#news"]) else { panic!() };
    ask(&mut core, command);
    let resumed = SessionResumed { user_grant: Some(user_grant(None)), ..resumed };
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Resumed(resumed))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#lobby"))), ["do Leave"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Left(room("#lobby")))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#news"))), ["do FindInboxEnd"]);
    let last = succeed(&mut core, OperationOutcome::InboxEnd(inbox()));
    assert_eq!(summary(&last), ["Registered", "enter ann after i 2", "enter #news after e 7"], "it enters at the end");
    assert_eq!(core.rooms().map(RoomName::as_str).collect::<Vec<_>>(), ["#news"]);
    assert!(!format!("{:?}", last[0]).contains("#lobby"), "{last:?}");
}
