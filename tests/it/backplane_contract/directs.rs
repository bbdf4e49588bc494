//! What holds on both arms for messages from one to another.

use std::time::Duration;

use gateway::backplane::{Delivery, Log, PublishError, Published};
use presence::model::{Fence, Nick, TokenHash};
use presence::registry::Farewell;

use super::rig::{Person, SOON, World, eventually};
use super::stories::{FENCED, barrier};

pub(crate) async fn a_direct_message_reaches_its_owners_node_only(world: &World) {
    let (one, two, three) = (world.node("g1").await, world.node("g2").await, world.node("g3").await);
    let (ann, bob) = (one.person("Ann").await, two.person("bob").await);
    three.person("cat").await;

    let (first, second) = (ann.draft("hi"), ann.draft("there"));
    let ack = one.backplane.direct(bob.nick.key(), &first).await.unwrap();
    assert_eq!((ack.msg_id.as_str(), ack.seq, ack.duplicate), (first.msg_id.as_str(), 1, false));
    assert_eq!(one.backplane.direct(bob.nick.key(), &second).await.unwrap().seq, 2);

    eventually(SOON, "bob's node hears both", async || (two.directs().len() == 2).then_some(())).await;
    for ((session, message), draft) in two.directs().iter().zip([&first, &second]) {
        assert_eq!(*session, bob.owner.session);
        assert_eq!((message.from.as_str(), &message.msg_id, &message.body), ("Ann", &draft.msg_id, &draft.body));
    }
    assert_eq!(two.directs()[0].1.time, ack.time);
    // Echoes come over the same channels: what was sent before one is there when it is.
    for node in [&one, &three] {
        let echoes = || node.heard.all().iter().filter(|delivery| matches!(delivery, Delivery::Echo { .. })).count();
        let before = echoes();
        eventually(SOON, "a beat", async || (echoes() > before).then_some(())).await;
        assert!(node.directs().is_empty());
    }
    // To oneself, on one's own node.
    one.backplane.direct(ann.nick.key(), &ann.draft("note")).await.unwrap();
    eventually(SOON, "ann hears herself", async || (one.directs().len() == 1).then_some(())).await;
}

pub(crate) async fn a_direct_message_waits_for_who_is_away(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let ann = one.person("ann").await;
    let direct = async |nick: &Nick| one.backplane.direct(nick.key(), &ann.draft("hi")).await;

    assert_eq!(direct(&Nick::parse("nobody").unwrap()).await, Err(PublishError::NoSuchUser));
    let bob = one.person("bob").await;
    one.registry.release(&bob.nick, &bob.owner, None).await.unwrap();
    let kept = direct(&bob.nick).await.unwrap();
    assert_eq!((kept.seq, kept.online), (1, false), "released");
    let others = one.person("bob").await;
    let ack = direct(&bob.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, true), "whoever has the nick now has an inbox of their own");
    for (session, count) in [(&bob.owner.session, 1), (&others.owner.session, 1)] {
        let missed = one.backplane.missed(&Log::Inbox(session.clone()), 0, 10).await.unwrap();
        assert_eq!((missed.head.top, missed.messages.len()), (count, count as usize));
    }

    let cat = two.person("cat").await;
    assert!(direct(&cat.nick).await.unwrap().online);
    two.registry.set_lease(&two.incarnation, Farewell::Draining).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (2, true), "a draining gateway still serves");
    two.registry.set_lease(&two.incarnation, Farewell::Drained { hold: Duration::ZERO }).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (3, false), "its gateway has ended");
    let missed = one.backplane.missed(&Log::Inbox(cat.owner.session.clone()), 1, 10).await.unwrap();
    assert_eq!((missed.messages.len(), missed.through, missed.head.top), (2, 3, 3));

    // Under another nick the session is still the one that had this.
    let dan = one.person("dan").await;
    let other = Nick::parse("danny").unwrap();
    one.registry.claim(&one.incarnation, &dan.owner.session, &other, &TokenHash::of(b"secret")).await.unwrap();
    one.registry.release(&dan.nick, &dan.owner, Some(&other)).await.unwrap();
    let ack = direct(&dan.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, true));
    let heard = async || one.directs().into_iter().find(|(session, _)| *session == dan.owner.session);
    eventually(SOON, "dan hears it under the new nick", heard).await;
}

pub(crate) async fn a_direct_message_is_refused_to_whoever_does_not_own_their_nick(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let (ann, bob) = (one.person("ann").await, two.person("bob").await);
    let send = async |person: &Person| one.backplane.direct(bob.nick.key(), &person.draft("hi")).await;

    let mut forged = ann.clone();
    forged.owner.fence = Fence(ann.owner.fence.0 + 1);
    assert_eq!(send(&forged).await, Err(FENCED));
    assert_eq!(send(&Person { nick: bob.nick.clone(), owner: ann.owner.clone() }).await, Err(FENCED));
    one.registry.set_lease(&one.incarnation, Farewell::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(send(&ann).await, Err(FENCED));
    assert!(two.directs().is_empty());
}

pub(crate) async fn a_repeated_direct_key_is_answered_as_the_first_time(world: &World) {
    let (one, two) = (world.node("g1").await, world.node("g2").await);
    let (ann, bob, cat) = (one.person("ann").await, two.person("bob").await, two.person("cat").await);
    let draft = ann.keyed("k", "once");
    let ack = one.backplane.direct(bob.nick.key(), &draft).await.unwrap();
    let again = Published { duplicate: true, ..ack };
    assert_eq!(one.backplane.direct(bob.nick.key(), &draft).await.unwrap(), again);
    assert_eq!(two.backplane.direct(bob.nick.key(), &draft).await.unwrap(), again);
    assert!(!one.backplane.direct(cat.nick.key(), &draft).await.unwrap().duplicate, "another target");
    assert!(!two.backplane.direct(bob.nick.key(), &cat.keyed("k", "mine")).await.unwrap().duplicate, "another session");

    // A retry must not reach whoever took the nick since.
    two.registry.release(&bob.nick, &bob.owner, None).await.unwrap();
    let away = Published { online: false, ..again.clone() };
    assert_eq!(one.backplane.direct(bob.nick.key(), &draft).await.unwrap(), away, "free by now");
    two.person("bob").await;
    assert_eq!(one.backplane.direct(bob.nick.key(), &draft).await.unwrap(), again, "somebody else's by now");

    eventually(SOON, "three arrive", async || (two.directs().len() >= 3).then_some(())).await;
    barrier(&one, "after", &[&two]).await;
    assert_eq!(two.directs().len(), 3);
}
