//! The contract for direct messages and typing signals, on both arms.
//!
//! Invariant: a direct message is stored in the inbox of one session and delivered only to the node of its owner.

use std::slice;
use std::time::Duration;

use gateway::backplane::{Delivery, PageLimit, PublishError, Published, StreamId};
use gateway::message::Target;
use presence::model::{Fence, Nick, OfflineReason, Owner, RoomName, TokenHash};
use presence::registry::{ClaimRequest, DetachOutcome, HoldTerms, LeaseTransition, ReleaseCause};

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually};
use super::rooms::{FENCED, barrier};

pub(crate) async fn direct_message_reaches_only_the_owners_node(store: &StoreFixture) {
    let (one, two, three) = (store.node("g1").await, store.node("g2").await, store.node("g3").await);
    let (ann, bob) = (one.claim_nick("Ann").await, two.claim_nick("bob").await);
    three.claim_nick("cat").await;

    let (first, second) = (ann.request("hi"), ann.request("there"));
    let ack = one.backplane.direct(bob.nick.key(), &first).await.unwrap();
    assert_eq!((ack.msg_id.as_str(), ack.seq, ack.duplicate), (first.msg_id.as_str(), 1, false));
    assert_eq!(one.backplane.direct(bob.nick.key(), &second).await.unwrap().seq, 2);

    eventually(SOON, "bob's node receives both", async || (two.directs().len() == 2).then_some(())).await;
    for ((session, message), request) in two.directs().iter().zip([&first, &second]) {
        assert_eq!(*session, bob.owner.session);
        assert_eq!((message.from.as_str(), &message.msg_id, &message.body), ("Ann", &request.msg_id, &request.body));
    }
    assert_eq!(two.directs()[0].1.time, ack.time);
    // Beat echoes use the same channel, so everything sent before an echo has arrived with it.
    for node in [&one, &three] {
        let echoes =
            || node.deliveries.all().iter().filter(|delivery| matches!(delivery, Delivery::Echo { .. })).count();
        let before = echoes();
        eventually(SOON, "another echo arrives", async || (echoes() > before).then_some(())).await;
        assert!(node.directs().is_empty());
    }
    // A direct message to the sender's own nick.
    one.backplane.direct(ann.nick.key(), &ann.request("note")).await.unwrap();
    eventually(SOON, "ann's own message arrives", async || (one.directs().len() == 1).then_some(())).await;
}

pub(crate) async fn direct_message_waits_in_inbox_of_absent_user(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let ann = one.claim_nick("ann").await;
    let direct = async |nick: &Nick| one.backplane.direct(nick.key(), &ann.request("hi")).await;

    assert_eq!(direct(&Nick::parse("nobody").unwrap()).await, Err(PublishError::NoSuchUser));
    let bob = one.claim_nick("bob").await;
    one.registry.release(&bob.nick, &bob.owner, ReleaseCause::CLOSED).await.unwrap();
    let stored = direct(&bob.nick).await.unwrap();
    assert_eq!((stored.seq, stored.online), (1, false), "released");
    let successor = one.claim_nick("bob").await;
    let ack = direct(&bob.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, true), "the new owner of the nick has its own inbox");
    for (session, count) in [(&bob.owner.session, 1), (&successor.owner.session, 1)] {
        let replay =
            one.backplane.read_after(&StreamId::Inbox(session.clone()), 0, PageLimit::of_messages(10)).await.unwrap();
        assert_eq!((replay.end.seq, replay.messages.len()), (count, count as usize));
    }

    let eve = two.claim_nick("eve").await;
    let terms = HoldTerms { hold: Duration::from_secs(60), after: Duration::ZERO };
    assert_eq!(two.registry.detach(&eve.nick, &eve.owner, terms).await.unwrap(), DetachOutcome::Held);
    let ack = direct(&eve.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, false), "eve is detached");
    assert!(two.registry.expire_detached(&eve.nick, &eve.owner, OfflineReason::Closed).await.unwrap());
    let ack = direct(&eve.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (2, false), "the nick is held for eve's session");

    let cat = two.claim_nick("cat").await;
    assert!(direct(&cat.nick).await.unwrap().online);
    two.registry.set_lease(&two.incarnation, LeaseTransition::Draining).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (2, true), "a draining gateway still serves");
    two.registry.set_lease(&two.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let ack = direct(&cat.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (3, false), "the gateway is drained");
    let replay = one
        .backplane
        .read_after(&StreamId::Inbox(cat.owner.session.clone()), 1, PageLimit::of_messages(10))
        .await
        .unwrap();
    assert_eq!((replay.messages.len(), replay.through, replay.end.seq), (2, 3, 3));

    // After a rename the session still receives messages to its old nick.
    let dan = one.claim_nick("dan").await;
    let other = Nick::parse("danny").unwrap();
    one.registry
        .claim(ClaimRequest {
            incarnation: &one.incarnation,
            session: &dan.owner.session,
            nick: &other,
            token: &TokenHash::of(b"secret"),
            user: None,
        })
        .await
        .unwrap();
    one.registry.release(&dan.nick, &dan.owner, ReleaseCause::RenamedTo(&other)).await.unwrap();
    let ack = direct(&dan.nick).await.unwrap();
    assert_eq!((ack.seq, ack.online), (1, true));
    let received = async || one.directs().into_iter().find(|(session, _)| *session == dan.owner.session);
    eventually(SOON, "the message arrives after the rename", received).await;
}

pub(crate) async fn direct_message_to_unresumable_session_is_refused(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let ann = one.claim_nick("ann").await;
    let direct = async |nick: &Nick| one.backplane.direct(nick.key(), &ann.request("hi")).await;
    let none = TokenHash::none();

    let bob = two.claim_nick_with("bob", &none).await;
    assert!(direct(&bob.nick).await.unwrap().online);
    assert!(two.registry.release(&bob.nick, &bob.owner, ReleaseCause::CLOSED).await.unwrap());
    assert_eq!(direct(&bob.nick).await, Err(PublishError::NoSuchUser), "released");
    let replay = one.backplane.read_after(&StreamId::Inbox(bob.owner.session), 0, PageLimit::of_messages(10)).await;
    assert_eq!(replay.unwrap().end.seq, 1, "nothing was stored after the end");
    let successor = two.claim_nick("bob").await;
    assert!(direct(&successor.nick).await.unwrap().online, "another session has the nick");

    // A renamed session is reached under both nicks, and under neither after its end.
    let dan = two.claim_nick_with("dan", &none).await;
    let other = Nick::parse("danny").unwrap();
    let (fence, _) = two
        .registry
        .claim(ClaimRequest {
            incarnation: &two.incarnation,
            session: &dan.owner.session,
            nick: &other,
            token: &none,
            user: None,
        })
        .await
        .unwrap();
    assert!(two.registry.release(&dan.nick, &dan.owner, ReleaseCause::RenamedTo(&other)).await.unwrap());
    assert!(direct(&dan.nick).await.unwrap().online && direct(&other).await.unwrap().online);
    assert!(two.registry.release(&other, &Owner { fence, ..dan.owner.clone() }, ReleaseCause::CLOSED).await.unwrap());
    for nick in [&dan.nick, &other] {
        assert_eq!(direct(nick).await, Err(PublishError::NoSuchUser), "{nick} ended");
    }

    // A session without a token does not survive its gateway.
    let eve = two.claim_nick_with("eve", &none).await;
    assert!(direct(&eve.nick).await.unwrap().online);
    two.registry.set_lease(&two.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(direct(&eve.nick).await, Err(PublishError::NoSuchUser), "the gateway is drained");
}

pub(crate) async fn direct_message_requires_ownership_of_senders_nick(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let (ann, bob) = (one.claim_nick("ann").await, two.claim_nick("bob").await);
    let send = async |holder: &NickHolder| one.backplane.direct(bob.nick.key(), &holder.request("hi")).await;

    let mut forged = ann.clone();
    forged.owner.fence = Fence(ann.owner.fence.0 + 1);
    assert_eq!(send(&forged).await, Err(FENCED));
    assert_eq!(send(&NickHolder { nick: bob.nick.clone(), owner: ann.owner.clone() }).await, Err(FENCED));
    one.registry.set_lease(&one.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(send(&ann).await, Err(FENCED));
    assert!(two.directs().is_empty());
}

pub(crate) async fn repeated_direct_key_gets_first_answer(store: &StoreFixture) {
    let (one, two) = (store.node("g1").await, store.node("g2").await);
    let (ann, bob, cat) = (one.claim_nick("ann").await, two.claim_nick("bob").await, two.claim_nick("cat").await);
    let request = ann.keyed("k", "once");
    let ack = one.backplane.direct(bob.nick.key(), &request).await.unwrap();
    let again = Published { duplicate: true, ..ack };
    assert_eq!(one.backplane.direct(bob.nick.key(), &request).await.unwrap(), again);
    assert_eq!(two.backplane.direct(bob.nick.key(), &request).await.unwrap(), again);
    assert!(!one.backplane.direct(cat.nick.key(), &request).await.unwrap().duplicate, "another target");
    assert!(!two.backplane.direct(bob.nick.key(), &cat.keyed("k", "mine")).await.unwrap().duplicate, "another session");

    // A retry must not reach a later owner of the nick.
    two.registry.release(&bob.nick, &bob.owner, ReleaseCause::CLOSED).await.unwrap();
    let away = Published { online: false, ..again.clone() };
    assert_eq!(one.backplane.direct(bob.nick.key(), &request).await.unwrap(), away, "the nick is free");
    two.claim_nick("bob").await;
    assert_eq!(one.backplane.direct(bob.nick.key(), &request).await.unwrap(), again, "another session owns the nick");

    eventually(SOON, "three messages arrive", async || (two.directs().len() >= 3).then_some(())).await;
    barrier(&one, "after", &[&two]).await;
    assert_eq!(two.directs().len(), 3);
}

pub(crate) async fn typing_signal_reaches_only_its_target(store: &StoreFixture) {
    let (one, two, three) = (store.node("g1").await, store.node("g2").await, store.node("g3").await);
    let (ann, bob) = (one.claim_nick("Ann").await, two.claim_nick("bob").await);
    let lobby = RoomName::parse("#lobby").unwrap();
    one.backplane.subscribe(lobby.key()).await.unwrap();
    two.backplane.subscribe(lobby.key()).await.unwrap();
    let signal = async |to: Target| one.backplane.typing(&to, &ann.nick, &ann.owner.session, false).await.unwrap();

    signal(Target::Nick(bob.nick.clone())).await;
    signal(Target::Nick(Nick::parse("nobody").unwrap())).await;
    signal(Target::Room(lobby.clone())).await;
    two.registry.release(&bob.nick, &bob.owner, ReleaseCause::CLOSED).await.unwrap();
    signal(Target::Nick(bob.nick.clone())).await;
    barrier(&one, "typing", &[&one, &two, &three]).await;
    let signals = |node: &BackplaneNode| -> Vec<_> {
        let all = node.deliveries.all().into_iter();
        let typing = all.filter_map(|delivery| match delivery {
            Delivery::Typing { stream: log, by, from } => Some((log, by, from)),
            _ => None,
        });
        typing.collect()
    };
    let in_lobby = (StreamId::Room(lobby.key().clone()), Some(ann.owner.session.clone()), "Ann".to_owned());
    let to_bob = (StreamId::Inbox(bob.owner.session.clone()), None, "Ann".to_owned());
    assert_eq!(signals(&one), slice::from_ref(&in_lobby));
    assert!(signals(&two).contains(&to_bob) && signals(&two).contains(&in_lobby), "{:?}", signals(&two));
    assert_eq!((signals(&two).len(), signals(&three)), (2, Vec::new()));
    let replay = one.backplane.read_after(&StreamId::Inbox(bob.owner.session), 0, PageLimit::of_messages(10)).await;
    assert!(replay.is_ok_and(|replay| replay.messages.is_empty()), "typing signals are not stored");
}
