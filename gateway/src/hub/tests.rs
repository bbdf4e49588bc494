//! The hub by itself: what arrives in which outbox.
#![allow(clippy::unwrap_used)]

use presence::model::{Departure, LeftReason, MemberInfo, Status};

use super::*;
use crate::message::Body;
use crate::session::outbox::Out;
use crate::wire::Format;

fn hub() -> Hub {
    let counter = |name| IntCounter::new(name, "of this test").unwrap();
    Hub::new(counter("delivered"), counter("left_out"))
}

fn message(seq: u64) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        msg_id: format!("m{seq}"),
        seq,
        time: 1,
        body: Body::from_text("hi"),
    }
}

fn arrive(hub: &Hub, room: &RoomName, seq: u64) {
    hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message: message(seq) });
}

/// The events that wait in an outbox, as JSON.
fn waiting(outbox: &Outbox) -> Vec<serde_json::Value> {
    let batch = outbox.take();
    let events = batch.items.into_iter().filter_map(|item| match item {
        Out::Event(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        _ => None,
    });
    events.collect()
}

fn seqs(outbox: &Outbox) -> Vec<u64> {
    waiting(outbox).iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn room() -> RoomName {
    RoomName::parse("#lobby").unwrap()
}

#[test]
fn a_member_hears_everything_after_its_entry_once_and_in_order() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    arrive(&hub, &room, 1);
    hub.prepare(&room, &session, &outbox);
    arrive(&hub, &room, 2);
    arrive(&hub, &room, 3);
    assert!(seqs(&outbox).is_empty(), "nothing before the entry is answered");
    hub.admit(&room, &session, 2);
    arrive(&hub, &room, 4);
    assert_eq!(seqs(&outbox), [3, 4]);
    hub.admit(&room, &session, 9);
    arrive(&hub, &room, 5);
    assert_eq!(seqs(&outbox), [5], "a second admission changes nothing");
}

#[test]
fn a_late_delivery_from_before_the_entry_is_not_shown() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    hub.prepare(&room, &session, &outbox);
    hub.admit(&room, &session, 7);
    arrive(&hub, &room, 7);
    arrive(&hub, &room, 8);
    assert_eq!(seqs(&outbox), [8]);
}

#[test]
fn presence_is_shown_once_per_round_and_a_missed_change_is_told() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    hub.prepare(&room, &session, &outbox);
    hub.admit(&room, &session, 0);
    let change = |version, delta| hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    let joined = |nick: &str| PresenceDelta {
        joined: vec![MemberInfo { nick: nick.into(), status: Status::default() }],
        ..PresenceDelta::default()
    };
    change(4, joined("bob"));
    change(5, joined("eve"));
    hub.show_presence();
    let shown = waiting(&outbox);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["joined"].as_array().unwrap().len(), 2);
    assert!(shown[0].get("resync").is_none());
    hub.show_presence();
    assert!(waiting(&outbox).is_empty());

    let left = Departure { nick: "bob".into(), reason: LeftReason::Left };
    change(7, PresenceDelta { left: vec![left], ..PresenceDelta::default() });
    hub.show_presence();
    assert_eq!(waiting(&outbox)[0]["resync"], true, "6 was missed");
    hub.deliver(Delivery::Resumed);
    hub.show_presence();
    assert_eq!(waiting(&outbox)[0]["resync"], true, "anything may have been missed");
}

#[test]
fn a_crowd_that_leaves_at_once_costs_nobody_who_stays_their_connection() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    hub.prepare(&room, &session, &outbox);
    hub.admit(&room, &session, 0);
    for version in 0..20 {
        let lost = |n: u64| Departure { nick: format!("{n:064}"), reason: LeftReason::GatewayLost };
        let left = (0..200).map(|n| lost(version * 200 + n)).collect();
        let delta = PresenceDelta { left, ..PresenceDelta::default() };
        hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    }
    hub.show_presence();
    assert_eq!(outbox.closing(), None);
    assert_eq!(waiting(&outbox)[0]["resync"], true, "and is told to ask who is left");
}

#[test]
fn presence_names_the_room_as_the_store_does_and_not_as_its_first_member_here_typed_it() {
    let (hub, session) = (hub(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    hub.prepare(&RoomName::parse("#LOBBY").unwrap(), &session, &outbox);
    hub.admit(&room(), &session, 0);
    let bob = MemberInfo { nick: "bob".into(), status: Status::default() };
    let delta = PresenceDelta { joined: vec![bob], ..PresenceDelta::default() };
    hub.deliver(Delivery::Presence { room: room().key().clone(), version: 1, delta });
    hub.show_presence();
    assert_eq!(waiting(&outbox)[0]["room"], "#lobby");
}

#[test]
fn a_direct_message_names_its_receiver_as_the_receiver_does() {
    let (hub, session) = (hub(), SessionId::random());
    let outbox = Outbox::new(Format::Json);
    hub.attach(&session, &Nick::parse("Bob").unwrap(), &Incarnation::random(), &outbox);
    hub.deliver(Delivery::Direct { session: session.clone(), message: message(1) });
    assert_eq!(waiting(&outbox)[0]["to"], "Bob");
    hub.detach(&session);
    hub.deliver(Delivery::Direct { session, message: message(2) });
    assert!(waiting(&outbox).is_empty());
}

#[test]
fn only_the_lost_lease_loses_its_sessions() {
    let hub = hub();
    let (lost, kept) = (Incarnation::random(), Incarnation::random());
    let (a, b) = (Outbox::new(Format::Json), Outbox::new(Format::Json));
    hub.attach(&SessionId::random(), &Nick::parse("a").unwrap(), &lost, &a);
    hub.attach(&SessionId::random(), &Nick::parse("b").unwrap(), &kept, &b);
    hub.close_incarnation(&lost, CloseCode::Restart);
    assert_eq!((a.closing(), b.closing()), (Some(CloseCode::Restart), None));
}

#[test]
fn a_room_without_local_members_is_forgotten() {
    let (hub, room, session) = (hub(), room(), SessionId::random());
    hub.prepare(&room, &session, &Outbox::new(Format::Json));
    assert_eq!(hub.census().rooms, 1);
    assert!(hub.remove(room.key(), &session));
    assert!(!hub.remove(room.key(), &session));
    assert_eq!(hub.census().rooms, 0);
}
