//! The hub alone: which outbox receives what.
#![allow(clippy::unwrap_used)]

mod announcements;
mod fan_out;

use std::sync::LazyLock;
use std::time::Duration;

use presence::model::{LeftReason, MemberInfo, MemberLeft, PresenceDelta, Status};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use super::*;
use crate::message::{Accepted, Body};
use crate::metrics::Metrics;
use crate::outbound::outbox::Outgoing;
use crate::wire::Dialect;

fn new_hub() -> Hub {
    Hub::new(Metrics::new().counts)
}

fn message(seq: u64) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
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

/// Writes one portion. Its time is constant, so no job is long enough to pause its room.
fn fan_out_portion(hub: &Hub) -> bool {
    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
    hub.fan_out_portion(|| *NOW)
}

fn fan_out_all(hub: &Hub) {
    while fan_out_portion(hub) {}
}

/// Fans out everything pending and takes the events of one outbox, as JSON.
fn take_events(hub: &Hub, outbox: &Outbox) -> Vec<serde_json::Value> {
    fan_out_all(hub);
    let taken = outbox.take().unwrap();
    let events = taken.items.into_iter().flat_map(|item| match item {
        Outgoing::Event(text) => vec![serde_json::from_slice(&text).unwrap()],
        Outgoing::Batch(frames) => unframed(&frames),
        _ => Vec::new(),
    });
    events.collect()
}

/// Parses the JSON texts of WebSocket frames.
fn unframed(frames: &[u8]) -> Vec<serde_json::Value> {
    let mut client = WebSocket::from_raw_socket(std::io::Cursor::new(frames.to_vec()), Role::Client, None);
    let texts = std::iter::from_fn(|| client.read().ok());
    texts.map(|text| serde_json::from_str(text.to_text().unwrap()).unwrap()).collect()
}

fn seqs(hub: &Hub, outbox: &Outbox) -> Vec<u64> {
    take_events(hub, outbox).iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn end(top: u64) -> StreamEnd {
    StreamEnd { epoch: "e".into(), seq: top, forks: Vec::new() }
}

/// The end of a stream in epoch `f`, which forked from `e` after this seq.
fn forked(fork: u64, top: u64) -> StreamEnd {
    StreamEnd { epoch: "f".into(), seq: top, forks: presence::model::stream::read_forks(&format!("e:{fork}")) }
}

fn lobby_stream() -> StreamId {
    StreamId::Room(lobby().key().clone())
}

fn complete_join(hub: &Hub, (session, outbox): (&SessionId, &Outbox), epoch: &str, after: u64) -> JoinProgress {
    hub.complete_join(&lobby_stream(), &FeedJoin { display: "#lobby", session, outbox, epoch, after })
}

/// Joins the inbox of this session.
fn join_inbox(hub: &Hub, display: &str, (session, outbox): (&SessionId, &Outbox), after: u64) -> JoinProgress {
    let inbox = StreamId::Inbox(session.clone());
    hub.complete_join(&inbox, &FeedJoin { display, session, outbox, epoch: "e", after })
}

/// Joins the lobby at this end, without replay.
fn join_at(hub: &Hub, member: (&SessionId, &Outbox), top: u64) {
    hub.observe_end(&lobby_stream(), &end(top));
    assert_eq!(complete_join(hub, member, "e", top), JoinProgress::Entered);
}

fn lobby() -> RoomName {
    RoomName::parse("#lobby").unwrap()
}

#[test]
fn member_receives_later_messages_once_in_order() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    arrive(&hub, &room, 1);
    hub.start_join(&room, &session, &outbox);
    arrive(&hub, &room, 2);
    assert!(seqs(&hub, &outbox).is_empty(), "nothing is delivered before the join is complete");
    join_at(&hub, (&session, &outbox), 2);
    arrive(&hub, &room, 3);
    arrive(&hub, &room, 4);
    assert_eq!(seqs(&hub, &outbox), [3, 4]);
    join_at(&hub, (&session, &outbox), 9);
    arrive(&hub, &room, 5);
    assert_eq!(seqs(&hub, &outbox), [5], "a second join changes nothing");
}

#[test]
fn message_from_before_the_join_is_not_delivered() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&room, &session, &outbox);
    join_at(&hub, (&session, &outbox), 7);
    arrive(&hub, &room, 7);
    arrive(&hub, &room, 8);
    assert_eq!(seqs(&hub, &outbox), [8]);
}

#[test]
fn presence_is_summed_and_gaps_cause_resync() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&room, &session, &outbox);
    join_at(&hub, (&session, &outbox), 0);
    let change = |version, delta| hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    let joined = |nick: &str| PresenceDelta {
        joined: vec![MemberInfo { nick: nick.into(), user: None, status: Status::default() }],
        ..PresenceDelta::default()
    };
    change(4, joined("bob"));
    change(5, joined("eve"));
    hub.flush_presence();
    let shown = take_events(&hub, &outbox);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["joined"].as_array().unwrap().len(), 2);
    assert!(shown[0].get("resync").is_none());
    hub.flush_presence();
    assert!(take_events(&hub, &outbox).is_empty());

    let left = MemberLeft { nick: "bob".into(), reason: LeftReason::Left };
    change(7, PresenceDelta { left: vec![left], ..PresenceDelta::default() });
    hub.flush_presence();
    assert_eq!(take_events(&hub, &outbox)[0]["resync"], true, "version 6 was missed");
    for (version, resync) in [(8, false), (8, true), (1, true)] {
        change(version, joined("dan"));
        hub.flush_presence();
        let is_resync = take_events(&hub, &outbox)[0].get("resync").is_some();
        assert_eq!(is_resync, resync, "version {version}: a store that lost data repeats versions or restarts them");
    }
    hub.deliver(Delivery::SubscriptionRestored);
    hub.flush_presence();
    assert_eq!(take_events(&hub, &outbox)[0]["resync"], true, "after an interruption any change may be missing");
}

#[test]
fn mass_departure_closes_no_remaining_connection() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&room, &session, &outbox);
    join_at(&hub, (&session, &outbox), 0);
    for version in 0..20 {
        let lost = |n: u64| MemberLeft { nick: format!("{n:064}"), reason: LeftReason::GatewayLost };
        let left = (0..200).map(|n| lost(version * 200 + n)).collect();
        let delta = PresenceDelta { left, ..PresenceDelta::default() };
        hub.deliver(Delivery::Presence { room: room.key().clone(), version, delta });
    }
    hub.flush_presence();
    assert_eq!(outbox.close_code(), None);
    assert_eq!(take_events(&hub, &outbox)[0]["resync"], true, "the member has to resync");
}

#[test]
fn presence_uses_the_stored_display_name() {
    let (hub, session) = (new_hub(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&RoomName::parse("#LOBBY").unwrap(), &session, &outbox);
    join_at(&hub, (&session, &outbox), 0);
    let bob = MemberInfo { nick: "bob".into(), user: None, status: Status::default() };
    let delta = PresenceDelta { joined: vec![bob], ..PresenceDelta::default() };
    hub.deliver(Delivery::Presence { room: lobby().key().clone(), version: 1, delta });
    hub.flush_presence();
    assert_eq!(take_events(&hub, &outbox)[0]["room"], "#lobby");
}

fn direct(hub: &Hub, session: &SessionId, epoch: &str, seq: u64) {
    hub.deliver(Delivery::Direct { session: session.clone(), epoch: epoch.into(), message: message(seq) });
}

/// Registers a session with a connection. Returns its inbox too.
fn register(hub: &Hub, nick: &str) -> (Owner, Outbox, StreamId) {
    let (owner, outbox) = (owner(&SessionId::random(), &Incarnation::random(), 1), Outbox::new(Dialect::Json));
    hub.register_session(&owner, &Nick::parse(nick).unwrap(), &outbox);
    let inbox = StreamId::Inbox(owner.session.clone());
    (owner, outbox, inbox)
}

#[tokio::test]
async fn hub_buffers_direct_messages_until_inbox_joins() {
    let hub = new_hub();
    let (owner, outbox, inbox) = register(&hub, "Bob");
    let join = |after| join_inbox(&hub, "Bob", (&owner.session, &outbox), after);
    direct(&hub, &owner.session, "e", 3);
    assert_eq!(join(2), JoinProgress::Behind, "the stream's end is not known yet");
    hub.observe_end(&inbox, &end(3));
    direct(&hub, &owner.session, "e", 4);
    assert!(take_short(&hub, &outbox).is_empty(), "the client's position is not known yet");
    assert_eq!(join(2), JoinProgress::Behind, "3 has to be replayed");
    assert_eq!(join(3), JoinProgress::Entered);
    direct(&hub, &owner.session, "e", 4);
    direct(&hub, &owner.session, "e", 5);
    let events = take_events(&hub, &outbox);
    assert!(events.iter().all(|event| event["to"] == "Bob"), "{events:?}");
    assert_eq!(events.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 5]);

    direct(&hub, &owner.session, "e", 7);
    assert!(take_short(&hub, &outbox).is_empty());
    hub.rename_session(&owner, &Nick::parse("Rob").unwrap());
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&inbox, &requests[0].1, page(&[6], 7));
    let last = take_events(&hub, &outbox);
    assert_eq!((&last[0]["seq"], &last[0]["to"], &last[1]["seq"]), (&6.into(), &"Rob".into(), &7.into()));
    hub.unregister_session(&owner);
    direct(&hub, &owner.session, "e", 8);
    assert!(take_short(&hub, &outbox).is_empty());
    assert_eq!(hub.size(), HubSize { sessions: 0, rooms: 0 });
}

#[tokio::test]
async fn direct_message_before_the_claim_reply_is_refilled() {
    let hub = new_hub();
    let (owner, outbox) = (owner(&SessionId::random(), &Incarnation::random(), 1), Outbox::new(Dialect::Json));
    let (nick, inbox) = (Nick::parse("bob").unwrap(), StreamId::Inbox(owner.session.clone()));
    hub.open_inbox(&owner.session, &nick, &outbox);
    direct(&hub, &owner.session, "e", 1);
    hub.register_session(&owner, &nick, &outbox);
    hub.observe_end(&inbox, &end(0));
    assert_eq!(join_inbox(&hub, "bob", (&owner.session, &outbox), 0), JoinProgress::Entered);
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&inbox, &requests[0].1, RefillResult::End(end(1)));
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&inbox, &requests[0].1, page(&[1], 1));
    assert_eq!(take_short(&hub, &outbox), ["1"]);

    let other = SessionId::random();
    hub.open_inbox(&other, &nick, &outbox);
    hub.discard_inbox(&other);
    assert_eq!(join_inbox(&hub, "bob", (&other, &outbox), 0), JoinProgress::Entered, "the inbox is gone");
}

#[tokio::test]
async fn direct_messages_are_refilled_after_an_interruption() {
    let hub = new_hub();
    let (owner, outbox, inbox) = register(&hub, "bob");
    hub.observe_end(&inbox, &end(0));
    join_inbox(&hub, "bob", (&owner.session, &outbox), 0);
    hub.deliver(Delivery::SubscriptionRestored);
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&inbox, &requests[0].1, RefillResult::End(end(2)));
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&inbox, &requests[0].1, page(&[1, 2], 2));
    assert_eq!(take_short(&hub, &outbox), ["1", "2"]);
}

#[tokio::test]
async fn older_connection_joins_no_inbox_of_newer() {
    let hub = new_hub();
    let (older, old, inbox) = register(&hub, "bob");
    hub.observe_end(&inbox, &end(0));
    let newer = Owner { fence: Fence(2), ..older.clone() };
    let new = Outbox::new(Dialect::Json);
    hub.register_session(&newer, &Nick::parse("bob").unwrap(), &new);
    assert_eq!(join_inbox(&hub, "bob", (&older.session, &old), 0), JoinProgress::Entered);
    hub.unregister_session(&older);
    direct(&hub, &newer.session, "e", 1);
    assert!(
        take_short(&hub, &old).is_empty() && take_short(&hub, &new).is_empty(),
        "the newer connection has not joined yet"
    );
    assert_eq!(join_inbox(&hub, "bob", (&newer.session, &new), 0), JoinProgress::Entered);
    assert_eq!(take_short(&hub, &new), ["1"]);
}

fn owner(session: &SessionId, incarnation: &Incarnation, fence: u64) -> Owner {
    Owner { incarnation: incarnation.clone(), session: session.clone(), fence: Fence(fence) }
}

#[test]
fn newer_claim_closes_older_connection_of_session() {
    let (hub, session, here) = (new_hub(), SessionId::random(), Incarnation::random());
    let nick = Nick::parse("ann").unwrap();
    let (old, new) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    let (first, second) = (owner(&session, &here, 1), owner(&session, &here, 2));
    hub.register_session(&first, &nick, &old);
    hub.close_taken_over(&session, Fence(7));
    assert_eq!(old.close_code(), None, "a report for another claim has no effect");
    hub.register_session(&second, &nick, &new);
    assert_eq!(old.close_code(), Some(CloseCode::TakenOver));

    // Late reports for the first connection do not affect the second.
    hub.close_taken_over(&session, Fence(1));
    hub.unregister_session(&first);
    assert_eq!((new.close_code(), hub.size().sessions), (None, 1));
    hub.close_taken_over(&session, Fence(2));
    assert_eq!(new.close_code(), Some(CloseCode::TakenOver));
    hub.unregister_session(&second);
    assert_eq!(hub.size().sessions, 0);
}

#[test]
fn lost_lease_closes_only_its_own_sessions() {
    let hub = new_hub();
    let (lost, kept) = (Incarnation::random(), Incarnation::random());
    let (a, b) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.register_session(&owner(&SessionId::random(), &lost, 1), &Nick::parse("a").unwrap(), &a);
    hub.register_session(&owner(&SessionId::random(), &kept, 1), &Nick::parse("b").unwrap(), &b);
    hub.close_incarnation(&lost, CloseCode::Restart);
    assert_eq!((a.close_code(), b.close_code()), (Some(CloseCode::Restart), None));
}

#[test]
fn room_without_local_members_is_removed() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let (old, new) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &session, &old);
    hub.start_join(&room, &session, &new);
    hub.leave_room(room.key(), &session, &old);
    assert_eq!(hub.size().rooms, 1, "the session has joined over its newer connection");
    hub.leave_room(room.key(), &session, &new);
    hub.leave_room(room.key(), &session, &new);
    assert_eq!(hub.size().rooms, 0);
}

/// Takes the events of one outbox in short form: `3`, `gap 4-6`, `rewound 0`.
fn take_short(hub: &Hub, outbox: &Outbox) -> Vec<String> {
    let short = |event: &serde_json::Value| match event["type"].as_str().unwrap() {
        "message" => event["seq"].to_string(),
        "gap" => format!("gap {}-{}", event["from_seq"], event["to_seq"]),
        kind => format!("{kind} {}", event["seq"]),
    };
    take_events(hub, outbox).iter().map(short).collect()
}

/// Takes the refill requests, which are due at once.
async fn refill_requests(hub: &Hub) -> Vec<(StreamId, RefillRequest)> {
    tokio::time::timeout(Duration::from_secs(5), hub.refill_requests()).await.expect("a refill is due")
}

fn page(seqs: &[u64], top: u64) -> RefillResult {
    let messages = seqs.iter().map(|&seq| (seq, message(seq))).collect();
    RefillResult::Page(StreamPage { end: end(top), messages, through: top })
}

#[test]
fn join_completes_where_replay_meets_the_buffer() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &ann, &ann_outbox);
    join_at(&hub, (&ann, &ann_outbox), 5);
    hub.start_join(&room, &bob, &bob_outbox);
    arrive(&hub, &room, 6);
    hub.observe_end(&lobby_stream(), &end(6));
    arrive(&hub, &room, 7);
    let complete = |after| complete_join(&hub, (&bob, &bob_outbox), "e", after);
    assert_eq!(complete(2), JoinProgress::Behind, "3 to 5 are not buffered");
    assert!(take_short(&hub, &bob_outbox).is_empty(), "nothing is delivered before the join is complete");
    arrive(&hub, &room, 8);
    assert_eq!(
        complete_join(&hub, (&bob, &bob_outbox), "f", 6),
        JoinProgress::Behind,
        "the position is of another epoch"
    );
    assert_eq!(complete(5), JoinProgress::Entered);
    arrive(&hub, &room, 9);
    assert_eq!(take_short(&hub, &bob_outbox), ["6", "7", "8", "9"]);
    assert_eq!(take_short(&hub, &ann_outbox), ["6", "7", "8", "9"]);
}

#[test]
fn replay_may_exceed_what_the_node_received() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &ann, &ann_outbox);
    join_at(&hub, (&ann, &ann_outbox), 5);
    hub.start_join(&room, &bob, &bob_outbox);
    assert_eq!(complete_join(&hub, (&bob, &bob_outbox), "e", 8), JoinProgress::Entered);
    for seq in 6..=9 {
        arrive(&hub, &room, seq);
    }
    assert_eq!(
        (take_short(&hub, &bob_outbox), take_short(&hub, &ann_outbox)),
        (vec!["9".to_owned()], ["6", "7", "8", "9"].map(str::to_owned).to_vec())
    );
}

#[test]
fn replay_covers_what_exceeds_the_join_buffer() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &ann, &ann_outbox);
    join_at(&hub, (&ann, &ann_outbox), 0);
    hub.start_join(&room, &bob, &bob_outbox);
    for seq in 1..=2000 {
        arrive(&hub, &room, seq);
        let _ = ann_outbox.take().unwrap();
    }
    assert_eq!(complete_join(&hub, (&bob, &bob_outbox), "e", 0), JoinProgress::Behind);
    assert_eq!(bob_outbox.close_code(), None, "a full join buffer closes no connection");
    assert_eq!(complete_join(&hub, (&bob, &bob_outbox), "e", 1990), JoinProgress::Entered);
    assert_eq!(seqs(&hub, &bob_outbox), Vec::from_iter(1991..=2000));
}

#[tokio::test]
async fn refilled_hole_reaches_every_member_in_one_order() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &ann, &ann_outbox);
    join_at(&hub, (&ann, &ann_outbox), 1);
    arrive(&hub, &room, 5);
    // Bob joins at 4, which the node has not received yet.
    hub.start_join(&room, &bob, &bob_outbox);
    assert_eq!(complete_join(&hub, (&bob, &bob_outbox), "e", 4), JoinProgress::Entered);
    let requests = refill_requests(&hub).await;
    let [(stream, request @ RefillRequest::Page(position))] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((stream, position.seq), (&lobby_stream(), 1));
    hub.apply_refill(stream, request, page(&[4], 5));
    assert_eq!(take_short(&hub, &ann_outbox), ["gap 2-3", "4", "5"]);
    assert_eq!(take_short(&hub, &bob_outbox), ["5"], "the gap lies before bob's position");

    arrive(&hub, &room, 9);
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&lobby_stream(), &requests[0].1, RefillResult::Failed);
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&lobby_stream(), &requests[0].1, page(&[], 9));
    assert_eq!(take_short(&hub, &bob_outbox), ["gap 6-8", "9"], "a failed refill is requested again");
}

#[tokio::test]
async fn restored_subscription_refills_missed_messages() {
    let (hub, room, session) = (new_hub(), lobby(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&room, &session, &outbox);
    hub.deliver(Delivery::SubscriptionRestored);
    join_at(&hub, (&session, &outbox), 1);
    let requests = refill_requests(&hub).await;
    let [(_, request @ RefillRequest::End(_))] = &requests[..] else { panic!("{requests:?}") };
    hub.apply_refill(&lobby_stream(), request, RefillResult::End(end(2)));
    let requests = refill_requests(&hub).await;
    hub.apply_refill(&lobby_stream(), &requests[0].1, page(&[2], 2));
    assert_eq!(take_short(&hub, &outbox), ["2"]);
}

#[tokio::test]
async fn epoch_change_is_reported_by_each_members_position() {
    let (hub, room) = (new_hub(), lobby());
    let members = [(); 3].map(|()| (SessionId::random(), Outbox::new(Dialect::Json)));
    let [(ann, ann_outbox), (bob, bob_outbox), (carl, carl_outbox)] = &members;
    hub.start_join(&room, ann, ann_outbox);
    join_at(&hub, (ann, ann_outbox), 4);
    arrive(&hub, &room, 5);
    for (session, outbox, after) in [(bob, bob_outbox, 7), (carl, carl_outbox, 6)] {
        hub.start_join(&room, session, outbox);
        assert_eq!(complete_join(&hub, (session, outbox), "e", after), JoinProgress::Entered);
    }
    // The store has lost 7 of epoch e; this is another message 7.
    hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "f".into(), message: message(7) });
    let requests = refill_requests(&hub).await;
    let [(_, request @ RefillRequest::End(_))] = &requests[..] else { panic!("{requests:?}") };
    hub.apply_refill(&lobby_stream(), request, RefillResult::End(forked(6, 7)));
    let requests = refill_requests(&hub).await;
    let messages = [6, 7].map(|seq| (seq, message(seq))).into();
    hub.apply_refill(
        &lobby_stream(),
        &requests[0].1,
        RefillResult::Page(StreamPage { end: forked(6, 7), messages, through: 7 }),
    );
    assert_eq!(take_short(&hub, ann_outbox), ["5", "epoch 5", "6", "7"]);
    assert_eq!(take_short(&hub, bob_outbox), ["rewound 6", "7"], "bob had read ahead");
    assert_eq!(take_short(&hub, carl_outbox), ["epoch 6", "7"]);
}
