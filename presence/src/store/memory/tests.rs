//! Tests of the memory store's streams and retention. Leases, nicks and rooms are tested by the contract suite.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::model::{Incarnation, LeftReason, Nick, OfflineReason, Owner, RoomRules, Status, TokenHash};
use crate::registry::{
    ClaimRequest, DetachOutcome, GatewayInfo, HoldTerms, JoinEntry, JoinRequest, LeaveIntent, LeaveRequest,
    ReleaseCause, ResumeTicket,
};

/// One gateway with ann in a room and bob outside it.
struct World {
    store: Store,
    lobby: RoomName,
    ann: (Nick, Owner),
    bob: (Nick, Owner),
}

fn world() -> World {
    let store = Store::default();
    let incarnation = Incarnation::random();
    let info = GatewayInfo {
        node: "g1".into(),
        version: "1".into(),
        ws: String::new(),
        tcp: String::new(),
        admin: String::new(),
    };
    store.lock().open_lease(&incarnation, &info).unwrap();
    let claim = |name: &str| {
        let (nick, session) = (Nick::parse(name).unwrap(), SessionId::random());
        let fence = store
            .lock()
            .claim(ClaimRequest {
                incarnation: &incarnation,
                session: &session,
                nick: &nick,
                token: &TokenHash::of(b"secret"),
                user: None,
            })
            .unwrap();
        (nick, Owner { incarnation: incarnation.clone(), session, fence })
    };
    let (ann, bob) = (claim("ann"), claim("bob"));
    let lobby = RoomName::parse("#lobby").unwrap();
    store
        .lock()
        .join(JoinRequest {
            room: &lobby,
            nick: &ann.0,
            owner: &ann.1,
            user: None,
            status: &Status::default(),
            entry: JoinEntry::New,
            moderates: false,
        })
        .unwrap();
    World { store, lobby, ann, bob }
}

fn message<'a>((nick, owner): &'a (Nick, Owner), key: &'a str, payload: &'a str) -> Append<'a> {
    Append { from: nick.key(), owner, moderates: false, key: Some(key), adds_key: true, msg_id: key, payload }
}

fn listen(store: &Store, channel: &str) -> (Arc<Mutex<Vec<String>>>, ListenerGuard) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&heard);
    let listener = move |text: &[u8]| into.lock().unwrap().push(String::from_utf8(text.to_vec()).unwrap());
    let subscription = store.listen(channel, Arc::new(listener));
    (heard, subscription)
}

#[test]
fn append_numbers_stores_and_publishes_message() {
    let World { store, lobby, ann, .. } = world();
    let (heard, subscription) = listen(&store, &Keys::new("parley").room(lobby.key()).channel());
    let first = store.append(&lobby, message(&ann, "k1", "häi")).unwrap();
    let second = store.append(&lobby, message(&ann, "k2", "two\nlines")).unwrap();
    drop(subscription);
    store.append(&lobby, message(&ann, "k3", "unheard")).unwrap();

    assert_eq!((first.seq, second.seq, first.duplicate), (1, 2, false));
    assert!(second.time >= first.time);
    let epoch = store.lock().rooms.get(lobby.key()).unwrap().log.epoch().to_owned();
    let expected = [format!("M {epoch} 1 {} 4\nhäi", first.time), format!("M {epoch} 2 {} 9\ntwo\nlines", second.time)];
    assert_eq!(*heard.lock().unwrap(), expected);
    assert_eq!(store.lock().room(lobby.key()).unwrap().seq, 3);
}

#[test]
fn known_key_appends_no_second_message() {
    let World { store, lobby, ann, bob } = world();
    store
        .lock()
        .join(JoinRequest {
            room: &lobby,
            nick: &bob.0,
            owner: &bob.1,
            user: None,
            status: &Status::default(),
            entry: JoinEntry::New,
            moderates: false,
        })
        .unwrap();
    let (heard, _subscription) = listen(&store, &Keys::new("parley").room(lobby.key()).channel());
    let first = store.append(&lobby, message(&ann, "key", "hi")).unwrap();
    let again = store.append(&lobby, Append { msg_id: "other", ..message(&ann, "key", "changed") }).unwrap();
    assert_eq!(again, Appended { duplicate: true, ..first });
    // The same key of another sender, or for another receiver, is another key.
    assert!(!store.append(&lobby, message(&bob, "key", "hi")).unwrap().duplicate);
    assert!(!store.append_direct(bob.0.key(), message(&ann, "key", "hi")).unwrap().duplicate);
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[test]
fn append_requires_membership_and_live_lease() {
    let World { store, lobby, ann, bob } = world();
    assert_eq!(store.append(&lobby, message(&bob, "k", "hi")), Err(AppendError::NotInRoom));
    let as_ann = (ann.0.clone(), bob.1.clone());
    assert_eq!(store.append(&lobby, message(&as_ann, "k", "hi")), Err(AppendError::NotInRoom));
    let never = RoomName::parse("#never").unwrap();
    assert_eq!(store.append(&never, message(&ann, "k", "hi")), Err(AppendError::NotInRoom));
    assert!(store.lock().fence(&ann.1.incarnation, 0));
    assert_eq!(store.append(&lobby, message(&ann, "k", "hi")), Err(AppendError::Fenced));
    assert_eq!(store.append_direct(bob.0.key(), message(&ann, "k", "hi")), Err(AppendError::Fenced));
}

#[test]
fn direct_message_reaches_the_owners_gateway() {
    let World { store, ann, bob, .. } = world();
    let (heard, _subscription) = listen(&store, &Keys::new("parley").node(&bob.1.incarnation).channel());
    let sent = store.append_direct(bob.0.key(), message(&ann, "k1", "psst")).unwrap();
    assert_eq!(store.append_direct(bob.0.key(), message(&ann, "k2", "hey")).unwrap().seq, 2);
    let inbox = StreamId::Inbox(bob.1.session.clone());
    let epoch = store.end(&inbox).unwrap().epoch;
    assert_eq!(heard.lock().unwrap()[0], format!("D {} {epoch} 1 {} 4\npsst", bob.1.session, sent.time));

    let nobody = Nick::parse("nobody").unwrap();
    assert_eq!(store.append_direct(nobody.key(), message(&ann, "k3", "?")), Err(AppendError::NoSuchUser));
    let as_bob = (bob.0.clone(), ann.1.clone());
    assert_eq!(store.append_direct(bob.0.key(), message(&as_bob, "k3", "?")), Err(AppendError::NotInRoom));
    assert!(store.lock().release(&bob.0, &bob.1, ReleaseCause::CLOSED));
    let kept = store.append_direct(bob.0.key(), message(&ann, "k3", "?")).unwrap();
    assert_eq!((kept.seq, kept.online), (3, false), "stored until bob resumes");
    let again = store.append_direct(bob.0.key(), message(&ann, "k1", "?")).unwrap();
    assert_eq!((again.seq, again.duplicate, again.online), (1, true, false));
    assert_eq!(heard.lock().unwrap().len(), 2, "no listener is left");
    assert_eq!(store.page(&inbox, 0..=u64::MAX, PageLimit::of_messages(9), false).entries.len(), 3);
}

#[test]
fn range_is_limited_to_stored_entries() {
    let World { store, lobby, ann, .. } = world();
    for number in 1..=10 {
        store.append(&lobby, message(&ann, &format!("k{number}"), "x")).unwrap();
    }
    let seqs = |range, limit, newest| -> Vec<u64> {
        store
            .page(&StreamId::Room(lobby.key().clone()), range, PageLimit::of_messages(limit), newest)
            .entries
            .into_iter()
            .map(|entry| entry.seq)
            .collect()
    };
    assert_eq!(seqs(1..=u64::MAX, 3, false), [1, 2, 3]);
    assert_eq!(seqs(1..=u64::MAX, 3, true), [8, 9, 10]);
    assert_eq!(seqs(0..=4, 3, true), [2, 3, 4]);
    assert_eq!(seqs(4..=4, 9, false), [4]);
    assert_eq!(seqs(9..=99, 9, false), [9, 10]);
    assert!(seqs(11..=u64::MAX, 9, false).is_empty());
    assert!(seqs(RangeInclusive::new(5, 4), 9, true).is_empty());
    let never = StreamId::Room(RoomKey::from_store("never"));
    assert_eq!(store.page(&never, 0..=9, PageLimit::of_messages(9), false), StoredPage::default());
}

#[test]
fn streams_are_limited_in_messages_and_bytes() {
    let keep = streams::StreamLimits { messages: 20, age: Duration::from_secs(1), bytes: 1000 };
    let mut log = streams::MemoryStream::default();
    for _ in 0..30 {
        log.push("12345", 0, keep);
    }
    let all = |log: &streams::MemoryStream| log.page(0..=u64::MAX, PageLimit::of_messages(100), false).entries;
    let kept = all(&log);
    assert_eq!((kept.len(), kept[0].seq, kept[19].seq), (20, 11, 30));
    log.push(&"x".repeat(990), 0, keep);
    assert_eq!(all(&log).iter().map(|entry| entry.seq).collect::<Vec<_>>(), [29, 30, 31]);
    log.push(&"x".repeat(9990), 0, keep);
    assert_eq!(all(&log).len(), 1, "the newest entry stays");
}

#[test]
fn old_entries_are_trimmed_in_small_steps() {
    let keep = streams::StreamLimits { messages: 10_000, age: Duration::from_millis(100), bytes: usize::MAX };
    let mut log = streams::MemoryStream::default();
    for now in 1..=1000 {
        log.push("x", now.min(600), keep);
    }
    let oldest = |log: &streams::MemoryStream| log.page(0..=u64::MAX, PageLimit::of_messages(1), false).entries[0].seq;
    assert_eq!(oldest(&log), 500, "an entry of exactly the maximum age stays");
    log.push("x", 10_000, keep);
    assert_eq!(oldest(&log), 756, "one call trims at most 256");
    log.push("x", 10_000, keep);
    assert_eq!(oldest(&log), 1001, "only young entries are left");
    log.push("x", 0, keep);
    assert_eq!((log.seq(), oldest(&log)), (1003, 1001), "a clock set back trims nothing");
    log.push("x", 20_000, streams::StreamLimits { age: Duration::ZERO, ..keep });
    assert_eq!(oldest(&log), 1004, "the newest entry stays");
}

#[test]
fn keys_live_for_one_to_two_buckets() {
    let mut seen = streams::SeenKeys::of_clients();
    let began = Instant::now();
    seen.note(1, "m", (1, 0));
    seen.rotate(began + Duration::from_secs(301));
    seen.note(2, "m", (2, 0));
    assert!(seen.check(1, true).unwrap().is_some() && seen.check(2, true).unwrap().is_some());
    seen.rotate(began + Duration::from_secs(602));
    assert!(seen.check(1, true).unwrap().is_none() && seen.check(2, true).unwrap().is_some());
    seen.rotate(began + Duration::from_secs(1300));
    assert!(seen.check(2, true).unwrap().is_none(), "a long idle time drops both buckets");
}

#[test]
fn full_key_store_refuses_new_keys() {
    let mut seen = streams::SeenKeys::of_clients();
    for fingerprint in 0..streams::BUCKET_KEYS_MAX as u128 {
        seen.note(fingerprint, "", (1, 0));
    }
    let span = Duration::from_secs(300);
    let Err(AppendError::Exhausted { retry_after }) = seen.check(u128::MAX, true) else { panic!("a key was added") };
    assert!(retry_after <= span && retry_after > span / 2, "{retry_after:?}");
    assert!(seen.check(7, true).unwrap().is_some(), "known keys remain known");
    seen.rotate(seen.since + span);
    assert_eq!(seen.check(u128::MAX, true), Ok(None), "the next bucket is empty");
}

#[test]
fn session_without_share_gets_known_keys_answered() {
    let mut seen = streams::SeenKeys::of_clients();
    seen.note(1, "m", (1, 0));
    assert!(matches!(seen.check(2, false), Err(AppendError::Exhausted { .. })));
    assert!(seen.check(1, false).unwrap().is_some_and(|first| first.duplicate));
}

#[test]
fn subscription_may_end_during_its_own_call() {
    let store = Store::default();
    let own: Arc<Mutex<Option<ListenerGuard>>> = Arc::default();
    let inner = Arc::clone(&own);
    let subscription = store.listen("c", Arc::new(move |_: &[u8]| drop(inner.lock().unwrap().take())));
    *own.lock().unwrap() = Some(subscription);
    store.channels.publish("c", b"once");
    assert!(own.lock().unwrap().is_none());
    store.channels.publish("c", b"nobody");
}

/// Checks that each index entry belongs to a nick that is owned or held, under a skeleton of its present spelling.
fn assert_index_is_exact(nicks: &Nicks) {
    for (skeleton, sharing) in &nicks.skeletons {
        for nick in sharing.keys() {
            let record = nicks.records.get(nick).unwrap_or_else(|| panic!("{nick:?} is unknown: {nicks:?}"));
            assert!(record.owner.is_some() || record.held.is_some(), "{nick:?} is free: {nicks:?}");
            assert!(record.skeletons.iter().any(|own| own == &**skeleton), "{nick:?} is not {skeleton}: {nicks:?}");
        }
    }
}

#[test]
fn index_of_lookalikes_follows_every_change() {
    let World { store, ann, .. } = world();
    let mut state = store.lock();
    let incarnation = ann.1.incarnation.clone();
    let parse = |name: &str| Nick::parse(name).unwrap();
    let token = TokenHash::of(b"secret");
    let claim = |state: &mut StoreState, name: &str| {
        let session = SessionId::random();
        let fence = state
            .claim(ClaimRequest {
                incarnation: &incarnation,
                session: &session,
                nick: &parse(name),
                token: &token,
                user: None,
            })
            .unwrap();
        Owner { incarnation: incarnation.clone(), session, fence }
    };
    let expire = |state: &mut StoreState, name: &str, owner: &Owner, hold: Duration| {
        let terms = HoldTerms { hold, after: Duration::ZERO };
        assert_eq!(state.detach(&parse(name), owner, terms), DetachOutcome::Held);
        assert!(state.expire_detached(&parse(name), owner, OfflineReason::Closed));
        assert_index_is_exact(&state.nicks);
    };
    assert!(state.release(&ann.0, &ann.1, ReleaseCause::CLOSED));
    assert_index_is_exact(&state.nicks);
    // A nick whose hold has ended is claimed in another spelling.
    let former = claim(&mut state, "paypaI");
    expire(&mut state, "paypaI", &former, Duration::ZERO);
    let owner = claim(&mut state, "paypai");
    assert_index_is_exact(&state.nicks);
    // A session returns under another nick, which ends the hold of the former one.
    expire(&mut state, "paypai", &owner, Duration::from_secs(60));
    let ticket = ResumeTicket { session: owner.session, presented: token.clone(), user: None };
    state.resume(&incarnation, &ticket, &parse("eve"), &TokenHash::of(b"next")).unwrap();
    assert_index_is_exact(&state.nicks);
    // A held nick is forgotten.
    let kim = claim(&mut state, "kim");
    expire(&mut state, "kim", &kim, Duration::from_secs(60));
    state.delete_expired(now() + RETENTION_MS + 1000);
    assert!(!state.nicks.records.contains_key(parse("kim").key()));
    assert_index_is_exact(&state.nicks);
}

#[test]
fn ended_records_are_deleted_and_live_ones_stay() {
    let World { store, lobby, ann, bob } = world();
    store.append_direct(ann.0.key(), message(&bob, "k", "x")).unwrap();
    for key in ["k1", "k2", "k3"] {
        store.append(&lobby, message(&ann, key, "x")).unwrap();
    }
    let mut state = store.lock();
    assert!(state.leave(LeaveRequest {
        room: &lobby,
        nick: &ann.0,
        owner: &ann.1,
        reason: LeftReason::Left,
        intent: LeaveIntent::ForGood
    }));
    assert!(state.release(&ann.0, &ann.1, ReleaseCause::CLOSED));
    state.delete_expired(now() + RETENTION_MS - 1000);
    assert!(state.user(ann.0.key()).is_some() && state.room(lobby.key()).is_some());

    state.delete_expired(now() + RETENTION_MS + 1000);
    assert!(state.user(ann.0.key()).is_none() && state.room(lobby.key()).is_none());
    assert!(state.inboxes.is_empty() && state.leftovers.len() == 0);
    assert!(state.user(bob.0.key()).is_some(), "bob is still online");

    assert!(state.release(&bob.0, &bob.1, ReleaseCause::CLOSED));
    state.delete_expired(now() + RETENTION_MS + 1000);
    assert!(state.nicks.is_empty() && state.sessions.is_empty() && state.rooms.is_empty(), "{state:?}");
}

#[test]
fn repeated_ends_of_a_record_cost_no_memory() {
    let World { store, lobby, ann, .. } = world();
    let mut state = store.lock();
    for key in ["k1", "k2", "k3", "k4"] {
        drop(state);
        store.append(&lobby, message(&ann, key, "x")).unwrap();
        state = store.lock();
        // First a quiet room, then a busy one.
        for _ in 0..100 {
            assert!(state.leave(leaving(&lobby, &ann)));
            let (status, entry) = (&Status::default(), JoinEntry::New);
            state
                .join(JoinRequest {
                    room: &lobby,
                    nick: &ann.0,
                    owner: &ann.1,
                    user: None,
                    status,
                    entry,
                    moderates: false,
                })
                .unwrap();
        }
    }
    assert_eq!((state.leftovers.len(), state.quiet_rooms.len()), (1, 1));
    assert!(state.leave(leaving(&lobby, &ann)));
    state.delete_expired(now() + RETENTION_MS - 1000);
    assert!(state.room(lobby.key()).is_some(), "a busy room outlives the time of quiet ones");
    state.delete_expired(now() + RETENTION_MS + 1000);
    assert!(state.room(lobby.key()).is_none());
    assert_eq!((state.leftovers.len(), state.quiet_rooms.len()), (0, 0));
}

fn leaving<'a>(room: &'a RoomName, (nick, owner): &'a (Nick, Owner)) -> LeaveRequest<'a> {
    LeaveRequest { room, nick, owner, reason: LeftReason::Left, intent: LeaveIntent::ForGood }
}

#[test]
fn quiet_rooms_are_deleted_after_their_own_time() {
    let World { store, lobby, ann, .. } = world();
    let leave = |state: &mut StoreState| {
        let (reason, intent) = (LeftReason::Left, LeaveIntent::ForGood);
        state.leave(LeaveRequest { room: &lobby, nick: &ann.0, owner: &ann.1, reason, intent })
    };
    let join = |state: &mut StoreState| {
        let (status, entry) = (&Status::default(), JoinEntry::New);
        state
            .join(JoinRequest {
                room: &lobby,
                nick: &ann.0,
                owner: &ann.1,
                user: None,
                status,
                entry,
                moderates: false,
            })
            .unwrap()
    };
    let quiet = Retention::default().quiet.as_millis() as u64;
    for key in ["k1", "k2"] {
        store.append(&lobby, message(&ann, key, "x")).unwrap();
        let mut state = store.lock();
        assert!(leave(&mut state));
        state.delete_expired(now() + quiet - 1000);
        assert!(state.room(lobby.key()).is_some());
        join(&mut state);
        state.delete_expired(now() + quiet + 1000);
        assert!(state.room(lobby.key()).is_some(), "the room has a member again");
    }
    let mut state = store.lock();
    assert!(leave(&mut state));
    state.delete_expired(now() + quiet + 1000);
    assert!(state.room(lobby.key()).is_none() && state.quiet_rooms.len() == 0);
    assert_eq!(join(&mut state).seq, 0);
    assert!(leave(&mut state));
    assert!(state.room(lobby.key()).is_none(), "a room without messages is forgotten at once");
}

#[test]
fn messages_of_ephemeral_rooms_are_deleted() {
    let World { store, lobby, ann, .. } = world();
    let rules = RoomRules { ephemeral: true, ..RoomRules::default() };
    store.lock().set_room_rules(&lobby, &rules);
    let lifetime = EPHEMERAL_AGE.as_millis() as u64;
    let kept = |state: &StoreState| state.rooms.get(lobby.key()).unwrap().log.entries.len();
    for (key, expected) in [("k1", 1), ("k2", 1)] {
        store.append(&lobby, message(&ann, key, "x")).unwrap();
        let mut state = store.lock();
        state.delete_expired(now() + lifetime - 1000);
        assert_eq!(kept(&state), expected);
        state.delete_expired(now() + lifetime + 1000);
        assert_eq!(kept(&state), 0);
    }
    store.append(&lobby, message(&ann, "k3", "x")).unwrap();
    let mut state = store.lock();
    state.set_room_rules(&lobby, &RoomRules::default());
    state.delete_expired(now() + lifetime + 1000);
    assert_eq!(kept(&state), 1, "the room is not ephemeral any more");
    assert_eq!(state.rooms.get(lobby.key()).unwrap().log.seq(), 3);
}

#[test]
fn records_that_returned_are_not_deleted() {
    let World { store, lobby, ann, .. } = world();
    let mut state = store.lock();
    assert!(state.leave(LeaveRequest {
        room: &lobby,
        nick: &ann.0,
        owner: &ann.1,
        reason: LeftReason::Left,
        intent: LeaveIntent::ForGood
    }));
    assert!(state.release(&ann.0, &ann.1, ReleaseCause::CLOSED));
    let fence = state
        .claim(ClaimRequest {
            incarnation: &ann.1.incarnation,
            session: &ann.1.session,
            nick: &ann.0,
            token: &TokenHash::of(b"secret"),
            user: None,
        })
        .unwrap();
    let owner = Owner { fence, ..ann.1.clone() };
    state
        .join(JoinRequest {
            room: &lobby,
            nick: &ann.0,
            owner: &owner,
            user: None,
            status: &Status::default(),
            entry: JoinEntry::New,
            moderates: false,
        })
        .unwrap();
    drop(state);
    store.append_direct(ann.0.key(), message(&(ann.0.clone(), owner), "k", "x")).unwrap();
    let mut state = store.lock();
    state.delete_expired(now() + RETENTION_MS + 1000);
    assert_eq!(state.user(ann.0.key()).unwrap().rooms, ["#lobby"]);
    assert!(!state.inboxes.is_empty());
}
