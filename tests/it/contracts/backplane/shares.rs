//! The shares of the republish ring: one session, one room or one receiver holds at most what it leaves free.
//!
//! The nodes do not beat, so their rings only grow. Redis only: nothing is lost in memory.

use std::time::{Duration, Instant};

use gateway::backplane::{PublishError, Published};

use super::fixture::{BackplaneNode, NickHolder, RING_BYTES, StoreFixture, room};

/// The share of one large holder.
const SHARE_BYTES: usize = RING_BYTES / 2;
const BODY_BYTES: usize = 60_000;
/// The shortest and the longest time that a message of an answering store is in the ring.
const HELD_MIN: Duration = Duration::from_secs(5);
const HELD_MAX: Duration = Duration::from_secs(8);

type SendOutcome = Result<Published, PublishError>;

/// Sends with these senders in turn until one is refused. Returns its pause.
async fn fill(senders: &[NickHolder], send: impl AsyncFn(&NickHolder, &str) -> SendOutcome) -> Duration {
    let text = "x".repeat(BODY_BYTES);
    for (number, sender) in senders.iter().cycle().enumerate() {
        match send(sender, &text).await {
            Ok(_) => assert!(number * BODY_BYTES < SHARE_BYTES, "{number} messages exceed a share"),
            Err(PublishError::Exhausted { retry_after }) => {
                assert!(number * BODY_BYTES > SHARE_BYTES * 9 / 10, "refused after {number} messages");
                return retry_after;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the senders are tried again and again")
}

async fn members(node: &BackplaneNode, names: &[&str]) -> Vec<NickHolder> {
    let mut members = Vec::new();
    for name in names {
        let member = node.member(name, &room("#busy")).await;
        node.join(&member, &room("#quiet")).await;
        members.push(member);
    }
    members
}

fn assert_exhausted(outcome: &SendOutcome) {
    assert!(matches!(outcome, Err(PublishError::Exhausted { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_and_receiver_fill_only_their_share() {
    let store = StoreFixture::redis().await;
    let (to_room, to_inbox) = (store.silent_node("g1").await, store.silent_node("g2").await);
    let receiver = to_inbox.claim_nick("receiver").await;
    let other = to_inbox.claim_nick("other").await;
    let text = "x".repeat(BODY_BYTES);

    let senders = members(&to_room, &["a", "b", "c", "d", "e"]).await;
    let (busy, quiet) = (room("#busy"), room("#quiet"));
    let began = Instant::now();
    let pause = fill(&senders, async |sender, text| to_room.publish(&busy, &sender.request(text)).await).await;
    assert!(pause + began.elapsed() > HELD_MIN && pause <= HELD_MAX, "{pause:?}");
    let newcomer = to_room.member("newcomer", &busy).await;
    assert_exhausted(&to_room.publish(&busy, &newcomer.request(&text)).await);
    for sender in &senders {
        to_room.publish(&quiet, &sender.request(&text)).await.expect("another room has a share of its own");
        let direct = to_room.backplane.direct(receiver.nick.key(), &sender.request(&text)).await;
        direct.expect("a receiver has a share of its own");
    }

    let senders = members(&to_inbox, &["f", "g", "h", "i", "j"]).await;
    let send = async |sender: &NickHolder, text: &str| {
        to_inbox.backplane.direct(receiver.nick.key(), &sender.request(text)).await
    };
    let began = Instant::now();
    let pause = fill(&senders, send).await;
    assert!(pause + began.elapsed() > HELD_MIN && pause <= HELD_MAX, "{pause:?}");
    assert_exhausted(&send(&other, &text).await);
    for sender in &senders {
        let direct = to_inbox.backplane.direct(other.nick.key(), &sender.request(&text)).await;
        direct.expect("another receiver has a share of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_fills_only_its_share_over_all_targets() {
    let store = StoreFixture::redis().await;
    let node = store.silent_node("g1").await;
    let mut receivers = Vec::new();
    for name in ["a", "b", "c"] {
        receivers.push(node.claim_nick(name).await);
    }
    let hog = node.member("hog", &room("#busy")).await;
    node.join(&hog, &room("#quiet")).await;
    let targets = std::sync::atomic::AtomicUsize::new(0);
    let send =
        async |sender: &NickHolder, text: &str| match targets.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 5 {
            0 => node.publish(&room("#busy"), &sender.request(text)).await,
            1 => node.publish(&room("#quiet"), &sender.request(text)).await,
            other => node.backplane.direct(receivers[other - 2].nick.key(), &sender.request(text)).await,
        };
    fill(std::slice::from_ref(&hog), send).await;
    let neighbour = node.member("neighbour", &room("#busy")).await;
    node.publish(&room("#busy"), &neighbour.request("small")).await.expect("a neighbour was refused");
    // The share belongs to the session: a resume or a new nickname brings no other one.
    let (fence, _) = node
        .registry
        .claim(presence::registry::ClaimRequest {
            incarnation: &node.incarnation,
            session: &hog.owner.session,
            nick: &hog.nick,
            token: &presence::model::TokenHash::of(b"secret"),
            user: None,
        })
        .await
        .unwrap();
    let owner = presence::model::Owner { fence, ..hog.owner.clone() };
    let resumed = NickHolder { owner, ..hog.clone() };
    assert_exhausted(&node.backplane.direct(neighbour.nick.key(), &resumed.request(&"x".repeat(BODY_BYTES))).await);
}
