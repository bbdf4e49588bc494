//! What holds on both arms.

use std::time::Duration;

use std::collections::{HashMap, HashSet};

use gateway::backplane::{Delivery, PublishError, PublishRequest, Published, Range};
use gateway::message::{Accepted, Body, ChatMessage};
use presence::model::{Fence, Incarnation, LeftReason, Owner, SessionId};
use presence::registry::{LeaseTransition, LeaveIntent, LeaveRequest, RegistryError};

use super::rig::{Node, SOON, World, eventually, room};

pub(crate) const FENCED: PublishError = PublishError::Registry(RegistryError::Fenced);

/// A message of the node's own after which everything published before it has arrived, or never will.
pub(crate) async fn barrier(node: &Node, name: &str, listeners: &[&Node]) {
    let room = room(&format!("#barrier-{name}"));
    let person = node.member(&format!("barrier-{name}"), &room).await;
    for listener in listeners {
        listener.backplane.subscribe(room.key()).await.unwrap();
    }
    let draft = person.draft("that was all");
    node.say(&room, &draft).await.unwrap();
    for listener in listeners {
        listener.hears(&room, &draft.msg_id).await;
    }
}

pub(crate) async fn an_acked_message_reaches_every_subscribed_node_its_own_included(world: &World) {
    let (one, two, three) = (world.node("g1").await, world.node("g2").await, world.node("g3").await);
    let lobby = room("#Lobby");
    let ann = one.member("Ann", &lobby).await;
    two.member("bob", &lobby).await;

    let draft = PublishRequest { body: Body::from_raw(raw(r#"{"a": [1, 2.50], "b":"ü"}"#)), ..ann.draft("") };
    let ack = one.say(&lobby, &draft).await.unwrap();

    let expected = ChatMessage {
        to: "#Lobby".to_owned(),
        from: "Ann".to_owned(),
        msg_id: draft.msg_id.clone(),
        seq: 1,
        time: ack.time,
        body: draft.body.clone(),
        accepted: draft.accepted,
    };
    assert_eq!(ack, Published { msg_id: draft.msg_id.clone(), seq: 1, time: ack.time, duplicate: false, online: true });
    assert_eq!(one.hears(&lobby, &draft.msg_id).await, expected);
    assert_eq!(two.hears(&lobby, &draft.msg_id).await, expected);
    let stretch = one.backplane.history(lobby.key(), Range::Newest, 10).await.unwrap();
    let from_the_log = ChatMessage { accepted: Accepted::default(), ..expected };
    assert_eq!(stretch.messages, [from_the_log]);

    barrier(&one, "after", &[&three]).await;
    assert!(three.messages(&lobby).is_empty(), "who is not subscribed hears nothing");
}

pub(crate) async fn ten_publishers_on_two_nodes_make_one_dense_order(world: &World) {
    const EACH: usize = 40;
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    let mut people = Vec::new();
    for number in 0..10 {
        let node = if number % 2 == 0 { &one } else { &two };
        people.push((node, node.member(&format!("p{number}"), &lobby).await));
    }

    let talks = people.iter().map(async |(node, person)| {
        let mut acks = Vec::new();
        for number in 0..EACH {
            let draft = person.draft(&number.to_string());
            acks.push(node.say(&lobby, &draft).await.unwrap());
        }
        acks
    });
    let acks: Vec<Published> = futures_util::future::join_all(talks).await.concat();

    let total = 10 * EACH;
    let seqs: HashSet<u64> = acks.iter().map(|ack| ack.seq).collect();
    assert_eq!(seqs, (1..=total as u64).collect::<HashSet<u64>>());
    for node in [&one, &two] {
        eventually(SOON, "everything is heard", async || (node.messages(&lobby).len() >= total).then_some(())).await;
    }
    let (first, second) = (one.messages(&lobby), two.messages(&lobby));
    assert_eq!(first, second, "both nodes hear one order");
    assert!(first.iter().map(|message| message.seq).eq(1..=total as u64), "in the order of their seqs, without a gap");
    assert!(first.is_sorted_by_key(|message| message.time), "time never goes back");
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in &first {
        let next = next.entry(&message.from).or_default();
        assert_eq!(message.body.text(), next.to_string(), "{} is heard in the order they spoke", message.from);
        *next += 1;
    }
}

pub(crate) async fn only_a_member_with_the_right_claim_may_publish(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    // So that ann's fence has two digits: its first digit alone makes a token that hers begins with.
    for number in 0..10 {
        one.person(&format!("earlier{number}")).await;
    }
    let ann = one.member("ann", &lobby).await;
    assert!(ann.owner.fence.0 >= 10);
    let eve = one.person("eve").await;

    assert_eq!(one.say(&lobby, &eve.draft("never joined")).await, Err(PublishError::NotInRoom));
    assert_eq!(one.say(&room("#elsewhere"), &ann.draft("no such room")).await, Err(PublishError::NotInRoom));

    let owner = |change: &dyn Fn(&mut Owner)| {
        let mut person = ann.clone();
        change(&mut person.owner);
        person.draft("not my claim")
    };
    let forged = [
        owner(&|owner| owner.fence = Fence(owner.fence.0 + 1)),
        owner(&|owner| owner.fence = Fence(owner.fence.0 / 10)),
        owner(&|owner| owner.session = SessionId::random()),
        owner(&|owner| owner.incarnation = two.incarnation.clone()),
    ];
    for draft in &forged {
        assert_eq!(one.say(&lobby, draft).await, Err(PublishError::NotInRoom), "{:?}", draft.owner);
    }
    let unknown = owner(&|owner| owner.incarnation = Incarnation::random());
    assert_eq!(one.say(&lobby, &unknown).await, Err(FENCED), "no such lease");
    assert_eq!(
        one.say(&lobby, &PublishRequest { from: eve.nick.clone(), ..ann.draft("") }).await,
        Err(PublishError::NotInRoom)
    );

    one.registry
        .leave(LeaveRequest {
            room: &lobby,
            nick: &ann.nick,
            owner: &ann.owner,
            reason: LeftReason::Left,
            intent: LeaveIntent::ForGood,
        })
        .await
        .unwrap();
    assert_eq!(one.say(&lobby, &ann.draft("left")).await, Err(PublishError::NotInRoom));

    one.join(&ann, &lobby).await;
    one.registry.set_lease(&one.incarnation, LeaseTransition::Draining).await.unwrap();
    assert_eq!(one.say(&lobby, &ann.draft("draining")).await.unwrap().seq, 1, "refusals took no number");
    one.registry.set_lease(&one.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(one.say(&lobby, &ann.draft("drained")).await, Err(FENCED));

    let bob = two.member("bob", &lobby).await;
    let fenced = async || {
        let leases = two.registry.leases().await.unwrap().leases;
        let counter = leases.iter().find(|lease| lease.incarnation == two.incarnation).unwrap().counter;
        two.registry.fence(&two.incarnation, counter).await.unwrap().then_some(())
    };
    eventually(SOON, "two is fenced", fenced).await;
    assert_eq!(two.say(&lobby, &bob.draft("fenced")).await, Err(FENCED));

    let three = world.node("g3").await;
    let cat = three.member("cat", &lobby).await;
    let last = cat.draft("last");
    assert_eq!(three.say(&lobby, &last).await.unwrap().seq, 2);
    one.hears(&lobby, &last.msg_id).await;
    let texts: Vec<String> = one.messages(&lobby).iter().map(|message| message.body.text()).collect();
    assert_eq!(texts, ["draining", "last"], "what was refused was not delivered");
    let stretch = one.backplane.history(lobby.key(), Range::Newest, 10).await.unwrap();
    assert_eq!(stretch.messages.len(), 2, "nor kept");
}

pub(crate) async fn a_repeated_key_is_answered_as_the_first_time_and_delivered_once(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;

    let first = ann.keyed("k", "once");
    let ack = one.say(&lobby, &first).await.unwrap();
    let again = Published { duplicate: true, ..ack.clone() };
    one.say(&lobby, &ann.draft("between")).await.unwrap();
    assert_eq!(one.say(&lobby, &first).await.unwrap(), again, "the same draft");
    assert_eq!(one.say(&lobby, &ann.keyed("k", "other words")).await.unwrap(), again, "another draft of the same key");
    assert_eq!(two.say(&lobby, &first).await.unwrap(), again, "over another node");

    let unkeyed = ann.draft("without a key");
    let ack = one.say(&lobby, &unkeyed).await.unwrap();
    assert_eq!(one.say(&lobby, &unkeyed).await.unwrap(), Published { duplicate: true, ..ack });

    let last = ann.draft("last");
    assert_eq!(one.say(&lobby, &last).await.unwrap().seq, 4);
    for node in [&one, &two] {
        node.hears(&lobby, &last.msg_id).await;
        let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
        assert_eq!(texts, ["once", "between", "without a key", "last"]);
    }
}

pub(crate) async fn a_key_counts_for_its_own_session_and_room_only(world: &World) {
    let node = world.node("g1").await;
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
    for (room, draft, seq) in &seqs {
        let ack = node.say(room, draft).await.unwrap();
        assert_eq!((ack.seq, ack.duplicate), (*seq, false), "{draft:?}");
    }
    let direct = node.backplane.direct(bob.nick.key(), &ann.keyed("k", "to bob")).await.unwrap();
    assert!(!direct.duplicate, "a nick is another target");
}

pub(crate) async fn history_gives_the_stretch_that_was_asked_for(world: &World) {
    let node = world.node("g1").await;
    let lobby = room("#lobby");
    let ann = node.member("ann", &lobby).await;
    for number in 1..=10 {
        node.say(&lobby, &ann.draft(&number.to_string())).await.unwrap();
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
        let stretch = node.backplane.history(lobby.key(), range, limit).await.unwrap();
        let seqs: Vec<u64> = stretch.messages.iter().map(|message| message.seq).collect();
        assert_eq!((seqs.as_slice(), stretch.more), (expected, more), "{range:?} limit {limit}");
        assert!(stretch.messages.iter().all(|message| message.body.text() == message.seq.to_string()));
    }
    let nothing = node.backplane.history(room("#never").key(), Range::Newest, 5).await.unwrap();
    assert!(nothing.messages.is_empty() && !nothing.more);
}

pub(crate) async fn a_quick_return_to_a_room_loses_nothing(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;

    two.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.unsubscribe(lobby.key());
    let mut drafts = Vec::new();
    let mut say = async |text: &str| {
        drafts.push(ann.draft(text));
        one.say(&lobby, drafts.last().unwrap()).await.unwrap();
    };
    say("one interest is left").await;
    two.backplane.unsubscribe(lobby.key());
    two.backplane.unsubscribe(room("#never").key());
    say("nobody wants it").await;
    two.backplane.subscribe(lobby.key()).await.unwrap();
    say("wanted again").await;
    for draft in &drafts {
        two.hears(&lobby, &draft.msg_id).await;
    }
    assert!(two.messages(&lobby).iter().map(|message| message.seq).eq(1..=3));
}

pub(crate) async fn presence_kicks_and_echoes_arrive(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    one.member("ann", &lobby).await;
    let bob = two.member("bob", &lobby).await;

    let changes = || {
        let change = |delivery| match delivery {
            Delivery::Presence { room, version, delta } if room == *lobby.key() => Some((version, delta)),
            _ => None,
        };
        one.heard.all().into_iter().filter_map(change).collect::<Vec<_>>()
    };
    let seen = eventually(SOON, "one sees both come", async || Some(changes()).filter(|seen| seen.len() == 2)).await;
    assert_eq!((seen[0].1.joined[0].nick.as_str(), seen[1].1.joined[0].nick.as_str()), ("ann", "bob"));
    assert_eq!(seen[1].0, seen[0].0 + 1, "versions are dense");

    one.registry.kick(bob.nick.key()).await.unwrap();
    let kicked = async || {
        two.heard.all().into_iter().find_map(|delivery| match delivery {
            Delivery::Kick { session } => Some(session),
            _ => None,
        })
    };
    assert_eq!(eventually(SOON, "two hears the order", kicked).await, bob.owner.session);

    let echoes = || {
        let echo = |delivery| match delivery {
            Delivery::Echo { counter, incarnation } => Some((counter, incarnation)),
            _ => None,
        };
        two.heard.all().into_iter().filter_map(echo).collect::<Vec<_>>()
    };
    let echoes = eventually(SOON, "two echoes", async || Some(echoes()).filter(|echoes| echoes.len() >= 2)).await;
    assert!(echoes.iter().all(|(_, incarnation)| *incarnation == two.incarnation));
    assert_eq!(echoes[1].0, echoes[0].0 + 1);
    let status = two.backplane.subscription();
    assert!(status.connected() && status.last_echo.is_some() && status.reconnects == 0 && status.malformed == 0);
}

pub(crate) async fn a_new_incarnation_hears_its_own_channel_only(world: &World) {
    let mut node = world.node("g1").await;
    let other = world.node("g2").await;
    let (ann, old) = (other.person("ann").await, node.person("old").await);
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
    node.backplane.listen_as(&node.incarnation).await;
    node.backplane.listen_as(&node.incarnation).await;
    let new = node.person("new").await;
    other.backplane.direct(old.nick.key(), &ann.draft("to the old")).await.unwrap();
    other.backplane.direct(new.nick.key(), &ann.draft("to the new")).await.unwrap();
    let heard = eventually(SOON, "the new one hears", async || Some(node.directs()).filter(|heard| !heard.is_empty()));
    assert_eq!(heard.await[0].0, new.owner.session);
    assert!(node.directs().iter().all(|(session, _)| *session != old.owner.session));
    assert_ne!(before, node.incarnation);
}

pub(crate) async fn text_that_is_not_ours_harms_nobody(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;
    one.say(&lobby, &ann.draft("before")).await.unwrap();
    let skipped = match world {
        World::Memory(store) => {
            for payload in ["", "nonsense", "{}", r#"{"to":1}"#] {
                let append = presence::store::memory::Append {
                    from: ann.nick.key(),
                    owner: &ann.owner,
                    key: Some(payload),
                    msg_id: "m",
                    payload,
                };
                store.append(&lobby, append).unwrap();
            }
            4
        }
        World::Redis(server) => {
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
    let after = ann.draft("after");
    one.say(&lobby, &after).await.unwrap();
    for node in [&one, &two] {
        node.hears(&lobby, &after.msg_id).await;
        let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
        assert_eq!(texts, ["before", "after"]);
    }
    assert_eq!(two.backplane.subscription().malformed, skipped);
    assert!(two.backplane.subscription().connected());
    let stretch = one.backplane.history(lobby.key(), Range::Newest, 50).await.unwrap();
    assert_eq!(stretch.messages.len(), 2);
}

pub(crate) async fn dropping_the_last_clone_ends_the_deliveries(world: &World) {
    let (one, mut two) = (world.node("g1").await, world.node("g2").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;
    let (heard, clone) = (two.heard.clone(), two.backplane.clone());
    two.stop_beating().await;
    drop(two);
    let first = ann.draft("a clone is left");
    one.say(&lobby, &first).await.unwrap();
    let arrived = || heard.all().iter().filter(|delivery| matches!(delivery, Delivery::Room { .. })).count();
    eventually(SOON, "the clone hears", async || (arrived() == 1).then_some(())).await;

    drop(clone);
    if let World::Redis(server) = world {
        let subscribers = async || server.ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.lines().count();
        eventually(SOON, "its connection is closed", async || (subscribers().await == 1).then_some(())).await;
    }
    let last = ann.draft("none is left");
    one.say(&lobby, &last).await.unwrap();
    one.hears(&lobby, &last.msg_id).await;
    assert_eq!(arrived(), 1);
}

fn raw(json: &str) -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string(json.to_owned()).unwrap()
}
