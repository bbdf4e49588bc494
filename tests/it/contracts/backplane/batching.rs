//! Messages of a room share calls under load and wait for nobody without it; what that must not change, on a real Redis.
//!
//! A frozen Redis holds a call under way for as long as a story needs it, so what waits behind it is no matter of luck.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gateway::backplane::{PublishError, PublishRequest, Published, Range};
use presence::model::{Incarnation, RoomName};
use presence::registry::RegistryError;
use tokio::task::JoinSet;

use super::rig::{Node, Person, SOON, World, eventually, room};

/// How many scripts Redis has run since this was asked last.
async fn calls(world: &mut World) -> usize {
    let stats: String = world.server().ask(&["INFO", "commandstats"]).await;
    let _: String = world.server().ask(&["CONFIG", "RESETSTAT"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// A node that does not beat, so that every script is a publish; and somebody in its room.
async fn quiet() -> (World, Node, RoomName, Person) {
    let world = World::redis().await;
    let (node, lobby) = (world.silent_node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    (world, node, lobby, ann)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_speak_at_once_share_calls_and_keep_their_order() {
    const PEOPLE: usize = 200;
    const EACH: usize = 5;
    let (mut world, node, lobby, _) = quiet().await;
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        people.push(node.member(&format!("p{number}"), &lobby).await);
    }
    calls(&mut world).await;
    let talks = people.iter().map(async |person| {
        let mut acks = Vec::new();
        for number in 0..EACH {
            acks.push(node.say(&lobby, &person.draft(&number.to_string())).await.unwrap());
        }
        acks
    });
    let acks: Vec<Published> = join_all(talks).await.concat();
    let calls = calls(&mut world).await;
    assert!(calls * 5 < PEOPLE * EACH, "{calls} calls for {} messages", PEOPLE * EACH);

    let mut seqs: Vec<u64> = acks.iter().map(|ack| ack.seq).collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=(PEOPLE * EACH) as u64), "dense, and each only once");
    let heard = async || Some(node.messages(&lobby)).filter(|heard| heard.len() == PEOPLE * EACH);
    let heard = eventually(SOON, "everything is heard", heard).await;
    assert!(heard.is_sorted_by_key(|message| message.seq));
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in &heard {
        let next = next.entry(&message.from).or_default();
        assert_eq!(message.body.text(), next.to_string(), "{} is heard in the order they spoke", message.from);
        *next += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_alone_waits_for_nobody() {
    let (mut world, node, lobby, ann) = quiet().await;
    calls(&mut world).await;
    let (mut in_room, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let (draft, begun) = (ann.draft("hi"), Instant::now());
        node.say(&lobby, &draft).await.unwrap();
        in_room.push(begun.elapsed());
        // The same work for Redis, and nothing in front of it.
        let (draft, begun) = (ann.draft("hi"), Instant::now());
        node.backplane.direct(ann.nick.key(), &draft).await.unwrap();
        direct.push(begun.elapsed());
    }
    in_room.sort_unstable();
    direct.sort_unstable();
    assert!(in_room[50] < direct[50] + Duration::from_millis(2), "{:?} instead of {:?}", in_room[50], direct[50]);
    // The first call of each script is answered with NOSCRIPT.
    assert!((200..=202).contains(&calls(&mut world).await), "a call for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_message_does_not_touch_its_neighbours() {
    let (mut world, node, lobby, ann) = quiet().await;
    let eve = node.person("eve").await;
    let known = ann.keyed("known", "before");
    let before = node.say(&lobby, &known).await.unwrap();
    let mut fenced = ann.draft("from a lease that is over");
    fenced.owner.incarnation = Incarnation::random();
    let first = ann.keyed("twice", "first");
    calls(&mut world).await;

    world.server().stop_signal().await;
    let drafts = [
        ann.draft("under way"),
        first.clone(),
        eve.draft("not a member"),
        ann.keyed("twice", "again"),
        fenced,
        known.clone(),
        ann.draft("last"),
    ];
    let mut said = Box::pin(join_all(drafts.iter().map(|draft| node.say(&lobby, draft))));
    assert!(futures_util::poll!(&mut said).is_pending());
    world.server().cont();
    let outcomes = said.await;

    let ok = |draft: &PublishRequest, seq, time| {
        Ok(Published { msg_id: draft.msg_id.clone(), seq, time, duplicate: false, online: true })
    };
    let time = |at: usize| outcomes[at].as_ref().unwrap().time;
    assert_eq!(outcomes[0], ok(&drafts[0], 2, time(0)));
    assert_eq!(outcomes[1], ok(&first, 3, time(1)));
    assert_eq!(outcomes[2], Err(PublishError::NotInRoom));
    assert_eq!(
        outcomes[3],
        Ok(Published { msg_id: first.msg_id, seq: 3, time: time(1), duplicate: true, online: true })
    );
    assert_eq!(outcomes[4], Err(PublishError::Registry(RegistryError::Fenced)));
    assert_eq!(outcomes[5], Ok(Published { duplicate: true, ..before }));
    assert_eq!(outcomes[6], ok(&drafts[6], 4, time(6)));
    assert!(calls(&mut world).await <= 2, "they shared a call");
    node.hears(&lobby, &drafts[6].msg_id).await;
    let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
    assert_eq!(texts, ["before", "under way", "first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_unknown_to_everybody_in_the_call_and_a_retry_makes_no_second_copy() {
    let (mut world, node, lobby, ann) = quiet().await;
    node.say(&lobby, &ann.draft("before")).await.unwrap();
    world.server().stop_signal().await;
    let drafts: Vec<PublishRequest> = (0..20).map(|number| ann.draft(&number.to_string())).collect();
    let say = |draft| node.say(&lobby, draft);
    let outcomes = join_all(drafts.iter().map(say)).await;
    world.server().cont();
    // The first call is given up after its time; what waited behind it for as long was never sent.
    assert!(matches!(outcomes[0], Err(PublishError::Registry(RegistryError::Unknown(_)))), "{:?}", outcomes[0]);
    for outcome in &outcomes {
        let unknown = matches!(outcome, Err(PublishError::Registry(RegistryError::Unknown(_))));
        assert!(unknown || *outcome == Err(PublishError::Overloaded), "{outcome:?}");
    }
    let retry = async |draft| eventually(SOON, "the retry is acked", async || node.say(&lobby, draft).await.ok()).await;
    let acks = join_all(drafts.iter().map(retry)).await;
    let stretch = node.backplane.history(lobby.key(), Range::After(1), 100).await.unwrap();
    assert_eq!(stretch.messages.len(), drafts.len(), "each is there once");
    for (draft, ack) in drafts.iter().zip(acks) {
        let found = stretch.messages.iter().find(|message| message.msg_id == draft.msg_id).unwrap();
        assert_eq!((found.seq, found.time), (ack.seq, ack.time));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_while_the_call_is_under_way_takes_nobody_along() {
    let (mut world, node, lobby, ann) = quiet().await;
    node.say(&lobby, &ann.draft("before")).await.unwrap();
    world.server().stop_signal().await;
    let leading = ann.draft("leading");
    let mut leader = Box::pin(node.say(&lobby, &leading));
    assert!(futures_util::poll!(&mut leader).is_pending());
    let drafts: Vec<PublishRequest> = (0..20).map(|number| ann.draft(&number.to_string())).collect();
    let mut said = Box::pin(join_all(drafts.iter().map(|draft| node.say(&lobby, draft))));
    assert!(futures_util::poll!(&mut said).is_pending());
    drop(leader);
    world.server().cont();
    let seqs: Vec<u64> = said.await.into_iter().map(|outcome| outcome.unwrap().seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a + 1 == *b), "in their order, none lost: {seqs:?}");
    let ack = node.say(&lobby, &leading).await.unwrap();
    assert!(!ack.duplicate || ack.seq == 2, "the one that was dropped may be done or not: {ack:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_too_much_to_say_is_refused_and_loses_nothing_it_was_not_refused() {
    // One call takes 64, and 1024 wait.
    const OFFERED: usize = 1300;
    let (mut world, node, lobby, ann) = quiet().await;
    node.say(&lobby, &ann.draft("before")).await.unwrap();
    let backplane = node.backplane.clone();
    world.server().stop_signal().await;
    let mut offered = JoinSet::new();
    for number in 0..OFFERED {
        let (backplane, lobby, draft) = (backplane.clone(), lobby.clone(), ann.draft(&number.to_string()));
        offered.spawn(async move { backplane.publish(&lobby, &draft).await });
    }
    for _ in 0..OFFERED - 64 - 1024 {
        let outcome = tokio::time::timeout(SOON, offered.join_next()).await.expect("refused at once");
        assert_eq!(outcome.unwrap().unwrap(), Err(PublishError::Overloaded));
    }
    world.server().cont();
    let mut seqs = Vec::new();
    while let Some(outcome) = offered.join_next().await {
        match outcome.unwrap() {
            Ok(ack) => seqs.push(ack.seq),
            Err(error) => assert_eq!(error, PublishError::Overloaded),
        }
    }
    assert!((1024..=1024 + 64).contains(&seqs.len()), "{}", seqs.len());
    seqs.sort_unstable();
    assert!(seqs.iter().copied().eq(2..2 + seqs.len() as u64), "what was refused took no number");
    let ack = node.say(&lobby, &ann.draft("after")).await.unwrap();
    assert_eq!(ack.seq, 2 + seqs.len() as u64);
}
