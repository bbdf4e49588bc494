//! The hub by itself: what arrives in which outbox.
#![allow(clippy::unwrap_used)]

mod rounds;

use std::time::Duration;

use presence::model::{LeftReason, MemberInfo, MemberLeft, Status};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use super::*;
use crate::message::{Accepted, Body};
use crate::metrics::Metrics;
use crate::outbound::outbox::Outgoing;
use crate::wire::Dialect;

fn hub() -> Hub {
    Hub::new(Metrics::new().counts)
}

fn message(seq: u64) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        msg_id: format!("m{seq}"),
        seq,
        time: 1,
        body: Body::from_text("hi"),
        accepted: Accepted::default(),
    }
}

fn arrive(hub: &Hub, room: &RoomName, seq: u64) {
    hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message: message(seq) });
}

/// Gives out one portion, in no time.
fn give_out(hub: &Hub) -> bool {
    let now = Instant::now();
    hub.give_out(|| now)
}

fn give_all_out(hub: &Hub) {
    while give_out(hub) {}
}

/// The events that wait in an outbox once everything is given out, as JSON.
fn waiting(hub: &Hub, outbox: &Outbox) -> Vec<serde_json::Value> {
    give_all_out(hub);
    let batch = outbox.take().unwrap();
    let events = batch.items.into_iter().flat_map(|item| match item {
        Outgoing::Event(text) => vec![serde_json::from_slice(&text).unwrap()],
        Outgoing::Batch(frames) => unframed(&frames),
        _ => Vec::new(),
    });
    events.collect()
}

/// The texts of these WebSocket frames, as JSON.
fn unframed(frames: &[u8]) -> Vec<serde_json::Value> {
    let mut client = WebSocket::from_raw_socket(std::io::Cursor::new(frames.to_vec()), Role::Client, None);
    let texts = std::iter::from_fn(|| client.read().ok());
    texts.map(|text| serde_json::from_str(text.to_text().unwrap()).unwrap()).collect()
}

fn seqs(hub: &Hub, outbox: &Outbox) -> Vec<u64> {
    waiting(hub, outbox).iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn head(top: u64) -> StreamEnd {
    StreamEnd { epoch: "e".into(), top, forks: Vec::new() }
}

/// Where a log ends in epoch `f`, which began after this message of `e`.
fn forked(fork: u64, top: u64) -> StreamEnd {
    StreamEnd { epoch: "f".into(), top, forks: presence::model::stream::read_forks(&format!("e:{fork}")) }
}

fn log() -> StreamId {
    StreamId::Room(room().key().clone())
}

fn admit(hub: &Hub, newcomer: (&SessionId, &Outbox), epoch: &str, after: u64) -> JoinProgress {
    hub.admit(&log(), "#lobby", newcomer, epoch, after)
}

/// Joins at this top, without a past.
fn enter(hub: &Hub, newcomer: (&SessionId, &Outbox), top: u64) {
    hub.begin(&log(), &head(top));
    assert_eq!(admit(hub, newcomer, "e", top), JoinProgress::Entered);
}

fn room() -> RoomName {
    RoomName::parse("#lobby").unwrap()
}

#[test]
fn a_member_hears_everything_after_its_entry_once_and_in_order() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    arrive(&hub, &room, 1);
    hub.prepare(&room, &session, &outbox);
    arrive(&hub, &room, 2);
    assert!(seqs(&hub, &outbox).is_empty(), "nothing before the entry is answered");
    enter(&hub, (&session, &outbox), 2);
    arrive(&hub, &room, 3);
    arrive(&hub, &room, 4);
    assert_eq!(seqs(&hub, &outbox), [3, 4]);
    enter(&hub, (&session, &outbox), 9);
    arrive(&hub, &room, 5);
    assert_eq!(seqs(&hub, &outbox), [5], "a second admission changes nothing");
}

#[test]
fn a_late_delivery_from_before_the_entry_is_not_shown() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&room, &session, &outbox);
    enter(&hub, (&session, &outbox), 7);
    arrive(&hub, &room, 7);
    arrive(&hub, &room, 8);
    assert_eq!(seqs(&hub, &outbox), [8]);
}

#[test]
fn presence_is_shown_once_per_round_and_a_missed_change_is_told() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&room, &session, &outbox);
    enter(&hub, (&session, &outbox), 0);
    let change = |version, delta| hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    let joined = |nick: &str| PresenceDelta {
        joined: vec![MemberInfo { nick: nick.into(), status: Status::default() }],
        ..PresenceDelta::default()
    };
    change(4, joined("bob"));
    change(5, joined("eve"));
    hub.show_presence();
    let shown = waiting(&hub, &outbox);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["joined"].as_array().unwrap().len(), 2);
    assert!(shown[0].get("resync").is_none());
    hub.show_presence();
    assert!(waiting(&hub, &outbox).is_empty());

    let left = MemberLeft { nick: "bob".into(), reason: LeftReason::Left };
    change(7, PresenceDelta { left: vec![left], ..PresenceDelta::default() });
    hub.show_presence();
    assert_eq!(waiting(&hub, &outbox)[0]["resync"], true, "6 was missed");
    for (version, resync) in [(8, false), (8, true), (1, true)] {
        change(version, joined("dan"));
        hub.show_presence();
        let told = waiting(&hub, &outbox)[0].get("resync").is_some();
        assert_eq!(told, resync, "{version}: a store that lost something counts from before, or anew");
    }
    hub.deliver(Delivery::Resumed);
    hub.show_presence();
    assert_eq!(waiting(&hub, &outbox)[0]["resync"], true, "anything may have been missed");
}

#[test]
fn a_crowd_that_leaves_at_once_costs_nobody_who_stays_their_connection() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&room, &session, &outbox);
    enter(&hub, (&session, &outbox), 0);
    for version in 0..20 {
        let lost = |n: u64| MemberLeft { nick: format!("{n:064}"), reason: LeftReason::GatewayLost };
        let left = (0..200).map(|n| lost(version * 200 + n)).collect();
        let delta = PresenceDelta { left, ..PresenceDelta::default() };
        hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    }
    hub.show_presence();
    assert_eq!(outbox.closing(), None);
    assert_eq!(waiting(&hub, &outbox)[0]["resync"], true, "and is told to ask who is left");
}

#[test]
fn presence_names_the_room_as_the_store_does_and_not_as_its_first_member_here_typed_it() {
    let (hub, session) = (hub(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&RoomName::parse("#LOBBY").unwrap(), &session, &outbox);
    enter(&hub, (&session, &outbox), 0);
    let bob = MemberInfo { nick: "bob".into(), status: Status::default() };
    let delta = PresenceDelta { joined: vec![bob], ..PresenceDelta::default() };
    hub.deliver(Delivery::Presence { room: room().key().clone(), version: 1, delta });
    hub.show_presence();
    assert_eq!(waiting(&hub, &outbox)[0]["room"], "#lobby");
}

fn direct(hub: &Hub, session: &SessionId, epoch: &str, seq: u64) {
    hub.deliver(Delivery::Direct { session: session.clone(), epoch: epoch.into(), message: message(seq) });
}

/// A session with a connection, and its inbox.
fn attached(hub: &Hub, nick: &str) -> (Owner, Outbox, StreamId) {
    let (owner, outbox) = (owner(&SessionId::random(), &Incarnation::random(), 1), Outbox::new(Dialect::Json));
    hub.attach(&owner, &Nick::parse(nick).unwrap(), &outbox);
    let inbox = StreamId::Inbox(owner.session.clone());
    (owner, outbox, inbox)
}

#[tokio::test]
async fn direct_messages_are_held_back_and_then_come_once_in_order_and_named_as_the_receiver_is() {
    let hub = hub();
    let (owner, outbox, inbox) = attached(&hub, "Bob");
    let admit = |after| hub.admit(&inbox, "Bob", (&owner.session, &outbox), "e", after);
    direct(&hub, &owner.session, "e", 3);
    assert_eq!(admit(2), JoinProgress::Behind, "where the log ends is not known yet");
    hub.begin(&inbox, &head(3));
    direct(&hub, &owner.session, "e", 4);
    assert!(told(&hub, &outbox).is_empty(), "nobody has said where the client is");
    assert_eq!(admit(2), JoinProgress::Behind, "3 has to be read");
    assert_eq!(admit(3), JoinProgress::Entered);
    direct(&hub, &owner.session, "e", 4);
    direct(&hub, &owner.session, "e", 5);
    let events = waiting(&hub, &outbox);
    assert!(events.iter().all(|event| event["to"] == "Bob"), "{events:?}");
    assert_eq!(events.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 5]);

    direct(&hub, &owner.session, "e", 7);
    assert!(told(&hub, &outbox).is_empty());
    hub.rename(&owner, &Nick::parse("Rob").unwrap());
    let asks = asked(&hub).await;
    hub.read(&inbox, &asks[0].1, page(&[6], 7));
    let last = waiting(&hub, &outbox);
    assert_eq!((&last[0]["seq"], &last[0]["to"], &last[1]["seq"]), (&6.into(), &"Rob".into(), &7.into()));
    hub.detach(&owner);
    direct(&hub, &owner.session, "e", 8);
    assert!(told(&hub, &outbox).is_empty());
    assert_eq!(hub.census(), Census { sessions: 0, rooms: 0 });
}

#[tokio::test]
async fn a_direct_message_that_comes_before_the_answer_to_the_claim_is_read() {
    let hub = hub();
    let (owner, outbox) = (owner(&SessionId::random(), &Incarnation::random(), 1), Outbox::new(Dialect::Json));
    let (nick, inbox) = (Nick::parse("bob").unwrap(), StreamId::Inbox(owner.session.clone()));
    hub.expect(&owner.session, &nick, &outbox);
    direct(&hub, &owner.session, "e", 1);
    hub.attach(&owner, &nick, &outbox);
    hub.begin(&inbox, &head(0));
    assert_eq!(hub.admit(&inbox, "bob", (&owner.session, &outbox), "e", 0), JoinProgress::Entered);
    let asks = asked(&hub).await;
    hub.read(&inbox, &asks[0].1, Reading::Top(head(1)));
    let asks = asked(&hub).await;
    hub.read(&inbox, &asks[0].1, page(&[1], 1));
    assert_eq!(told(&hub, &outbox), ["1"]);

    let other = SessionId::random();
    hub.expect(&other, &nick, &outbox);
    hub.forget(&other);
    assert_eq!(
        hub.admit(&StreamId::Inbox(other), "bob", (&owner.session, &outbox), "e", 0),
        JoinProgress::Entered,
        "no such log"
    );
}

#[tokio::test]
async fn direct_messages_that_were_said_while_the_subscription_was_away_are_read() {
    let hub = hub();
    let (owner, outbox, inbox) = attached(&hub, "bob");
    hub.begin(&inbox, &head(0));
    hub.admit(&inbox, "bob", (&owner.session, &outbox), "e", 0);
    hub.deliver(Delivery::Resumed);
    let asks = asked(&hub).await;
    hub.read(&inbox, &asks[0].1, Reading::Top(head(2)));
    let asks = asked(&hub).await;
    hub.read(&inbox, &asks[0].1, page(&[1, 2], 2));
    assert_eq!(told(&hub, &outbox), ["1", "2"]);
}

#[tokio::test]
async fn an_older_connection_lets_no_newer_one_into_the_inbox() {
    let hub = hub();
    let (older, old, inbox) = attached(&hub, "bob");
    hub.begin(&inbox, &head(0));
    let newer = Owner { fence: Fence(2), ..older.clone() };
    let new = Outbox::new(Dialect::Json);
    hub.attach(&newer, &Nick::parse("bob").unwrap(), &new);
    assert_eq!(hub.admit(&inbox, "bob", (&older.session, &old), "e", 0), JoinProgress::Entered);
    hub.detach(&older);
    direct(&hub, &newer.session, "e", 1);
    assert!(told(&hub, &old).is_empty() && told(&hub, &new).is_empty(), "the newer one has not said where it is");
    assert_eq!(hub.admit(&inbox, "bob", (&newer.session, &new), "e", 0), JoinProgress::Entered);
    assert_eq!(told(&hub, &new), ["1"]);
}

fn owner(session: &SessionId, incarnation: &Incarnation, fence: u64) -> Owner {
    Owner { incarnation: incarnation.clone(), session: session.clone(), fence: Fence(fence) }
}

#[test]
fn of_two_connections_of_a_session_the_newer_claim_stays() {
    let (hub, session, here) = (hub(), SessionId::random(), Incarnation::random());
    let nick = Nick::parse("ann").unwrap();
    let (old, new) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    let (first, second) = (owner(&session, &here, 1), owner(&session, &here, 2));
    hub.attach(&first, &nick, &old);
    hub.taken_over(&session, Fence(7));
    assert_eq!(old.closing(), None, "another claim is not its own");
    hub.attach(&second, &nick, &new);
    assert_eq!(old.closing(), Some(CloseCode::TakenOver));

    // What is late for the first connection does nothing to the second.
    hub.taken_over(&session, Fence(1));
    hub.detach(&first);
    assert_eq!((new.closing(), hub.census().sessions), (None, 1));
    hub.taken_over(&session, Fence(2));
    assert_eq!(new.closing(), Some(CloseCode::TakenOver));
    hub.detach(&second);
    assert_eq!(hub.census().sessions, 0);
}

#[test]
fn only_the_lost_lease_loses_its_sessions() {
    let hub = hub();
    let (lost, kept) = (Incarnation::random(), Incarnation::random());
    let (a, b) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.attach(&owner(&SessionId::random(), &lost, 1), &Nick::parse("a").unwrap(), &a);
    hub.attach(&owner(&SessionId::random(), &kept, 1), &Nick::parse("b").unwrap(), &b);
    hub.close_incarnation(&lost, CloseCode::Restart);
    assert_eq!((a.closing(), b.closing()), (Some(CloseCode::Restart), None));
}

#[test]
fn a_room_without_local_members_is_forgotten() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let (old, new) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.prepare(&room, &session, &old);
    hub.prepare(&room, &session, &new);
    hub.remove(room.key(), &session, &old);
    assert_eq!(hub.census().rooms, 1, "the session is in over its newer connection");
    hub.remove(room.key(), &session, &new);
    hub.remove(room.key(), &session, &new);
    assert_eq!(hub.census().rooms, 0);
}

/// The words for what waits: `3`, `gap 4-6`, `rewound 0`.
fn told(hub: &Hub, outbox: &Outbox) -> Vec<String> {
    let word = |event: &serde_json::Value| match event["type"].as_str().unwrap() {
        "message" => event["seq"].to_string(),
        "gap" => format!("gap {}-{}", event["from_seq"], event["to_seq"]),
        kind => format!("{kind} {}", event["seq"]),
    };
    waiting(hub, outbox).iter().map(word).collect()
}

/// What rooms ask for, which they do at once.
async fn asked(hub: &Hub) -> Vec<(StreamId, Ask)> {
    tokio::time::timeout(Duration::from_secs(5), hub.asks()).await.expect("a room asks for something")
}

fn page(kept: &[u64], top: u64) -> Reading {
    let messages = kept.iter().map(|&seq| (seq, message(seq))).collect();
    Reading::Page(StreamPage { head: head(top), messages, through: top })
}

#[test]
fn a_member_that_was_here_before_enters_where_what_it_read_meets_what_is_kept() {
    let (hub, room) = (hub(), room());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (of_ann, of_bob) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.prepare(&room, &ann, &of_ann);
    enter(&hub, (&ann, &of_ann), 5);
    hub.prepare(&room, &bob, &of_bob);
    arrive(&hub, &room, 6);
    hub.begin(&log(), &head(6));
    arrive(&hub, &room, 7);
    let enter = |after| admit(&hub, (&bob, &of_bob), "e", after);
    assert_eq!(enter(2), JoinProgress::Behind, "3 to 5 are not kept");
    assert!(told(&hub, &of_bob).is_empty(), "nothing goes out before its turn");
    arrive(&hub, &room, 8);
    assert_eq!(admit(&hub, (&bob, &of_bob), "f", 6), JoinProgress::Behind, "a position in another history");
    assert_eq!(enter(5), JoinProgress::Entered);
    arrive(&hub, &room, 9);
    assert_eq!(told(&hub, &of_bob), ["6", "7", "8", "9"]);
    assert_eq!(told(&hub, &of_ann), ["6", "7", "8", "9"]);
}

#[test]
fn a_member_may_have_read_further_than_the_room_has_heard() {
    let (hub, room) = (hub(), room());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (of_ann, of_bob) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.prepare(&room, &ann, &of_ann);
    enter(&hub, (&ann, &of_ann), 5);
    hub.prepare(&room, &bob, &of_bob);
    assert_eq!(admit(&hub, (&bob, &of_bob), "e", 8), JoinProgress::Entered);
    for seq in 6..=9 {
        arrive(&hub, &room, seq);
    }
    assert_eq!(
        (told(&hub, &of_bob), told(&hub, &of_ann)),
        (vec!["9".to_owned()], ["6", "7", "8", "9"].map(str::to_owned).to_vec())
    );
}

#[test]
fn what_is_kept_for_a_member_is_bounded_and_the_log_has_the_rest() {
    let (hub, room) = (hub(), room());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (of_ann, of_bob) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.prepare(&room, &ann, &of_ann);
    enter(&hub, (&ann, &of_ann), 0);
    hub.prepare(&room, &bob, &of_bob);
    for seq in 1..=2000 {
        arrive(&hub, &room, seq);
        let _ = of_ann.take().unwrap();
    }
    assert_eq!(admit(&hub, (&bob, &of_bob), "e", 0), JoinProgress::Behind);
    assert_eq!(of_bob.closing(), None, "nobody is closed for it");
    assert_eq!(admit(&hub, (&bob, &of_bob), "e", 1990), JoinProgress::Entered);
    assert_eq!(seqs(&hub, &of_bob), Vec::from_iter(1991..=2000));
}

#[tokio::test]
async fn a_hole_is_asked_for_and_its_filling_reaches_everybody_in_one_order() {
    let (hub, room) = (hub(), room());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (of_ann, of_bob) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.prepare(&room, &ann, &of_ann);
    enter(&hub, (&ann, &of_ann), 1);
    arrive(&hub, &room, 5);
    // Bob joins at 4, of which the room has not heard yet.
    hub.prepare(&room, &bob, &of_bob);
    assert_eq!(admit(&hub, (&bob, &of_bob), "e", 4), JoinProgress::Entered);
    let asks = asked(&hub).await;
    let [(of, ask @ Ask::Page(place))] = &asks[..] else { panic!("{asks:?}") };
    assert_eq!((of, place.seq), (&log(), 1));
    hub.read(of, ask, page(&[4], 5));
    assert_eq!(told(&hub, &of_ann), ["gap 2-3", "4", "5"]);
    assert_eq!(told(&hub, &of_bob), ["5"], "what is gone was before his time");

    arrive(&hub, &room, 9);
    let asks = asked(&hub).await;
    hub.read(&log(), &asks[0].1, Reading::Failed);
    let asks = asked(&hub).await;
    hub.read(&log(), &asks[0].1, page(&[], 9));
    assert_eq!(told(&hub, &of_bob), ["gap 6-8", "9"], "a failed reading is tried again");
}

#[tokio::test]
async fn after_the_subscription_was_away_every_room_asks_for_its_top_and_every_member_gets_what_was_missed() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&room, &session, &outbox);
    hub.deliver(Delivery::Resumed);
    enter(&hub, (&session, &outbox), 1);
    let asks = asked(&hub).await;
    let [(_, ask @ Ask::Top(_))] = &asks[..] else { panic!("{asks:?}") };
    hub.read(&log(), ask, Reading::Top(head(2)));
    let asks = asked(&hub).await;
    hub.read(&log(), &asks[0].1, page(&[2], 2));
    assert_eq!(told(&hub, &outbox), ["2"]);
}

#[tokio::test]
async fn each_member_is_told_what_of_it_still_holds_in_another_history() {
    let (hub, room) = (hub(), room());
    let people = [(); 3].map(|()| (SessionId::random(), Outbox::new(Dialect::Json)));
    let [(ann, of_ann), (bob, of_bob), (carl, of_carl)] = &people;
    hub.prepare(&room, ann, of_ann);
    enter(&hub, (ann, of_ann), 4);
    arrive(&hub, &room, 5);
    for (session, outbox, after) in [(bob, of_bob, 7), (carl, of_carl, 6)] {
        hub.prepare(&room, session, outbox);
        assert_eq!(admit(&hub, (session, outbox), "e", after), JoinProgress::Entered);
    }
    // The store has lost 7, and this is not the one it was.
    hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "f".into(), message: message(7) });
    let asks = asked(&hub).await;
    let [(_, ask @ Ask::Top(_))] = &asks[..] else { panic!("{asks:?}") };
    hub.read(&log(), ask, Reading::Top(forked(6, 7)));
    let asks = asked(&hub).await;
    let messages = [6, 7].map(|seq| (seq, message(seq))).into();
    hub.read(&log(), &asks[0].1, Reading::Page(StreamPage { head: forked(6, 7), messages, through: 7 }));
    assert_eq!(told(&hub, of_ann), ["5", "epoch 5", "6", "7"]);
    assert_eq!(told(&hub, of_bob), ["rewound 6", "7"], "it had read ahead");
    assert_eq!(told(&hub, of_carl), ["epoch 6", "7"]);
}
