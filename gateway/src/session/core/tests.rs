//! The core by itself: stories in tables, and random lives that must keep the rules.
#![allow(clippy::unwrap_used)]

use presence::model::{Availability, Fence, Incarnation, SessionId};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::message::Body;
use crate::wire::{Range, Token};

fn core() -> Core {
    Core::new("g1".into(), Instant::now(), true)
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
    core.request(Instant::now(), Request { id: None, command })
}

fn tell(core: &mut Core, done: Done) -> Vec<Effect> {
    core.outcome(Instant::now(), Ok(done))
}

fn fail(core: &mut Core, code: ErrorCode) -> Vec<Effect> {
    core.outcome(Instant::now(), Err(code.into()))
}

/// The effects as short words, so that a story reads as a table.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Reply(Reply { answer: Answer::Refused(refusal), .. }) => refusal.code.slug().to_owned(),
        Effect::Reply(reply) => {
            let text = format!("{:?}", reply.answer);
            text.split([' ', '(']).next().unwrap().to_owned()
        }
        Effect::Perform(op) => {
            let text = format!("{op:?}");
            format!("do {}", text.split([' ', '(']).next().unwrap())
        }
        Effect::Admit(Entrance { shown, epoch, after, .. }) => format!("admit {shown} after {epoch} {after}"),
        Effect::Confirm => "confirm".to_owned(),
        Effect::Close(code) => format!("close {}", code.slug()),
    };
    effects.iter().map(word).collect()
}

fn register(name: &str) -> Command {
    Command::Register { nick: nick(name), resume: None }
}

fn beginning(fence: u64) -> Beginning {
    Beginning { owner: owner(fence), token: Token::new("t"), time: 5 }
}

/// An inbox with four messages.
fn inbox() -> StreamEnd {
    StreamEnd { epoch: "i".into(), top: 4, forks: Vec::new() }
}

fn begun(fence: u64) -> Done {
    Done::Begun(beginning(fence), inbox())
}

fn joined(name: &str) -> Done {
    let head = StreamEnd { epoch: "e".into(), top: 7, forks: presence::model::stream::read_forks("d:5") };
    Done::Joined { room: room(name), head, member_count: 1 }
}

fn registered(name: &str) -> Core {
    let mut core = core();
    assert_eq!(words(&ask(&mut core, register(name))), ["do Claim"]);
    assert_eq!(words(&tell(&mut core, begun(1))), ["Registered", &format!("admit {name} after i 0")]);
    core
}

fn member(name: &str, of: &[&str]) -> Core {
    let mut core = registered(name);
    for name in of {
        ask(&mut core, Command::Join { room: room(name), since: None });
        tell(&mut core, joined(name));
    }
    core
}

fn say(to: &str) -> Command {
    let to = match to.strip_prefix('#') {
        Some(_) => Target::Room(room(to)),
        None => Target::Nick(nick(to)),
    };
    Command::Send { to, body: Body::from_text("hi"), key: None }
}

#[test]
fn before_register_only_ping_and_bye_are_heard() {
    for command in [
        Command::Join { room: room("#a"), since: None },
        Command::Leave { room: room("#a") },
        say("#a"),
        say("bob"),
        Command::Nick { nick: nick("bob") },
        Command::Status(Status::default()),
        Command::Rooms { limit: 1, cursor: None },
        Command::Members { room: room("#a"), limit: 1, cursor: None },
        Command::History { room: room("#a"), range: Range::Newest, limit: 1 },
    ] {
        assert_eq!(words(&ask(&mut core(), command)), ["not_registered"]);
    }
    assert_eq!(words(&ask(&mut core(), Command::Ping)), ["Pong"]);
    assert_eq!(words(&ask(&mut core(), Command::Bye)), ["close bye"]);
}

#[test]
fn a_failed_register_keeps_the_connection_and_a_second_one_is_refused() {
    let mut core = core();
    ask(&mut core, register("ann"));
    assert_eq!(words(&fail(&mut core, ErrorCode::NickInUse)), ["nick_in_use"]);
    ask(&mut core, register("anna"));
    assert_eq!(words(&tell(&mut core, begun(1))), ["Registered", "admit anna after i 0"]);
    assert_eq!(words(&ask(&mut core, register("eve"))), ["already_registered"]);
    assert_eq!(core.identity().unwrap().nick, nick("anna"));
}

#[test]
fn a_join_is_answered_before_anything_of_the_room_is_let_in() {
    let mut core = registered("ann");
    assert_eq!(words(&ask(&mut core, Command::Join { room: room("#a"), since: None })), ["do Join"]);
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["Joined", "admit #a after e 7"]);
}

#[test]
fn who_was_in_the_room_goes_on_from_there_if_that_is_in_its_history() {
    let since = |epoch: &str, seq| Some(Since { epoch: epoch.into(), seq });
    for (since, recovered, after) in [
        (None, "false", vec!["admit #a after e 7"]),
        (since("e", 3), "true", vec!["admit #a after e 3"]),
        (since("e", 0), "true", vec!["admit #a after e 0"]),
        (since("e", 7), "true", vec!["admit #a after e 7"]),
        (since("e", 8), "false", vec!["admit #a after e 8"]),
        (since("d", 5), "true", vec!["admit #a after d 5"]),
        (since("d", 6), "false", vec!["admit #a after d 6"]),
        (since("f", 3), "false", vec!["admit #a after f 3"]),
    ] {
        let mut core = registered("ann");
        ask(&mut core, Command::Join { room: room("#a"), since: since.clone() });
        let effects = tell(&mut core, joined("#a"));
        assert!(format!("{:?}", effects[0]).contains(&format!("recovered: {recovered}")), "{since:?}: {effects:?}");
        assert_eq!(words(&effects[1..]), after, "{since:?}");
    }
    let mut core = member("ann", &["#a"]);
    ask(&mut core, Command::Join { room: room("#a"), since: since("e", 3) });
    let again = tell(&mut core, joined("#a"));
    assert_eq!(words(&again)[1..], ["admit #a after e 7"], "who is in has missed nothing");
    assert!(format!("{:?}", again[0]).contains("recovered: false"));
}

fn place(epoch: &str, seq: u64) -> Since {
    Since { epoch: epoch.into(), seq }
}

fn resume(name: &str, rooms: &[&str]) -> Command {
    let rooms = rooms.iter().map(|name| (room(name), place("e", 3))).collect();
    let resume = Resume { token: Token::new("t"), rooms, inbox: None };
    Command::Register { nick: nick(name), resume: Some(resume) }
}

fn resumption(rooms: &[&str]) -> Resumption {
    let was = Some((nick("ann"), owner(0)));
    let status = Status { status: Availability::Away, text: "tea".into() };
    Resumption { was, status, rooms: rooms.iter().map(|name| room(name)).collect(), read: place("i", 2) }
}

/// A session in `#a` and `#b` that went on and named `#b`.
fn resumed() -> Core {
    let mut core = core();
    assert_eq!(words(&ask(&mut core, resume("ann", &["#b", "#elsewhere"]))), ["do Resume"]);
    let first = tell(&mut core, Done::Resumed(beginning(2), resumption(&["#a", "#b"])));
    let [Effect::Perform(Op::Join { me, was: None, enters: false, .. })] = &first[..] else { panic!("{first:?}") };
    assert_eq!((me.owner.fence, me.status.text.as_str()), (Fence(2), "tea"));
    let second = tell(&mut core, joined("#a"));
    let [Effect::Perform(Op::Join { room: entered, enters: true, .. })] = &second[..] else { panic!("{second:?}") };
    assert_eq!(entered.as_str(), "#b");
    assert_eq!(words(&tell(&mut core, joined("#b"))), ["do Inbox"]);
    let last = tell(&mut core, Done::Inbox(inbox()));
    assert_eq!(words(&last), ["Registered", "admit ann after i 2", "admit #b after e 3"]);
    let told = format!("{:?}", last[0]);
    assert!(told.contains("#a") && told.contains("#b") && !told.contains("#elsewhere"), "{told}");
    core
}

#[test]
fn a_session_that_goes_on_is_in_its_rooms_and_hears_those_that_it_named() {
    let mut core = resumed();
    assert_eq!(core.identity().unwrap().owner, owner(2));
    assert_eq!(core.rooms().count(), 2);
    let again = ask(&mut core, Command::Join { room: room("#b"), since: None });
    let [Effect::Confirm, Effect::Perform(Op::Join { enters: false, .. })] = &again[..] else { panic!("{again:?}") };
    tell(&mut core, joined("#b"));

    // The other one is silent, and its own all the same.
    assert_eq!(words(&ask(&mut core, say("#a"))), ["do Publish"]);
    fail(&mut core, ErrorCode::Unavailable);
    let enters = ask(&mut core, Command::Join { room: room("#a"), since: Some(place("e", 5)) });
    let [Effect::Perform(Op::Join { enters: true, .. })] = &enters[..] else { panic!("{enters:?}") };
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["Joined", "admit #a after e 5"]);
    assert_eq!(words(&ask(&mut core, register("ann"))), ["already_registered"]);
}

#[test]
fn a_session_that_goes_on_under_another_name_carries_it_into_its_rooms() {
    let mut core = core();
    ask(&mut core, resume("Ann", &[]));
    let first = tell(&mut core, Done::Resumed(beginning(2), resumption(&["#a"])));
    let [Effect::Perform(Op::Join { me, was: Some(was), .. })] = &first[..] else { panic!("{first:?}") };
    assert_eq!((me.nick.as_str(), was.nick.as_str(), was.owner.fence), ("Ann", "ann", Fence(0)));
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["do Inbox"]);
    assert_eq!(words(&tell(&mut core, Done::Inbox(inbox()))), ["Registered", "admit Ann after i 2"]);
}

#[test]
fn an_inbox_goes_on_from_where_the_client_says_or_else_from_where_it_was_read() {
    for (has, after) in [(None, "admit ann after i 2"), (Some(place("h", 3)), "admit ann after h 3")] {
        let mut core = core();
        let asked = Resume { token: Token::new("t"), rooms: Vec::new(), inbox: has };
        ask(&mut core, Command::Register { nick: nick("ann"), resume: Some(asked) });
        assert_eq!(words(&tell(&mut core, Done::Resumed(beginning(2), resumption(&[])))), ["do Inbox"]);
        let told = tell(&mut core, Done::Inbox(inbox()));
        assert!(format!("{:?}", told[0]).contains(r#"inbox: Since { epoch: "i", seq: 4 }"#), "{told:?}");
        assert_eq!(words(&told)[1..], [after]);
    }
}

#[test]
fn the_token_before_is_needed_until_the_client_says_something() {
    for command in [Command::Ping, Command::Bye, say("#a"), Command::Read { seq: 1 }] {
        let mut core = resumed();
        assert!(core.is_known(), "by the token before");
        assert_eq!(words(&ask(&mut core, command))[0], "confirm");
    }
    let mut core = resumed();
    assert_eq!(words(&ask(&mut core, Command::Ping)), ["confirm", "Pong"]);
    assert_eq!(words(&ask(&mut core, Command::Ping)), ["Pong"], "once");

    let mut fresh = registered("ann");
    assert!(!fresh.is_known(), "the reply may be lost");
    assert_eq!(words(&ask(&mut fresh, Command::Ping)), ["Pong"]);
    assert!(fresh.is_known());
}

#[test]
fn a_failed_resume_keeps_the_connection_and_one_that_stops_half_way_ends_it() {
    let mut core = core();
    ask(&mut core, resume("ann", &[]));
    assert_eq!(words(&fail(&mut core, ErrorCode::ResumeFailed)), ["resume_failed"]);
    ask(&mut core, resume("ann", &[]));
    tell(&mut core, Done::Resumed(beginning(2), resumption(&["#a"])));
    assert_eq!(words(&fail(&mut core, ErrorCode::Unavailable)), ["unavailable", "close restart"]);
}

#[test]
fn rooms_need_membership_and_nicks_do_not() {
    let mut core = member("ann", &["#a"]);
    assert_eq!(words(&ask(&mut core, say("#b"))), ["not_in_room"]);
    let history = Command::History { room: room("#b"), range: Range::Newest, limit: 1 };
    assert_eq!(words(&ask(&mut core, history)), ["not_in_room"]);
    assert_eq!(words(&ask(&mut core, Command::Leave { room: room("#b") })), ["not_in_room"]);
    assert_eq!(words(&ask(&mut core, say("#A"))), ["do Publish"], "one room whatever the case");
    let done = Done::Published { msg_id: "m".into(), seq: 8, time: 1, duplicate: false, online: true };
    assert_eq!(words(&tell(&mut core, done)), ["Ack"]);
    assert_eq!(words(&ask(&mut core, say("bob"))), ["do Direct"]);
    assert_eq!(words(&fail(&mut core, ErrorCode::NoSuchUser)), ["no_such_user"]);
    assert_eq!(words(&ask(&mut core, Command::Leave { room: room("#a") })), ["do Leave"]);
    assert_eq!(words(&tell(&mut core, Done::Settled)), ["Left"]);
    assert_eq!(words(&ask(&mut core, say("#a"))), ["not_in_room"]);
}

#[test]
fn a_room_too_many_is_refused() {
    let names: Vec<String> = (0..MAX_ROOMS).map(|n| format!("#r{n}")).collect();
    let mut core = member("ann", &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(words(&ask(&mut core, Command::Join { room: room("#more"), since: None })), ["too_many_rooms"]);
    assert_eq!(
        words(&ask(&mut core, Command::Join { room: room("#r3"), since: None })),
        ["do Join"],
        "it is in that one"
    );
}

#[test]
fn a_new_name_is_claimed_carried_into_every_room_and_the_old_one_given_back_last() {
    let mut core = member("ann", &["#a", "#b"]);
    assert_eq!(words(&ask(&mut core, Command::Nick { nick: nick("anna") })), ["do Claim"]);
    let first = tell(&mut core, Done::Claimed(owner(2)));
    let [Effect::Perform(Op::Join { me, was: Some(was), enters: false, .. })] = &first[..] else { panic!("{first:?}") };
    assert_eq!((me.owner.fence, was.owner.fence), (Fence(2), Fence(1)));
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["do Join"]);
    let last = tell(&mut core, joined("#b"));
    let [Effect::Perform(Op::Release(old, old_owner, new))] = &last[..] else { panic!("{last:?}") };
    assert_eq!((old, old_owner.fence, new), (&nick("ann"), Fence(1), &nick("anna")));
    assert_eq!(words(&tell(&mut core, Done::Settled)), ["Nick"]);
    assert_eq!(core.identity().unwrap().owner, owner(2));
}

#[test]
fn a_new_name_says_about_itself_what_the_old_one_did() {
    let mut core = member("ann", &["#a"]);
    let away = Status { status: Availability::Away, text: "tea".into() };
    ask(&mut core, Command::Status(away.clone()));
    tell(&mut core, Done::Settled);
    ask(&mut core, Command::Nick { nick: nick("anna") });
    let first = tell(&mut core, Done::Claimed(owner(2)));
    let [Effect::Perform(Op::SetStatus(me, status, rooms))] = &first[..] else { panic!("{first:?}") };
    assert_eq!((&me.nick, me.owner.fence, status, rooms.len()), (&nick("anna"), Fence(2), &away, 0));
    assert_eq!(words(&tell(&mut core, Done::Settled)), ["do Join"]);
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["do Release"]);
    assert_eq!(words(&tell(&mut core, Done::Settled)), ["Nick"]);
    assert_eq!(core.identity().unwrap().status, away);
}

#[test]
fn a_change_of_case_keeps_the_claim() {
    let mut core = member("ann", &["#a"]);
    assert_eq!(words(&ask(&mut core, Command::Nick { nick: nick("ann") })), ["Nick"], "nothing to do");
    assert_eq!(words(&ask(&mut core, Command::Nick { nick: nick("Ann") })), ["do Claim"]);
    assert_eq!(words(&tell(&mut core, Done::Claimed(owner(1)))), ["do Join"]);
    assert_eq!(words(&tell(&mut core, joined("#a"))), ["Nick"], "the claim is the same: nothing is given back");
}

#[test]
fn a_change_of_name_that_stops_half_way_ends_the_session() {
    let mut core = member("ann", &["#a"]);
    ask(&mut core, Command::Nick { nick: nick("bob") });
    assert_eq!(words(&fail(&mut core, ErrorCode::NickInUse)), ["nick_in_use"], "nothing has happened yet");
    ask(&mut core, Command::Nick { nick: nick("bob") });
    assert_eq!(words(&fail(&mut core, ErrorCode::OutcomeUnknown)), ["outcome_unknown", "close restart"]);
    let mut core = member("ann", &["#a"]);
    ask(&mut core, Command::Nick { nick: nick("bob") });
    tell(&mut core, Done::Claimed(owner(2)));
    assert_eq!(words(&fail(&mut core, ErrorCode::Unavailable)), ["unavailable", "close restart"]);
}

/// Something a client may send, from two small numbers.
fn command(kind: u8, which: u8) -> Command {
    let name = ["#a", "#b", "#c"][usize::from(which % 3)];
    let who = ["ann", "bob", "eve"][usize::from(which % 3)];
    match kind {
        0 => register(who),
        1 => Command::Join { room: room(name), since: None },
        2 => Command::Leave { room: room(name) },
        3 => say(name),
        4 => say(who),
        5 => Command::Nick { nick: nick(who) },
        6 => Command::Status(Status::default()),
        7 => Command::Members { room: room(name), limit: 10, cursor: None },
        8 => Command::History { room: room(name), range: Range::Newest, limit: 10 },
        9 => Command::Rooms { limit: 10, cursor: None },
        10 => resume(who, &["#a"]),
        11 => Command::Read { seq: 1 },
        12 => Command::Typing { to: Target::Room(room(name)) },
        13 => Command::Typing { to: Target::Nick(nick(who)) },
        _ => Command::Ping,
    }
}

/// What a store that does everything would answer.
fn outcome(op: &Op, fence: &mut u64) -> Done {
    match op {
        Op::Claim(_, session) => {
            *fence += 1;
            if session.is_some() { Done::Claimed(owner(*fence)) } else { begun(*fence) }
        }
        Op::Resume(..) => {
            *fence += 1;
            Done::Resumed(beginning(*fence), resumption(&["#a", "#c"]))
        }
        Op::Inbox(_) => Done::Inbox(inbox()),
        Op::Release(..) | Op::Leave(..) | Op::SetStatus(..) | Op::Read(..) | Op::Typing(..) => Done::Settled,
        Op::Join { room, .. } => joined(room.as_str()),
        Op::Publish(..) | Op::Direct(..) => {
            Done::Published { msg_id: "m".into(), seq: 1, time: 1, duplicate: false, online: true }
        }
        Op::Members(..) => Done::Members(Vec::new(), None),
        Op::Rooms(..) => Done::Rooms(Vec::new(), None),
        Op::History(..) => Done::History(Vec::new(), false),
    }
}

proptest! {
    /// Whatever a client sends and however the stores answer: every request gets exactly one reply with its own id, one
    /// op is out at a time and comes last, and nothing but a claim is done for somebody without a name.
    #[test]
    fn every_request_gets_one_reply(life in prop::collection::vec((0_u8..15, 0_u8..3, prop::bool::weighted(0.8)), 1..60)) {
        let (mut core, mut fence) = (core(), 0);
        for (number, (kind, which, works)) in life.into_iter().enumerate() {
            let id = Some(RawValue::from_string(number.to_string()).unwrap());
            let mut effects = core.request(Instant::now(), Request { id, command: command(kind, which) });
            let mut replies = Vec::new();
            loop {
                let mut op = None;
                for effect in effects {
                    prop_assert!(op.is_none(), "an op comes last");
                    match effect {
                        Effect::Reply(reply) => replies.push(reply.id.unwrap().get().to_owned()),
                        Effect::Perform(next) => op = Some(next),
                        Effect::Admit(_) | Effect::Confirm | Effect::Close(_) => {}
                    }
                }
                let Some(op) = op else { break };
                prop_assert!(core.identity().is_some() || matches!(op, Op::Claim(_, None) | Op::Resume(..)));
                let answer = if works { Ok(outcome(&op, &mut fence)) } else { Err(ErrorCode::Unavailable.into()) };
                effects = core.outcome(Instant::now(), answer);
            }
            prop_assert_eq!(replies, vec![number.to_string()]);
            prop_assert!(core.rooms().count() <= MAX_ROOMS);
        }
    }
}
