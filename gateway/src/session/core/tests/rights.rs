//! Rights of users whose token limits their rooms or their nickname.

use std::sync::Arc;
use std::time::Duration;

use presence::model::{RoomPattern, UserId};

use super::*;
use crate::identity::{Grant, KeyFingerprint, RoomRight, RoomRule, UserToken};
use crate::session::token_expiry::ExpiryAction;

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
        tags: Arc::default(),
        expires: 0,
        issued: 0,
        key: KeyFingerprint::default(),
    })
}

const LIFETIME: Duration = Duration::from_secs(100);

fn user_token(granted: &Arc<Grant>) -> UserToken {
    UserToken { grant: Arc::clone(granted), lifetime: LIFETIME }
}

fn registered_user(granted: &Arc<Grant>) -> Core {
    let mut core = core();
    ask(&mut core, register("ann"));
    let user_token = Some(user_token(granted));
    let begun = SessionBegun { nick: nick("ann"), user_token, grant: grant(1), inbox: inbox() };
    let effects = succeed(&mut core, OperationOutcome::Begun(begun));
    assert!(
        format!("{effects:?}").contains(r#"user: Some(UserId("user:1")), expires_in_ms: Some(100000)"#),
        "{effects:?}"
    );
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
    let resumed = SessionResumed { user_token: Some(user_token(&user_grant(None))), ..resumed };
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Resumed(resumed))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#lobby"))), ["do Leave"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Left(room("#lobby")))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#news"))), ["do FindInboxEnd"]);
    let last = succeed(&mut core, OperationOutcome::InboxEnd(inbox()));
    assert_eq!(summary(&last), ["Registered", "enter ann after i 2", "enter #news after e 7"], "it enters at the end");
    assert_eq!(core.rooms().map(RoomName::as_str).collect::<Vec<_>>(), ["#news"]);
    assert!(!format!("{:?}", last[0]).contains("#lobby"), "{last:?}");
}

fn refresh() -> Command {
    Command::Refresh { token: Token::new("a.b.c") }
}

#[test]
fn expiry_is_announced_then_closes() {
    let mut guest = registered("ann");
    assert_eq!((guest.token_deadline(), guest.token_due(Instant::now())), (None, ExpiryAction::Nothing));
    let before = Instant::now();
    let mut core = registered_user(&user_grant(None));
    let deadline = core.token_deadline().unwrap();
    assert!(deadline >= before + Duration::from_secs(70) && deadline <= Instant::now() + Duration::from_secs(70));
    assert_eq!(core.token_due(deadline), ExpiryAction::Announce(Duration::from_secs(30)));
    assert_eq!(core.token_due(deadline + Duration::from_secs(30)), ExpiryAction::Close);
}

#[test]
fn refresh_renews_the_token() {
    let mut core = registered_user(&user_grant(None));
    let deadline = core.token_deadline().unwrap();
    core.token_due(deadline);
    let asked = ask(&mut core, refresh());
    let Some(Effect::Perform(Operation::Refresh(refresh))) = asked.last() else { panic!("{asked:?}") };
    assert_eq!(refresh.user.as_ref().map(UserId::as_str), Some("user:1"));
    let renewed = succeed(&mut core, OperationOutcome::Refreshed(Some(user_token(&user_grant(None)))));
    assert!(format!("{renewed:?}").contains("Refreshed { expires_in_ms: Some(100000), left: [] }"), "{renewed:?}");
    assert!(core.token_deadline().unwrap() >= deadline, "the next notice");
    assert_eq!(core.token_due(deadline), ExpiryAction::Nothing);
}

#[test]
fn refused_refresh_changes_nothing() {
    let mut core = registered_user(&user_grant(None));
    let deadline = core.token_deadline();
    ask(&mut core, refresh());
    assert_eq!(summary(&fail(&mut core, ErrorCode::TokenInvalid)), ["token_invalid"]);
    assert_eq!(core.token_deadline(), deadline);
    ask(&mut core, join("#team-a", None));
}

#[test]
fn refresh_with_fewer_rights_leaves_rooms() {
    let everywhere = Arc::new(Grant { rooms: None, ..(*user_grant(None)).clone() });
    let mut core = registered_user(&everywhere);
    for name in ["#lobby", "#news", "#yard"] {
        ask(&mut core, join(name, None));
        succeed(&mut core, joined(name));
    }
    ask(&mut core, refresh());
    let narrow = || OperationOutcome::Refreshed(Some(user_token(&user_grant(None))));
    assert_eq!(summary(&succeed(&mut core, narrow())), ["do Leave"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Left(room("#lobby")))), ["do Leave"]);
    let last = succeed(&mut core, OperationOutcome::Left(room("#yard")));
    assert!(format!("{last:?}").contains(r##"left: ["#lobby", "#yard"]"##), "{last:?}");
    assert_eq!(core.rooms().map(RoomName::as_str).collect::<Vec<_>>(), ["#news"]);

    let mut stuck = registered_user(&everywhere);
    ask(&mut stuck, join("#lobby", None));
    succeed(&mut stuck, joined("#lobby"));
    ask(&mut stuck, refresh());
    succeed(&mut stuck, narrow());
    assert_eq!(summary(&fail(&mut stuck, ErrorCode::Unavailable)), ["unavailable", "close restart"]);
}
