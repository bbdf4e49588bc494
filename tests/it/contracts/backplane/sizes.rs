//! The bytes of streams on both arms: each stream keeps its newest messages, as many as its bound allows.
//!
//! The memory arm bounds exactly. Redis may keep a sixteenth of the bound and one message more, and counts the bytes in
//! the stream's meta; `listed` checks that count. The count and age of messages are tested in
//! [`crate::messages::retention`].

use futures_util::future::join_all;
use gateway::backplane::{PageLimit, PublishRequest, StreamId, envelope};
use presence::model::{Retention, RoomName};

use super::fixture::{BackplaneNode, NickHolder, StoreFixture, room};

/// The bound in most tests.
const BOUND: usize = 65_536;
/// Overhead of a payload beyond its text, at most.
const ENVELOPE_MAX: usize = 200;

/// A stream with the sizes of all payloads that were appended to it.
pub(super) struct MeasuredStream<'a> {
    node: &'a BackplaneNode,
    sender: &'a NickHolder,
    target: MeasuredTarget<'a>,
    pub(super) sizes: Vec<usize>,
}

#[derive(Clone, Copy)]
enum MeasuredTarget<'a> {
    Room(&'a RoomName),
    /// The sender's own inbox.
    Inbox,
}

impl<'a> MeasuredStream<'a> {
    pub(super) fn of_room(node: &'a BackplaneNode, sender: &'a NickHolder, room: &'a RoomName) -> Self {
        Self { node, sender, target: MeasuredTarget::Room(room), sizes: Vec::new() }
    }

    pub(super) fn of_inbox(node: &'a BackplaneNode, sender: &'a NickHolder) -> Self {
        Self { node, sender, target: MeasuredTarget::Inbox, sizes: Vec::new() }
    }

    /// Appends messages with texts of these lengths, all at a time.
    pub(super) async fn append(&mut self, lengths: impl IntoIterator<Item = usize>) {
        let requests: Vec<PublishRequest> =
            lengths.into_iter().map(|length| self.sender.request(&"x".repeat(length))).collect();
        let acks = join_all(requests.iter().map(async |request| match self.target {
            MeasuredTarget::Room(room) => self.node.publish(room, request).await.unwrap(),
            MeasuredTarget::Inbox => self.node.backplane.direct(self.sender.nick.key(), request).await.unwrap(),
        }));
        let mut acked: Vec<(u64, usize)> =
            acks.await.iter().zip(&requests).map(|(ack, request)| (ack.seq, self.size(request))).collect();
        acked.sort_unstable();
        for (seq, size) in acked {
            self.sizes.push(size);
            assert_eq!(self.sizes.len() as u64, seq, "seqs are dense");
        }
    }

    fn size(&self, request: &PublishRequest) -> usize {
        let to = match self.target {
            MeasuredTarget::Room(room) => room.as_str(),
            MeasuredTarget::Inbox => self.sender.nick.key().as_str(),
        };
        envelope::payload(to, request).len()
    }

    /// Returns the seq of the oldest message that is kept; all newer ones are kept.
    pub(super) async fn oldest(&self) -> usize {
        let stream = match self.target {
            MeasuredTarget::Room(room) => StreamId::Room(room.key().clone()),
            MeasuredTarget::Inbox => StreamId::Inbox(self.sender.owner.session.clone()),
        };
        let (mut seqs, mut after, last) = (Vec::new(), 0, self.sizes.len() as u64);
        while after < last {
            let page = self.node.backplane.read_after(&stream, after, PageLimit::of_messages(10_000)).await.unwrap();
            seqs.extend(page.messages.iter().map(|message| message.seq));
            after = page.through;
        }
        let oldest = *seqs.first().expect("the newest message is kept");
        assert!(seqs.iter().copied().eq(oldest..=last), "a hole in {seqs:?}");
        oldest as usize
    }

    /// Returns the bytes of the messages from this one on.
    pub(super) fn bytes_from(&self, oldest: usize) -> usize {
        self.sizes[oldest - 1..].iter().sum()
    }
}

/// Checks that the stream keeps what its bound allows, and not much less.
async fn assert_bounded(store: &StoreFixture, stream: &MeasuredStream<'_>, bound: usize) {
    let oldest = stream.oldest().await;
    let (kept, largest) = (stream.bytes_from(oldest), *stream.sizes.iter().max().unwrap());
    let slack = if matches!(store, StoreFixture::Memory(..)) { 0 } else { bound / 16 + largest };
    let newest = stream.sizes.len();
    assert!(kept <= bound + slack || oldest == newest, "{kept} bytes of {newest} messages are kept");
    let before: usize = stream.sizes[..oldest - 1].iter().rev().take(1).sum();
    assert!(oldest == 1 || kept + before + slack > bound, "only {kept} bytes of {newest} messages are kept");
}

fn bytes(bytes: usize) -> Retention {
    Retention { bytes, inbox_bytes: bytes, ..Retention::default() }
}

pub(crate) async fn room_keeps_at_most_its_bytes(store: &StoreFixture) {
    store.retain(Retention { inbox_bytes: 1, ..bytes(BOUND) });
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    let mut stream = MeasuredStream::of_room(&node, &ann, &lobby);
    for number in 0..250 {
        stream.append([number * 7919 % 3000]).await;
        assert_bounded(store, &stream, BOUND).await;
    }
    assert!(stream.oldest().await > 100, "nothing was removed");
    // Many messages in one call.
    for round in 0..5 {
        stream.append((0..60).map(|number| (round + number) * 7919 % 3000)).await;
        assert_bounded(store, &stream, BOUND).await;
    }
}

pub(crate) async fn inbox_keeps_at_most_its_bytes(store: &StoreFixture) {
    store.retain(Retention { bytes: 1, ..bytes(BOUND) });
    let node = store.node("g1").await;
    let ann = node.claim_nick("ann").await;
    let mut stream = MeasuredStream::of_inbox(&node, &ann);
    for number in 0..250 {
        stream.append([number * 7919 % 3000]).await;
        assert_bounded(store, &stream, BOUND).await;
    }
    assert!(stream.oldest().await > 100, "nothing was removed");
}

pub(crate) async fn newest_message_fits_into_any_bound(store: &StoreFixture) {
    store.retain(bytes(1000));
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    for mut stream in [MeasuredStream::of_room(&node, &ann, &lobby), MeasuredStream::of_inbox(&node, &ann)] {
        for length in [10, 5000, 50_000, 1001, 5000] {
            stream.append([length]).await;
            let newest = stream.sizes.len();
            assert_eq!(stream.oldest().await, newest.max(1), "{length}");
        }
        stream.append([10]).await;
        assert_bounded(store, &stream, 1000).await;
    }
}

pub(crate) async fn lowered_byte_bound_applies_while_running(store: &StoreFixture) {
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    for mut stream in [MeasuredStream::of_room(&node, &ann, &lobby), MeasuredStream::of_inbox(&node, &ann)] {
        store.retain(bytes(16 * BOUND));
        for _ in 0..10 {
            stream.append([10_000; 10]).await;
        }
        assert_eq!(stream.oldest().await, 1);
        store.retain(bytes(BOUND));
        // A sixteenth of the new bound.
        stream.append([BOUND / 16 - ENVELOPE_MAX, ENVELOPE_MAX]).await;
        // The older marks are a sixteenth of the former bound apart.
        let kept = stream.bytes_from(stream.oldest().await);
        assert!(kept <= BOUND, "{kept} bytes are kept");
        for _ in 0..20 {
            stream.append([BOUND / 16]).await;
        }
        assert_bounded(store, &stream, BOUND).await;
        store.retain(bytes(4 * BOUND));
        for _ in 0..60 {
            stream.append([BOUND / 16]).await;
        }
        assert_bounded(store, &stream, 4 * BOUND).await;
    }
}
