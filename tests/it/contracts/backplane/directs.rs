//! What holds on both arms for messages from one to another.

use std::slice;
use std::time::Duration;

use gateway::backplane::{Delivery, PublishError, Published, StreamId};
use gateway::message::Target;
use presence::model::{Fence, LeftReason, Nick, RoomName, TokenHash};
use presence::registry::LeaseTransition;

use super::rig::{Node, Person, SOON, World, eventually};
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
        let missed = one.backplane.read_after(&StreamId::Inbox(session.clone()), 0, 10).await.unwrap();
        assert_eq!((missed.head.top, missed.messages.len()), (count, count as usize));
    }

    let eve = two.person("eve").await;
    assert!(two.registry.detach(&eve.nick, &eve.owner, Duration::from_secs(60)).await.unwrap());
    let ack = direct(&eve.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, false), "has lost its connection");
    assert!(two.registry.expire_detached(&eve.nick, &eve.owner, LeftReason::Closed).await.unwrap());
    let ack = direct(&eve.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (2, false), "the nickname is held for it");

    let cat = two.person("cat").await;
    assert!(direct(&cat.nick).await.unwrap().online);
    two.registry.set_lease(&two.incarnation, LeaseTransition::Draining).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (2, true), "a draining gateway still serves");
    two.registry.set_lease(&two.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (3, false), "its gateway has ended");
    let missed = one.backplane.read_after(&StreamId::Inbox(cat.owner.session.clone()), 1, 10).await.unwrap();
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
    one.registry.set_lease(&one.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
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

pub(crate) async fn who_is_writing_is_heard_where_it_matters(world: &World) {
    let (one, two, three) = (world.node("g1").await, world.node("g2").await, world.node("g3").await);
    let (ann, bob) = (one.person("Ann").await, two.person("bob").await);
    let lobby = RoomName::parse("#lobby").unwrap();
    one.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.subscribe(lobby.key()).await.unwrap();
    let write = async |to: Target| one.backplane.typing(&to, &ann.nick, &ann.owner.session).await.unwrap();

    write(Target::Nick(bob.nick.clone())).await;
    write(Target::Nick(Nick::parse("nobody").unwrap())).await;
    write(Target::Room(lobby.clone())).await;
    two.registry.release(&bob.nick, &bob.owner, None).await.unwrap();
    write(Target::Nick(bob.nick.clone())).await;
    barrier(&one, "typing", &[&one, &two, &three]).await;
    let heard = |node: &Node| -> Vec<_> {
        let all = node.heard.all().into_iter();
        let typing = all.filter_map(|delivery| match delivery {
            Delivery::Typing { stream: log, by, from } => Some((log, by, from)),
            _ => None,
        });
        typing.collect()
    };
    let in_lobby = (StreamId::Room(lobby.key().clone()), Some(ann.owner.session.clone()), "Ann".to_owned());
    let to_bob = (StreamId::Inbox(bob.owner.session.clone()), None, "Ann".to_owned());
    assert_eq!(heard(&one), slice::from_ref(&in_lobby));
    assert!(heard(&two).contains(&to_bob) && heard(&two).contains(&in_lobby), "{:?}", heard(&two));
    assert_eq!((heard(&two).len(), heard(&three)), (2, Vec::new()));
    let missed = one.backplane.read_after(&StreamId::Inbox(bob.owner.session), 0, 10).await;
    assert!(missed.is_ok_and(|missed| missed.messages.is_empty()), "nothing is kept");
}
