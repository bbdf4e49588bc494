//! The contract for rooms and for a node's own channel, on both arms.
//!
//! Invariant: all subscribed nodes receive the same messages in one dense order, and a refused publish leaves no trace.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use gateway::backplane::{Delivery, PageLimit, PublishError, PublishRequest, Published, Range};
use gateway::message::{Accepted, Body, ChatMessage};
use presence::model::{Fence, Incarnation, Owner, SessionId, UserId};
use presence::registry::{LeaseTransition, RegistryError};

use super::fixture::{BackplaneNode, SOON, StoreFixture, eventually, room};

pub(crate) const FENCED: PublishError = PublishError::Registry(RegistryError::Fenced);

/// Publishes one more message and waits for it: everything published before it has arrived then, or never will.
pub(crate) async fn barrier(node: &BackplaneNode, name: &str, listeners: &[&BackplaneNode]) {
    let room = room(&format!("#barrier-{name}"));
    let holder = node.member(&format!("barrier-{name}"), &room).await;
    for listener in listeners {
        listener.backplane.subscribe(room.key()).await.unwrap();
    }
    let request = holder.request("barrier");
    node.publish(&room, &request).await.unwrap();
    for listener in listeners {
        listener.receives(&room, &request.msg_id).await;
    }
}

pub(crate) async fn acked_message_reaches_every_subscribed_node(store: &StoreFixture) {
    let (one, two, three) = (store.node("g1").await, store.node("g2").await, store.node("g3").await);
    let lobby = room("#Lobby");
    let ann = one.member("Ann", &lobby).await;
    two.member("bob", &lobby).await;

    let body = Body::from_raw(raw(r#"{"a": [1, 2.50], "b":"ü"}"#));
    let request = PublishRequest { body, from_user: UserId::parse("user:1"), ..ann.request("") };
    let ack = one.publish(&lobby, &request).await.unwrap();

    let expected = ChatMessage {
        to: "#Lobby".to_owned(),
        from: "Ann".to_owned(),
        from_user: UserId::parse("user:1"),
        from_api: false,
        msg_id: request.msg_id.clone(),
        seq: 1,
        time: ack.time,
        body: request.body.clone(),
        accepted: request.accepted,
    };
    assert_eq!(
        ack,
        Published { msg_id: request.msg_id.clone(), seq: 1, time: ack.time, duplicate: false, online: true }
    );
    assert_eq!(one.receives(&lobby, &request.msg_id).await, expected);
    assert_eq!(two.receives(&lobby, &request.msg_id).await, expected);
    let history = one.backplane.history(lobby.key(), Range::Newest, PageLimit::of_messages(10)).await.unwrap();
    let from_stream = ChatMessage { accepted: Accepted::default(), ..expected };
    assert_eq!(history.messages, [from_stream]);

    barrier(&one, "after", &[&three]).await;
    assert!(three.messages(&lobby).is_empty(), "a node without a subscription receives nothing");
}

pub(crate) async fn concurrent_publishers_share_one_dense_order(store: &StoreFixture) {
    const EACH: usize = 40;
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    let mut publishers = Vec::new();
    for number in 0..10 {
        let node = if number % 2 == 0 { &one } else { &two };
        publishers.push((node, node.member(&format!("p{number}"), &lobby).await));
    }

    let publishing = publishers.iter().map(async |(node, holder)| {
        let mut acks = Vec::new();
        for number in 0..EACH {
            let request = holder.request(&number.to_string());
            acks.push(node.publish(&lobby, &request).await.unwrap());
        }
        acks
    });
    let acks: Vec<Published> = futures_util::future::join_all(publishing).await.concat();

    let total = 10 * EACH;
    let seqs: HashSet<u64> = acks.iter().map(|ack| ack.seq).collect();
    assert_eq!(seqs, (1..=total as u64).collect::<HashSet<u64>>());
    for node in [&one, &two] {
        eventually(SOON, "every message arrives", async || (node.messages(&lobby).len() >= total).then_some(())).await;
    }
    let (first, second) = (one.messages(&lobby), two.messages(&lobby));
    assert_eq!(first, second, "both nodes receive one order");
    assert!(first.iter().map(|message| message.seq).eq(1..=total as u64), "in seq order, without a gap");
    assert!(first.is_sorted_by_key(|message| message.time), "time never goes back");
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in &first {
        let next = next.entry(&message.from).or_default();
        assert_eq!(message.body.text(), next.to_string(), "messages of {} arrive in publish order", message.from);
        *next += 1;
    }
}

pub(crate) async fn publish_requires_membership_and_current_claim(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    // Gives ann's fence two digits, so that its first digit alone is a forged fence below.
    for number in 0..10 {
        one.claim_nick(&format!("earlier{number}")).await;
    }
    let ann = one.member("ann", &lobby).await;
    assert!(ann.owner.fence.0 >= 10);
    let eve = one.claim_nick("eve").await;

    assert_eq!(one.publish(&lobby, &eve.request("never joined")).await, Err(PublishError::NotInRoom));
    assert_eq!(one.publish(&room("#elsewhere"), &ann.request("no such room")).await, Err(PublishError::NotInRoom));

    let forge = |change: &dyn Fn(&mut Owner)| {
        let mut holder = ann.clone();
        change(&mut holder.owner);
        holder.request("not my claim")
    };
    let forged = [
        forge(&|owner| owner.fence = Fence(owner.fence.0 + 1)),
        forge(&|owner| owner.fence = Fence(owner.fence.0 / 10)),
        forge(&|owner| owner.session = SessionId::random()),
        forge(&|owner| owner.incarnation = two.incarnation.clone()),
    ];
    for request in &forged {
        assert_eq!(one.publish(&lobby, request).await, Err(PublishError::NotInRoom), "{:?}", request.owner);
    }
    let unknown = forge(&|owner| owner.incarnation = Incarnation::random());
    assert_eq!(one.publish(&lobby, &unknown).await, Err(FENCED), "no such lease");
    assert_eq!(
        one.publish(&lobby, &PublishRequest { from: eve.nick.clone(), ..ann.request("") }).await,
        Err(PublishError::NotInRoom)
    );

    one.leave(&ann, &lobby).await;
    assert_eq!(one.publish(&lobby, &ann.request("left")).await, Err(PublishError::NotInRoom));

    one.join(&ann, &lobby).await;
    one.registry.set_lease(&one.incarnation, LeaseTransition::Draining).await.unwrap();
    assert_eq!(one.publish(&lobby, &ann.request("draining")).await.unwrap().seq, 1, "refused messages took no seq");
    one.registry.set_lease(&one.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(one.publish(&lobby, &ann.request("drained")).await, Err(FENCED));

    let bob = two.member("bob", &lobby).await;
    let fenced = async || {
        let leases = two.registry.leases().await.unwrap().leases;
        let counter = leases.iter().find(|lease| lease.incarnation == two.incarnation).unwrap().counter;
        two.registry.fence(&two.incarnation, counter).await.unwrap().then_some(())
    };
    eventually(SOON, "two is fenced", fenced).await;
    assert_eq!(two.publish(&lobby, &bob.request("fenced")).await, Err(FENCED));

    let three = store.node("g3").await;
    let cat = three.member("cat", &lobby).await;
    let last = cat.request("last");
    assert_eq!(three.publish(&lobby, &last).await.unwrap().seq, 2);
    one.receives(&lobby, &last.msg_id).await;
    let texts: Vec<String> = one.messages(&lobby).iter().map(|message| message.body.text()).collect();
    assert_eq!(texts, ["draining", "last"], "refused messages were not delivered");
    let history = one.backplane.history(lobby.key(), Range::Newest, PageLimit::of_messages(10)).await.unwrap();
    assert_eq!(history.messages.len(), 2, "refused messages were not stored");
}

pub(crate) async fn repeated_key_gets_first_answer_and_one_delivery(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;

    let first = ann.keyed("k", "once");
    let ack = one.publish(&lobby, &first).await.unwrap();
    let again = Published { duplicate: true, ..ack.clone() };
    one.publish(&lobby, &ann.request("between")).await.unwrap();
    assert_eq!(one.publish(&lobby, &first).await.unwrap(), again, "the same request");
    assert_eq!(
        one.publish(&lobby, &ann.keyed("k", "other text")).await.unwrap(),
        again,
        "another request of the same key"
    );
    assert_eq!(two.publish(&lobby, &first).await.unwrap(), again, "through another node");

    let unkeyed = ann.request("without a key");
    let ack = one.publish(&lobby, &unkeyed).await.unwrap();
    assert_eq!(one.repeat(&lobby, &unkeyed).await.unwrap(), Published { duplicate: true, ..ack });

    let last = ann.request("last");
    assert_eq!(one.publish(&lobby, &last).await.unwrap().seq, 4);
    for node in [&one, &two] {
        node.receives(&lobby, &last.msg_id).await;
        let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
        assert_eq!(texts, ["once", "between", "without a key", "last"]);
    }
}

pub(crate) async fn idempotency_key_is_scoped_to_session_and_room(store: &StoreFixture) {
    let node = store.node("g1").await;
    let (lobby, kitchen) = (room("#lobby"), room("#kitchen"));
    let (ann, bob) = (node.member("ann", &lobby).await, node.member("bob", &lobby).await);
    node.join(&ann, &kitchen).await;

    let seqs = [
        (&lobby, ann.keyed("k", "ann's"), 1),
        (&lobby, bob.keyed("k", "bob's"), 2),
        (&kitchen, ann.keyed("k", "elsewhere"), 1),
        (&lobby, ann.keyed("k|", "another key"), 3),
        (&lobby, ann.keyed("", "an empty key"), 4),
    ];
    for (room, request, seq) in &seqs {
        let ack = node.publish(room, request).await.unwrap();
        assert_eq!((ack.seq, ack.duplicate), (*seq, false), "{request:?}");
    }
    let direct = node.backplane.direct(bob.nick.key(), &ann.keyed("k", "to bob")).await.unwrap();
    assert!(!direct.duplicate, "a nick is another target");
}

pub(crate) async fn session_adds_only_its_share_of_keys(store: &StoreFixture) {
    const SHARE: usize = 62_500;
    const CONCURRENT: usize = 500;
    let node = store.node("g1").await;
    let lobby = room("#lobby");
    let (hog, bob) = (node.member("hog", &lobby).await, node.member("bob", &lobby).await);
    let first = node.publish(&lobby, &hog.keyed("first", "x")).await.unwrap();
    let mut acked = 1;
    let share_wait = eventually(Duration::from_secs(120), "the share is used up", async || {
        let requests: Vec<_> = (0..CONCURRENT).map(|number| hog.keyed(&format!("{acked}.{number}"), "x")).collect();
        let outcomes = futures_util::future::join_all(requests.iter().map(|request| node.publish(&lobby, request)));
        let mut refused = None;
        for outcome in outcomes.await {
            match outcome {
                Ok(_) => acked += 1,
                Err(PublishError::KeysExhausted { retry_after }) => refused = refused.max(Some(retry_after)),
                // The republish ring has no space for this session at the moment.
                Err(PublishError::Exhausted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        refused
    })
    .await;
    assert!((SHARE..SHARE + CONCURRENT).contains(&acked), "{acked} keys were added");
    assert!(share_wait <= Duration::from_secs(300), "{share_wait:?}");

    let another = async || match node.backplane.direct(bob.nick.key(), &hog.keyed("another", "x")).await {
        Err(PublishError::Exhausted { .. }) => None,
        outcome => Some(outcome),
    };
    let refused = eventually(SOON * 3, "the ring has space", another).await;
    assert!(matches!(refused, Err(PublishError::KeysExhausted { .. })), "{refused:?}");
    // Until the ring has space for this session again, it refuses known keys, too.
    let known = async || node.publish(&lobby, &hog.keyed("first", "x")).await.ok();
    let again = eventually(SOON * 3, "a known key is answered", known).await;
    assert_eq!((again.seq, again.duplicate), (first.seq, true), "a known key stays known");
    node.publish(&lobby, &bob.keyed("k", "a neighbour's key")).await.unwrap();
    node.backplane.direct(bob.nick.key(), &bob.keyed("k", "a neighbour's key")).await.unwrap();
    let keyless = async || node.publish(&lobby, &hog.request("without a key")).await.ok();
    eventually(SOON * 3, "a message without a key is stored", keyless).await;
}

pub(crate) async fn history_returns_the_requested_range(store: &StoreFixture) {
    let node = store.node("g1").await;
    let lobby = room("#lobby");
    let ann = node.member("ann", &lobby).await;
    for number in 1..=10 {
        node.publish(&lobby, &ann.request(&number.to_string())).await.unwrap();
    }
    let cases: [(Range, usize, &[u64], bool); 13] = [
        (Range::Newest, 3, &[8, 9, 10], true),
        (Range::Newest, 10, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], false),
        (Range::Newest, 200, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], false),
        (Range::Before(4), 2, &[2, 3], true),
        (Range::Before(4), 3, &[1, 2, 3], false),
        (Range::Before(1), 5, &[], false),
        (Range::Before(0), 5, &[], false),
        (Range::Before(u64::MAX), 2, &[9, 10], true),
        (Range::After(7), 2, &[8, 9], true),
        (Range::After(7), 3, &[8, 9, 10], false),
        (Range::After(0), 1, &[1], true),
        (Range::After(10), 5, &[], false),
        (Range::After(u64::MAX), 5, &[], false),
    ];
    for (range, limit, expected, more) in cases {
        let history = node.backplane.history(lobby.key(), range, PageLimit::of_messages(limit)).await.unwrap();
        let seqs: Vec<u64> = history.messages.iter().map(|message| message.seq).collect();
        assert_eq!((seqs.as_slice(), history.more), (expected, more), "{range:?} limit {limit}");
        assert!(history.messages.iter().all(|message| message.body.text() == message.seq.to_string()));
    }
    let nothing = node.backplane.history(room("#never").key(), Range::Newest, PageLimit::of_messages(5)).await.unwrap();
    assert!(nothing.messages.is_empty() && !nothing.more);
}

pub(crate) async fn quick_resubscribe_misses_no_message(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;

    two.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.unsubscribe(lobby.key());
    let mut requests = Vec::new();
    let mut publish = async |text: &str| {
        requests.push(ann.request(text));
        one.publish(&lobby, requests.last().unwrap()).await.unwrap();
    };
    publish("one subscription is left").await;
    two.backplane.unsubscribe(lobby.key());
    two.backplane.unsubscribe(room("#never").key());
    publish("no subscription is left").await;
    two.backplane.subscribe(lobby.key()).await.unwrap();
    publish("subscribed again").await;
    for request in &requests {
        two.receives(&lobby, &request.msg_id).await;
    }
    assert!(two.messages(&lobby).iter().map(|message| message.seq).eq(1..=3));
}

pub(crate) async fn subscriber_receives_presence_kicks_and_echoes(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    one.member("ann", &lobby).await;
    let bob = two.member("bob", &lobby).await;

    let changes = || {
        let change = |delivery| match delivery {
            Delivery::Presence { room, version, delta } if room == *lobby.key() => Some((version, delta)),
            _ => None,
        };
        one.deliveries.all().into_iter().filter_map(change).collect::<Vec<_>>()
    };
    let seen = eventually(SOON, "both joins arrive", async || Some(changes()).filter(|seen| seen.len() == 2)).await;
    assert_eq!((seen[0].1.joined[0].nick.as_str(), seen[1].1.joined[0].nick.as_str()), ("ann", "bob"));
    assert_eq!(seen[1].0, seen[0].0 + 1, "versions are dense");

    one.registry.kick(bob.nick.key()).await.unwrap();
    let kicked = async || {
        two.deliveries.all().into_iter().find_map(|delivery| match delivery {
            Delivery::Kick { session } => Some(session),
            _ => None,
        })
    };
    assert_eq!(eventually(SOON, "the kick arrives", kicked).await, bob.owner.session);

    let echoes = || {
        let echo = |delivery| match delivery {
            Delivery::Echo { counter, incarnation } => Some((counter, incarnation)),
            _ => None,
        };
        two.deliveries.all().into_iter().filter_map(echo).collect::<Vec<_>>()
    };
    let echoes =
        eventually(SOON, "two echoes arrive", async || Some(echoes()).filter(|echoes| echoes.len() >= 2)).await;
    assert!(echoes.iter().all(|(_, incarnation)| *incarnation == two.incarnation));
    assert_eq!(echoes[1].0, echoes[0].0 + 1);
    let status = two.backplane.subscription();
    assert!(status.connected() && status.last_echo.is_some() && status.reconnects == 0 && status.malformed == 0);
}

pub(crate) async fn new_incarnation_receives_only_its_own_channel(store: &StoreFixture) {
    let mut node = store.node("g1").await;
    let other = store.node("g2").await;
    let (ann, old) = (other.claim_nick("ann").await, node.claim_nick("old").await);
    let before = node.incarnation.clone();

    node.incarnation = Incarnation::random();
    let info = presence::registry::GatewayInfo {
        node: "g1".to_owned(),
        version: "0".to_owned(),
        ws: String::new(),
        tcp: String::new(),
        admin: String::new(),
    };
    node.registry.open_lease(&node.incarnation, &info).await.unwrap();
    node.backplane.subscribe_own_channel(&node.incarnation).await;
    node.backplane.subscribe_own_channel(&node.incarnation).await;
    let new = node.claim_nick("new").await;
    other.backplane.direct(old.nick.key(), &ann.request("to the old")).await.unwrap();
    other.backplane.direct(new.nick.key(), &ann.request("to the new")).await.unwrap();
    let received = eventually(SOON, "the new incarnation receives", async || {
        Some(node.directs()).filter(|received| !received.is_empty())
    });
    assert_eq!(received.await[0].0, new.owner.session);
    assert!(node.directs().iter().all(|(session, _)| *session != old.owner.session));
    assert_ne!(before, node.incarnation);
}

pub(crate) async fn malformed_payloads_are_counted_and_skipped(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;
    one.publish(&lobby, &ann.request("before")).await.unwrap();
    let skipped = match store {
        StoreFixture::Memory(store, _) => {
            for payload in ["", "nonsense", "{}", r#"{"to":1}"#] {
                let append = presence::store::memory::Append {
                    from: ann.nick.key(),
                    owner: &ann.owner,
                    moderates: false,
                    key: Some(payload),
                    adds_key: true,
                    msg_id: "m",
                    payload,
                };
                store.append(&lobby, append).unwrap();
            }
            4
        }
        StoreFixture::Redis(server, _) => {
            let (room, gateway) = ("parley:{0}:ch:room:lobby", format!("parley:{{0}}:ch:gw:{}", two.incarnation));
            let texts = [
                (room, "nonsense"),
                (room, "M"),
                (room, "M e x 1 2\n{}"),
                (room, "M e 9 9 2\n{}"),
                (room, "M e 9 9 99\nshort"),
                (room, "P x 2\n{}"),
                (gateway.as_str(), "E"),
                (gateway.as_str(), "D s e 1 1 3\n..."),
            ];
            for (channel, text) in texts {
                let _: u64 = server.ask(&["PUBLISH", channel, text]).await;
            }
            texts.len() as u64
        }
    };
    let after = ann.request("after");
    one.publish(&lobby, &after).await.unwrap();
    for node in [&one, &two] {
        node.receives(&lobby, &after.msg_id).await;
        let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
        assert_eq!(texts, ["before", "after"]);
    }
    assert_eq!(two.backplane.subscription().malformed, skipped);
    assert!(two.backplane.subscription().connected());
    let history = one.backplane.history(lobby.key(), Range::Newest, PageLimit::of_messages(50)).await.unwrap();
    assert_eq!(history.messages.len(), 2);
}

pub(crate) async fn dropping_last_clone_stops_deliveries(store: &StoreFixture) {
    let (one, mut two) = (store.node("g1").await, store.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;
    let (received, clone) = (two.deliveries.clone(), two.backplane.clone());
    two.stop_beating().await;
    drop(two);
    let first = ann.request("a clone is left");
    one.publish(&lobby, &first).await.unwrap();
    let arrived = || received.all().iter().filter(|delivery| matches!(delivery, Delivery::Room { .. })).count();
    eventually(SOON, "the clone receives", async || (arrived() == 1).then_some(())).await;

    drop(clone);
    if let StoreFixture::Redis(server, _) = store {
        let subscribers = async || server.ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.lines().count();
        eventually(SOON, "the connection is closed", async || (subscribers().await == 1).then_some(())).await;
    }
    let last = ann.request("none is left");
    one.publish(&lobby, &last).await.unwrap();
    one.receives(&lobby, &last.msg_id).await;
    assert_eq!(arrived(), 1);
}

fn raw(json: &str) -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string(json.to_owned()).unwrap()
}
