//! The rules of rooms about senders and history, on both arms.

use std::time::Duration;

use gateway::backplane::{Delivery, PageLimit, PublishError, PublishRequest, Range, StreamId};
use gateway::message::Target;
use presence::model::{RoomName, RoomRules, SendRight};

use super::fixture::{BackplaneNode, SOON, StoreFixture, eventually, room};

/// Returns the seqs in the history of a room.
async fn history(node: &BackplaneNode, room: &RoomName) -> Vec<u64> {
    let page = node.backplane.history(room.key(), Range::Newest, PageLimit::of_messages(1000)).await.unwrap();
    page.messages.iter().map(|message| message.seq).collect()
}

pub(crate) async fn only_moderators_send_where_the_rules_say_so(store: &StoreFixture) {
    store.rule(r##"[{"match":"#stage","roles":true,"send":"moderators"}]"##);
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let stage = room("#stage");
    let ann = one.member("ann", &stage).await;
    let bob = two.member("bob", &stage).await;

    assert_eq!(two.publish(&stage, &bob.request("hi")).await, Err(PublishError::NotAllowed));
    assert_eq!(two.publish(&stage, &bob.keyed("k", "hi")).await, Err(PublishError::NotAllowed));
    assert_eq!(one.publish(&stage, &ann.request("hi")).await.unwrap().seq, 1, "the first member is the owner");

    one.registry.set_room_rules(&stage, &RoomRules::default()).await.unwrap();
    assert_eq!(two.publish(&stage, &bob.keyed("k", "hi")).await.unwrap().seq, 2, "the rules of the API hold");
}

pub(crate) async fn moderator_by_token_is_exempt_from_rules(store: &StoreFixture) {
    store.rule(r##"[{"match":"#stage","send":"moderators"},{"match":"#queue","slow_mode_seconds":3600}]"##);
    let node = store.node("g1").await;
    for room in [room("#stage"), room("#queue"), room("#open")] {
        let [ann, bob] = ["ann", "bob"].map(|name| format!("{name}-{}", &room.as_str()[1..]));
        let (ann, bob) = (node.member(&ann, &room).await, node.member(&bob, &room).await);
        let by_token = |text: &str| PublishRequest { moderates: true, ..ann.request(text) };
        let (first, second) = (by_token("one"), by_token("two"));
        let (one, two) = tokio::join!(node.publish(&room, &first), node.publish(&room, &second));
        assert_eq!((one.unwrap().seq, two.unwrap().seq), (1, 2), "{room}");
        // Its right is that of its messages only.
        let (third, plain) = (by_token("three"), bob.request("three"));
        let (mine, theirs) = tokio::join!(node.publish(&room, &third), node.publish(&room, &plain));
        mine.unwrap();
        assert_eq!(theirs.is_ok(), room.as_str() != "#stage", "{room}: {theirs:?}");
        let again = node.publish(&room, &bob.request("four")).await;
        assert_eq!(again.is_ok(), room.as_str() == "#open", "{room}: {again:?}");
    }
}

pub(crate) async fn typing_follows_the_right_to_send(store: &StoreFixture) {
    store.rule(r##"[{"match":"#stage","send":"moderators"},{"match":"#queue","slow_mode_seconds":3600}]"##);
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let mut expected = Vec::new();
    for room in [room("#stage"), room("#queue"), room("#ruled"), room("#open")] {
        let name = &room.as_str()[1..];
        let (ann, _bob) = (one.member(name, &room).await, two.member(&format!("of-{name}"), &room).await);
        if room.as_str() == "#ruled" {
            let rules = RoomRules { send: SendRight::Moderators, ..RoomRules::default() };
            one.registry.set_room_rules(&room, &rules).await.unwrap();
        }
        let to = Target::Room(room.clone());
        for moderates in [false, true] {
            one.backplane.typing(&to, &ann.nick, &ann.owner.session, moderates).await.unwrap();
            if moderates || ["#queue", "#open"].contains(&room.as_str()) {
                expected.push(room.key().clone());
            }
        }
    }
    let typed = async || {
        let room_of = |delivery| match delivery {
            Delivery::Typing { stream: StreamId::Room(room), .. } => Some(room),
            _ => None,
        };
        let rooms: Vec<_> = two.deliveries.all().into_iter().filter_map(room_of).collect();
        (rooms.len() >= expected.len()).then_some(rooms)
    };
    assert_eq!(eventually(SOON, "the notices arrive", typed).await, expected);
}

pub(crate) async fn slow_mode_makes_members_wait(store: &StoreFixture) {
    store.rule(r##"[{"match":"#queue","roles":true,"slow_mode_seconds":3600}]"##);
    let node = store.node("g1").await;
    let queue = room("#queue");
    let ann = node.member("ann", &queue).await;
    let (bob, eve) = (node.member("bob", &queue).await, node.member("eve", &queue).await);

    let first = node.publish(&queue, &bob.keyed("k", "one")).await.unwrap();
    for request in [bob.request("two"), bob.keyed("other", "two")] {
        let outcome = node.publish(&queue, &request).await;
        let Err(PublishError::SlowMode { retry_after }) = outcome else { panic!("{outcome:?}") };
        assert!(retry_after > Duration::from_secs(3500) && retry_after <= Duration::from_secs(3600), "{retry_after:?}");
    }
    let again = node.publish(&queue, &bob.keyed("k", "one")).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true), "a repeat gets its first answer");
    node.publish(&queue, &eve.request("mine")).await.unwrap();
    for text in ["one", "two", "three"] {
        node.publish(&queue, &ann.request(text)).await.expect("an owner is exempt");
    }

    let rules = RoomRules { slow_mode_seconds: Some(1), ..RoomRules::default() };
    node.registry.set_room_rules(&queue, &rules).await.unwrap();
    let request = bob.keyed("last", "two");
    eventually(SOON, "the pause is over", async || node.publish(&queue, &request).await.ok()).await;
}

pub(crate) async fn slow_mode_admits_one_of_many_at_once(store: &StoreFixture) {
    store.rule(r##"[{"match":"#queue","slow_mode_seconds":3600}]"##);
    let node = store.node("g1").await;
    let queue = room("#queue");
    let bob = node.member("bob", &queue).await;
    let requests: Vec<_> = (0..20).map(|number| bob.request(&number.to_string())).collect();
    let outcomes = futures_util::future::join_all(requests.iter().map(|request| node.publish(&queue, request))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(history(&node, &queue).await, [1]);
}

pub(crate) async fn room_keeps_the_history_of_its_rules(store: &StoreFixture) {
    store.rule(r##"[{"match":"#short","history_messages":5},{"match":"#tidy","history_messages":5}]"##);
    let node = store.node("g1").await;
    let (short, tidy, other) = (room("#short"), room("#tidy"), room("#other"));
    let rules = RoomRules { history_messages: Some(7), ..RoomRules::default() };
    node.registry.set_room_rules(&tidy, &rules).await.unwrap();
    for (room, expected) in [(&short, 5), (&tidy, 7), (&other, 12)] {
        let holder = node.member(&format!("of-{}", &room.as_str()[1..]), room).await;
        for number in 0..12 {
            node.publish(room, &holder.request(&number.to_string())).await.unwrap();
        }
        assert_eq!(history(&node, room).await.len(), expected, "{room}");
    }
}

pub(crate) async fn ephemeral_room_keeps_few_messages(store: &StoreFixture) {
    store.rule(r##"[{"match":"#gone","ephemeral":true,"history_messages":1000}]"##);
    let node = store.node("g1").await;
    let gone = room("#gone");
    let ann = node.member("ann", &gone).await;
    for number in 0..105 {
        node.publish(&gone, &ann.request(&number.to_string())).await.unwrap();
    }
    assert_eq!(history(&node, &gone).await, (6..=105).collect::<Vec<u64>>());

    let StoreFixture::Redis(server, _) = store else { return };
    let lifetime = async || {
        let key = format!("parley:{{0}}:log:{}", gone.key());
        server.ask::<i64>(&["PTTL", &key]).await
    };
    let hour = 3_600_000;
    assert!((hour - 60_000..=hour).contains(&lifetime().await), "one hour after its newest message");
    node.leave(&ann, &gone).await;
    assert!(lifetime().await <= hour, "the last leave keeps nothing longer");
    node.join(&ann, &gone).await;
    assert!((1..=hour).contains(&lifetime().await), "a new member keeps nothing longer");

    store.rule("[]");
    node.publish(&gone, &ann.request("kept")).await.unwrap();
    assert_eq!(lifetime().await, -1, "without the rule messages stay");
}
