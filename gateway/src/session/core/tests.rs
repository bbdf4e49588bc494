//! The core and the deciding halves of the verbs: stories, and random request sequences that must keep the rules.
#![allow(clippy::unwrap_used)]

mod refusals;
mod rights;

use presence::model::stream::StreamEnd;
use presence::model::{Availability, Fence, Incarnation, Nick, Owner, SessionId, Status};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::message::{Body, Target};
use crate::session::liveness::HeartbeatPolicy;
use crate::session::state::ROOMS_MAX;
use crate::session::verbs::join::{JoinRoom, RoomJoined};
use crate::session::verbs::nick::ReleaseNick;
use crate::session::verbs::register::{SessionBegun, SessionGrant};
use crate::session::verbs::resume::{SessionResumed, StoredSession};
use crate::session::verbs::status::SetStatus;
use crate::wire::{Command, DeliveryStatus, Range, ResumeRequest, Since, Token};

fn core() -> Core {
    Core::new("g1".into(), Instant::now(), HeartbeatPolicy { pings: true, sign_within: None })
}

fn nick(text: &str) -> Nick {
    Nick::parse(text).unwrap()
}

fn room(text: &str) -> RoomName {
    RoomName::parse(text).unwrap()
}

fn owner(fence: u64) -> Owner {
    let incarnation = Incarnation::from_store("i");
    Owner { incarnation, session: SessionId::from_store("s"), fence: Fence(fence) }
}

fn ask(core: &mut Core, command: Command) -> Vec<Effect> {
    core.request(Instant::now(), &SessionLimits::open(), Request { id: None, command })
}

fn succeed(core: &mut Core, outcome: OperationOutcome) -> Vec<Effect> {
    core.outcome(Instant::now(), Ok(outcome))
}

fn fail(core: &mut Core, code: ErrorCode) -> Vec<Effect> {
    core.outcome(Instant::now(), Err(code.into()))
}

/// Summarizes effects in short.
fn summary(effects: &[Effect]) -> Vec<String> {
    let summarize = |effect: &Effect| match effect {
        Effect::Reply(Reply { answer: Answer::Refused(refusal), .. }) => refusal.code.slug().to_owned(),
        Effect::Reply(reply) => {
            let text = format!("{:?}", reply.answer);
            text.split([' ', '(']).next().unwrap().to_owned()
        }
        Effect::Publish(..) => "publish".to_owned(),
        Effect::Perform(operation) => {
            let text = format!("{operation:?}");
            format!("do {}", text.split([' ', '(']).next().unwrap())
        }
        Effect::Enter(StreamEntry { shown, epoch, after, .. }) => format!("enter {shown} after {epoch} {after}"),
        Effect::RevokePreviousToken => "revoke_previous_token".to_owned(),
        Effect::Close(code) => format!("close {}", code.slug()),
    };
    effects.iter().map(summarize).collect()
}

fn register(name: &str) -> Command {
    Command::Register { nick: Some(nick(name)), resume: None, token: None }
}

fn grant(fence: u64) -> SessionGrant {
    SessionGrant { owner: owner(fence), token: Token::new("t"), time: 5 }
}

/// The end of an inbox with four messages.
fn inbox() -> StreamEnd {
    StreamEnd { epoch: "i".into(), seq: 4, forks: Vec::new() }
}

fn begun(name: &str, fence: u64) -> OperationOutcome {
    OperationOutcome::Begun(SessionBegun { nick: nick(name), user_token: None, grant: grant(fence), inbox: inbox() })
}

/// The outcome of a join without a position.
fn joined(name: &str) -> OperationOutcome {
    joined_after(name, None)
}

fn joined_after(name: &str, since: Option<Since>) -> OperationOutcome {
    let end = StreamEnd { epoch: "e".into(), seq: 7, forks: presence::model::stream::read_forks("d:5") };
    OperationOutcome::Joined(RoomJoined { room: room(name), end, member_count: 1, since, topic: None, role: None })
}

fn registered(name: &str) -> Core {
    let mut core = core();
    assert_eq!(summary(&ask(&mut core, register(name))), ["do Begin"]);
    assert_eq!(summary(&succeed(&mut core, begun(name, 1))), ["Registered", &format!("enter {name} after i 0")]);
    core
}

fn member(name: &str, of: &[&str]) -> Core {
    let mut core = registered(name);
    for name in of {
        ask(&mut core, Command::Join { room: room(name), since: None });
        succeed(&mut core, joined(name));
    }
    core
}

fn send(to: &str) -> Command {
    let to = match to.strip_prefix('#') {
        Some(_) => Target::Room(room(to)),
        None => Target::Nick(nick(to)),
    };
    Command::Send { to, body: Body::from_text("hi"), key: None }
}

#[test]
fn session_accepts_ping_and_bye_before_register() {
    for command in [
        Command::Join { room: room("#a"), since: None },
        Command::Leave { room: room("#a") },
        send("#a"),
        send("bob"),
        Command::Nick { nick: nick("bob") },
        Command::Status(Status::default()),
        Command::Rooms { limit: 1, cursor: None },
        Command::Members { room: room("#a"), limit: 1, cursor: None },
        Command::History { room: room("#a"), range: Range::Newest, limit: 1 },
        Command::Whois { nick: nick("bob") },
        Command::Read { seq: 1 },
        Command::Typing { to: Target::Room(room("#a")) },
    ] {
        assert_eq!(summary(&ask(&mut core(), command)), ["not_registered"]);
    }
    assert_eq!(summary(&ask(&mut core(), Command::Ping)), ["Pong"]);
    assert_eq!(summary(&ask(&mut core(), Command::Bye)), ["close bye"]);
}

#[test]
fn register_can_be_repeated_only_after_failure() {
    let mut core = core();
    ask(&mut core, register("ann"));
    assert_eq!(summary(&fail(&mut core, ErrorCode::NickInUse)), ["nick_in_use"]);
    ask(&mut core, register("anna"));
    assert_eq!(summary(&succeed(&mut core, begun("anna", 1))), ["Registered", "enter anna after i 0"]);
    assert_eq!(summary(&ask(&mut core, register("eve"))), ["already_registered"]);
    assert_eq!(core.identity().unwrap().nick, nick("anna"));
}

#[test]
fn join_is_answered_before_the_room_is_entered() {
    let mut core = registered("ann");
    assert_eq!(summary(&ask(&mut core, Command::Join { room: room("#a"), since: None })), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#a"))), ["Joined", "enter #a after e 7"]);
}

#[test]
fn join_resumes_at_a_position_in_the_history() {
    let since = |epoch: &str, seq| Some(Since { epoch: epoch.into(), seq });
    for (since, recovered, after) in [
        (None, "false", vec!["enter #a after e 7"]),
        (since("e", 3), "true", vec!["enter #a after e 3"]),
        (since("e", 0), "true", vec!["enter #a after e 0"]),
        (since("e", 7), "true", vec!["enter #a after e 7"]),
        (since("e", 8), "false", vec!["enter #a after e 8"]),
        (since("d", 5), "true", vec!["enter #a after d 5"]),
        (since("d", 6), "false", vec!["enter #a after d 6"]),
        (since("f", 3), "false", vec!["enter #a after f 3"]),
    ] {
        let mut core = registered("ann");
        let asked = ask(&mut core, Command::Join { room: room("#a"), since: since.clone() });
        assert_eq!(position(&asked), since);
        let effects = succeed(&mut core, joined_after("#a", since.clone()));
        assert!(format!("{:?}", effects[0]).contains(&format!("recovered: {recovered}")), "{since:?}: {effects:?}");
        assert_eq!(summary(&effects[1..]), after, "{since:?}");
    }
    let mut core = member("ann", &["#a"]);
    let asked = ask(&mut core, Command::Join { room: room("#a"), since: since("e", 3) });
    assert_eq!(position(&asked), None, "a member has missed nothing");
    let again = succeed(&mut core, joined("#a"));
    assert_eq!(summary(&again)[1..], ["enter #a after e 7"]);
    assert!(format!("{:?}", again[0]).contains("recovered: false"));
}

/// The client's position in the join that is asked for.
fn position(effects: &[Effect]) -> Option<Since> {
    match effects {
        [Effect::Perform(Operation::Join(JoinRoom { since, .. }))] => since.clone(),
        _ => panic!("{effects:?}"),
    }
}

fn since(epoch: &str, seq: u64) -> Since {
    Since { epoch: epoch.into(), seq }
}

fn resume(name: &str, rooms: &[&str]) -> Command {
    let rooms = rooms.iter().map(|name| (room(name), since("e", 3))).collect();
    let resume = ResumeRequest { token: Token::new("t"), rooms, inbox: None };
    Command::Register { nick: Some(nick(name)), resume: Some(resume), token: None }
}

/// A session that was resumed under a nickname, with these rooms.
fn restored(request: ResumeRequest, name: &str, rooms: &[&str]) -> OperationOutcome {
    let status = Status { status: Availability::Away, text: "tea".into() };
    let rooms = rooms.iter().map(|name| room(name)).collect();
    let stored = StoredSession { former: Some((nick("ann"), owner(0))), status, rooms, read: since("i", 2) };
    OperationOutcome::Resumed(SessionResumed { nick: nick(name), user_token: None, request, grant: grant(2), stored })
}

/// Asks for a resume, which succeeds; returns what follows.
fn resume_to(core: &mut Core, command: Command, rooms: &[&str]) -> Vec<Effect> {
    let Command::Register { nick: Some(nick), resume: Some(request), .. } = &command else { panic!("{command:?}") };
    let outcome = restored(request.clone(), nick.as_str(), rooms);
    assert_eq!(summary(&ask(core, command)), ["do Resume"]);
    succeed(core, outcome)
}

/// A resumed session in `#a` and `#b`, whose client named `#b`.
fn resumed() -> Core {
    let mut core = core();
    let first = resume_to(&mut core, resume("ann", &["#b", "#elsewhere"]), &["#a", "#b"]);
    let [Effect::Perform(Operation::Join(JoinRoom { me, former: None, starts_delivery: false, .. }))] = &first[..]
    else {
        panic!("{first:?}")
    };
    assert_eq!((me.owner.fence, me.status.text.as_str()), (Fence(2), "tea"));
    let second = succeed(&mut core, joined("#a"));
    let [Effect::Perform(Operation::Join(JoinRoom { room: entered, starts_delivery: true, .. }))] = &second[..] else {
        panic!("{second:?}")
    };
    assert_eq!(entered.as_str(), "#b");
    assert_eq!(summary(&succeed(&mut core, joined("#b"))), ["do FindInboxEnd"]);
    let last = succeed(&mut core, OperationOutcome::InboxEnd(inbox()));
    assert_eq!(summary(&last), ["Registered", "enter ann after i 2", "enter #b after e 3"]);
    let reply = format!("{:?}", last[0]);
    assert!(reply.contains("#a") && reply.contains("#b") && !reply.contains("#elsewhere"), "{reply}");
    core
}

#[test]
fn resumed_session_receives_only_the_rooms_it_named() {
    let mut core = resumed();
    assert_eq!(core.identity().unwrap().owner, owner(2));
    assert_eq!(core.rooms().count(), 2);
    let again = ask(&mut core, Command::Join { room: room("#b"), since: None });
    let [Effect::RevokePreviousToken, Effect::Perform(Operation::Join(JoinRoom { starts_delivery: false, .. }))] =
        &again[..]
    else {
        panic!("{again:?}")
    };
    succeed(&mut core, joined("#b"));

    // The session is a member of the other room too, but does not receive it.
    assert_eq!(summary(&ask(&mut core, send("#a"))), ["publish"]);
    let first_delivery = ask(&mut core, Command::Join { room: room("#a"), since: Some(since("e", 5)) });
    let [Effect::Perform(Operation::Join(JoinRoom { starts_delivery: true, .. }))] = &first_delivery[..] else {
        panic!("{first_delivery:?}")
    };
    let entered = succeed(&mut core, joined_after("#a", Some(since("e", 5))));
    assert_eq!(summary(&entered), ["Joined", "enter #a after e 5"]);
    assert_eq!(summary(&ask(&mut core, register("ann"))), ["already_registered"]);
}

#[test]
fn resume_under_another_nick_renames_the_member_records() {
    let mut core = core();
    let first = resume_to(&mut core, resume("Ann", &[]), &["#a"]);
    let [Effect::Perform(Operation::Join(JoinRoom { me, former: Some(former), .. }))] = &first[..] else {
        panic!("{first:?}")
    };
    assert_eq!((me.nick.as_str(), former.nick.as_str(), former.owner.fence), ("Ann", "ann", Fence(0)));
    assert_eq!(summary(&succeed(&mut core, joined("#a"))), ["do FindInboxEnd"]);
    assert_eq!(
        summary(&succeed(&mut core, OperationOutcome::InboxEnd(inbox()))),
        ["Registered", "enter Ann after i 2"]
    );
}

#[test]
fn inbox_resumes_at_position_or_last_read() {
    for (position, after) in [(None, "enter ann after i 2"), (Some(since("h", 3)), "enter ann after h 3")] {
        let mut core = core();
        let request = ResumeRequest { token: Token::new("t"), rooms: Vec::new(), inbox: position };
        let command = Command::Register { nick: Some(nick("ann")), resume: Some(request), token: None };
        let first = resume_to(&mut core, command, &[]);
        assert_eq!(summary(&first), ["do FindInboxEnd"]);
        let last = succeed(&mut core, OperationOutcome::InboxEnd(inbox()));
        assert!(format!("{:?}", last[0]).contains(r#"inbox: Since { epoch: "i", seq: 4 }"#), "{last:?}");
        assert_eq!(summary(&last)[1..], [after]);
    }
}

#[test]
fn first_request_after_resume_revokes_the_previous_token() {
    for command in [Command::Ping, Command::Bye, send("#a"), Command::Read { seq: 1 }] {
        let mut core = resumed();
        assert!(core.is_resumable(), "the client holds the previous token");
        assert_eq!(summary(&ask(&mut core, command))[0], "revoke_previous_token");
    }
    let mut core = resumed();
    assert_eq!(summary(&ask(&mut core, Command::Ping)), ["revoke_previous_token", "Pong"]);
    assert_eq!(summary(&ask(&mut core, Command::Ping)), ["Pong"], "confirmed once");

    let mut fresh = registered("ann");
    assert!(!fresh.is_resumable(), "the reply may be lost");
    assert_eq!(summary(&ask(&mut fresh, Command::Ping)), ["Pong"]);
    assert!(fresh.is_resumable());
}

#[test]
fn rooms_need_membership_and_nicks_do_not() {
    let mut core = member("ann", &["#a"]);
    assert_eq!(summary(&ask(&mut core, send("#b"))), ["not_in_room"]);
    let history = Command::History { room: room("#b"), range: Range::Newest, limit: 1 };
    assert_eq!(summary(&ask(&mut core, history)), ["not_in_room"]);
    assert_eq!(summary(&ask(&mut core, Command::Leave { room: room("#b") })), ["not_in_room"]);
    assert_eq!(summary(&ask(&mut core, send("#A"))), ["publish"], "case makes no other room");
    assert_eq!(summary(&ask(&mut core, send("#a"))), ["publish"], "another message waits for none before it");
    assert_eq!(summary(&ask(&mut core, send("bob"))), ["publish"]);
    assert_eq!(summary(&ask(&mut core, Command::Leave { room: room("#a") })), ["do Leave"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::Left(room("#a")))), ["Left"]);
    assert_eq!(summary(&ask(&mut core, send("#a"))), ["not_in_room"]);
}

#[test]
fn join_beyond_the_room_limit_is_refused() {
    let names: Vec<String> = (0..ROOMS_MAX).map(|n| format!("#r{n}")).collect();
    let mut core = member("ann", &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(summary(&ask(&mut core, Command::Join { room: room("#more"), since: None })), ["too_many_rooms"]);
    assert_eq!(
        summary(&ask(&mut core, Command::Join { room: room("#r3"), since: None })),
        ["do Join"],
        "the session is in that room"
    );
}

#[test]
fn rename_claims_updates_rooms_and_releases_last() {
    let mut core = member("ann", &["#a", "#b"]);
    assert_eq!(summary(&ask(&mut core, Command::Nick { nick: nick("anna") })), ["do ClaimNick"]);
    let first = succeed(&mut core, OperationOutcome::NickClaimed(owner(2)));
    let [Effect::Perform(Operation::Join(JoinRoom { me, former: Some(former), starts_delivery: false, .. }))] =
        &first[..]
    else {
        panic!("{first:?}")
    };
    assert_eq!((me.owner.fence, former.owner.fence), (Fence(2), Fence(1)));
    assert_eq!(summary(&succeed(&mut core, joined("#a"))), ["do Join"]);
    let last = succeed(&mut core, joined("#b"));
    let [Effect::Perform(Operation::ReleaseNick(ReleaseNick { nick: former, owner: claim, renamed_to }))] = &last[..]
    else {
        panic!("{last:?}")
    };
    assert_eq!((former, claim.fence, renamed_to), (&nick("ann"), Fence(1), &nick("anna")));
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::NickReleased)), ["Nick"]);
    assert_eq!(core.identity().unwrap().owner, owner(2));
}

#[test]
fn rename_keeps_the_status() {
    let mut core = member("ann", &["#a"]);
    let away = Status { status: Availability::Away, text: "tea".into() };
    ask(&mut core, Command::Status(away.clone()));
    succeed(&mut core, OperationOutcome::StatusSet(away.clone()));
    ask(&mut core, Command::Nick { nick: nick("anna") });
    let first = succeed(&mut core, OperationOutcome::NickClaimed(owner(2)));
    let [Effect::Perform(Operation::SetStatus(SetStatus { me, status, rooms }))] = &first[..] else {
        panic!("{first:?}")
    };
    assert_eq!((&me.nick, me.owner.fence, status, rooms.len()), (&nick("anna"), Fence(2), &away, 0));
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::StatusSet(away.clone()))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#a"))), ["do ReleaseNick"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::NickReleased)), ["Nick"]);
    assert_eq!(core.identity().unwrap().status, away);
}

#[test]
fn change_of_case_keeps_the_claim() {
    let mut core = member("ann", &["#a"]);
    assert_eq!(summary(&ask(&mut core, Command::Nick { nick: nick("ann") })), ["Nick"], "the nickname is unchanged");
    assert_eq!(summary(&ask(&mut core, Command::Nick { nick: nick("Ann") })), ["do ClaimNick"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::NickClaimed(owner(1)))), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#a"))), ["Nick"], "the claim is the same: nothing is released");
}

#[test]
fn half_done_rename_ends_the_connection() {
    let mut core = member("ann", &["#a"]);
    ask(&mut core, Command::Nick { nick: nick("bob") });
    assert_eq!(summary(&fail(&mut core, ErrorCode::NickInUse)), ["nick_in_use"], "nothing was changed yet");
    ask(&mut core, Command::Nick { nick: nick("bob") });
    assert_eq!(summary(&fail(&mut core, ErrorCode::OutcomeUnknown)), ["outcome_unknown", "close restart"]);
    let mut core = member("ann", &["#a"]);
    ask(&mut core, Command::Nick { nick: nick("bob") });
    succeed(&mut core, OperationOutcome::NickClaimed(owner(2)));
    assert_eq!(summary(&fail(&mut core, ErrorCode::Unavailable)), ["unavailable", "close restart"]);
}

/// A request of a client, chosen by two small numbers.
fn command(kind: u8, which: u8) -> Command {
    let name = ["#a", "#b", "#c"][usize::from(which % 3)];
    let who = ["ann", "bob", "eve"][usize::from(which % 3)];
    match kind {
        0 => register(who),
        1 => Command::Join { room: room(name), since: None },
        2 => Command::Leave { room: room(name) },
        3 => send(name),
        4 => send(who),
        5 => Command::Nick { nick: nick(who) },
        6 => Command::Status(Status::default()),
        7 => Command::Members { room: room(name), limit: 10, cursor: None },
        8 => Command::History { room: room(name), range: Range::Newest, limit: 10 },
        9 => Command::Rooms { limit: 10, cursor: None },
        10 => resume(who, &["#a"]),
        11 => Command::Read { seq: 1 },
        12 => Command::Typing { to: Target::Room(room(name)) },
        13 => Command::Typing { to: Target::Nick(nick(who)) },
        14 => Command::Whois { nick: nick(who) },
        _ => Command::Ping,
    }
}

fn ack() -> Answer {
    let delivery = DeliveryStatus::Room { seq: 8 };
    Answer::Ack { to: "#a".into(), msg_id: "m".into(), delivery, time: 1, duplicate: false }
}

/// The outcome of an operation when all stores work. The operations of queries have any answer.
fn outcome(operation: Operation, fence: &mut u64) -> OperationOutcome {
    match operation {
        Operation::Begin(begin) => {
            *fence += 1;
            begun(begin.nick.unwrap().as_str(), *fence)
        }
        Operation::Resume(resume) => {
            *fence += 1;
            restored(resume.request, resume.nick.unwrap().as_str(), &["#a", "#c"])
        }
        Operation::ClaimNick(_) => {
            *fence += 1;
            OperationOutcome::NickClaimed(owner(*fence))
        }
        Operation::ReleaseNick(_) => OperationOutcome::NickReleased,
        Operation::FindInboxEnd(_) => OperationOutcome::InboxEnd(inbox()),
        Operation::Join(join) => joined_after(join.room.as_str(), join.since),
        Operation::Leave(leave) => OperationOutcome::Left(leave.room),
        Operation::SetStatus(set) => OperationOutcome::StatusSet(set.status),
        _ => OperationOutcome::Answer(ack()),
    }
}

proptest! {
    /// Every request gets exactly one reply with its own id, one operation is performed at a time and comes last, and
    /// only a claim is performed for a connection without a nickname.
    #[test]
    fn every_request_gets_one_reply(
        requests in prop::collection::vec((0_u8..16, 0_u8..3, prop::bool::weighted(0.8)), 1..60),
    ) {
        let (mut core, mut fence) = (core(), 0);
        for (number, (kind, which, works)) in requests.into_iter().enumerate() {
            let id = Some(RawValue::from_string(number.to_string()).unwrap());
            let mut effects = core.request(Instant::now(), &SessionLimits::open(), Request { id, command: command(kind, which) });
            let mut replies = Vec::new();
            loop {
                let mut next = None;
                for effect in effects {
                    prop_assert!(next.is_none(), "an operation comes last");
                    match effect {
                        Effect::Reply(reply) => replies.push(reply.id.unwrap().get().to_owned()),
                        Effect::Publish(id, _) => replies.push(id.unwrap().get().to_owned()),
                        Effect::Perform(operation) => next = Some(operation),
                        Effect::Enter(_) | Effect::RevokePreviousToken | Effect::Close(_) => {}
                    }
                }
                let Some(operation) = next else { break };
                let claims = matches!(operation, Operation::Begin(_) | Operation::Resume(_));
                prop_assert!(core.identity().is_some() || claims);
                let result = if works { Ok(outcome(operation, &mut fence)) } else { Err(ErrorCode::Unavailable.into()) };
                effects = core.outcome(Instant::now(), result);
            }
            prop_assert_eq!(replies, vec![number.to_string()]);
            prop_assert!(core.rooms().count() <= ROOMS_MAX);
        }
    }
}
