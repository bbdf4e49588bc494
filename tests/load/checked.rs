//! Members on the client library that check what they receive: each message once, in order and complete.
//!
//! The measured clients are lean and check only their own sockets. These few members see the run as an application
//! does. They join after all logins, so they cost no login, and none of their deliveries is measured.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use parley_client::{Events, Options, Parley, RoomEvent};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::ledger::Ledger;
use crate::plan::{Plan, Traffic};
use crate::stamp::Stamp;
use crate::tally::Tally;

/// Time limit for all members to join.
const JOIN_MAX: Duration = Duration::from_secs(30);
/// Time without a message after which outstanding ones count as lost.
const STALL_MAX: Duration = Duration::from_secs(3);

/// Results of the checking members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CheckedCounts {
    pub(crate) members: u32,
    /// Messages received, with the doubled ones.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
}

impl CheckedCounts {
    /// Returns true if each message arrived once and in order.
    pub(crate) fn is_clean(&self) -> bool {
        (self.lost, self.doubled, self.reordered) == (0, 0, 0)
    }

    fn add(&mut self, other: Self) {
        self.members += other.members;
        self.received += other.received;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
    }
}

/// The checks of one member: its room has no hole, and no publisher's message comes twice or late. Pure.
#[derive(Debug)]
struct MemberCheck {
    /// The position in the room.
    seqs: Ledger,
    /// Positions in the messages of each publisher. Holes are refused messages.
    numbers: Ledger,
    /// Numbers of the room's publishers in the run.
    publishers: Range<u32>,
    received: u64,
}

impl MemberCheck {
    /// Begins behind this seq.
    fn new(seq: u64, publishers: Range<u32>) -> Self {
        let (mut seqs, numbers) = (Ledger::new(1, 1), Ledger::new(1, publishers.len()));
        seqs.start_streams(0, seq + 1);
        Self { seqs, numbers, publishers, received: 0 }
    }

    /// Records a message. A `repeated` one came before a rewind.
    fn record(&mut self, seq: u64, body: &str, repeated: bool) {
        self.seqs.record_received(0, 0, seq);
        if repeated {
            return;
        }
        self.received += 1;
        let stamp = Stamp::find(body.as_bytes()).filter(|stamp| self.publishers.contains(&stamp.publisher));
        if let Some(Stamp { publisher, number, .. }) = stamp {
            self.numbers.record_received(0, (publisher - self.publishers.start) as usize, u64::from(number));
        }
    }

    fn next_seq(&self) -> u64 {
        self.seqs.next_expected(0, 0).unwrap_or_default()
    }

    /// Returns the results. `end`: the seq after the last acknowledged message, or 0 if it is not known.
    fn counts(&self, end: u64) -> CheckedCounts {
        let (seqs, numbers) = (self.seqs.faults(), self.numbers.faults());
        CheckedCounts {
            members: 1,
            received: self.received,
            lost: seqs.missing + end.saturating_sub(self.next_seq()),
            doubled: seqs.duplicated.max(numbers.duplicated),
            reordered: seqs.out_of_order.max(numbers.out_of_order),
        }
    }
}

/// A member with its session.
#[derive(Debug)]
struct CheckingMember {
    chat: Parley,
    events: Events<RoomEvent>,
    check: MemberCheck,
}

impl CheckingMember {
    /// Joins as the `number`-th checking member. All rooms are equally busy, so the members use the first ones.
    async fn join(plan: &Plan, number: u32, publishers: u32) -> Result<(u32, Self)> {
        let room = number % (plan.clients / plan.room_size).max(1);
        let mut urls: Vec<String> = parley_urls(plan).collect();
        let first = number as usize % urls.len();
        urls.rotate_left(first);
        let chat = Parley::connect(urls, Options::new(format!("{}c{number}", plan.run))).await?;
        let joined = chat.join(&plan.room_name(room), 0).await?;
        let check = MemberCheck::new(joined.read_seq(), room * publishers..(room + 1) * publishers);
        Ok((room, Self { events: joined.events(), chat, check }))
    }

    fn record(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Message(message) => {
                let (seq, body) = (message.seq.unwrap_or_default(), message.body.as_str().unwrap_or_default());
                self.check.record(seq, body, message.repeated);
            }
            RoomEvent::Rewind { seq } => self.check.seqs.reposition(0, 0, seq + 1),
            // The messages of a gap are missing once a later one arrives.
            _ => {}
        }
    }

    /// Checks all messages up to the end, which comes when all of them are sent.
    async fn run(mut self, mut end: oneshot::Receiver<u64>) -> CheckedCounts {
        let end = loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.record(&event),
                    // The session has ended. What it did not receive counts as lost.
                    None => break end.await,
                },
                end = &mut end => break end,
            }
        };
        let end = end.unwrap_or_default();
        while self.check.next_seq() < end
            && let Ok(Some(event)) = timeout(STALL_MAX, self.events.next()).await
        {
            self.record(&event);
        }
        self.chat.close().await;
        self.check.counts(end)
    }
}

/// All checking members of a run, in a runtime of their own.
#[derive(Debug)]
pub(crate) struct CheckingMembers {
    runtime: Runtime,
    /// The room's number of each member, the sender of its end, and its results.
    members: Vec<(u32, oneshot::Sender<u64>, JoinHandle<CheckedCounts>)>,
}

impl CheckingMembers {
    /// Lets `count` members join; none if the plan has no traffic in rooms of Parley.
    pub(crate) fn join(plan: &Plan, count: u32) -> Result<Option<Self>> {
        let Traffic::Rooms { publishers, .. } = plan.traffic else { return Ok(None) };
        if count == 0 || parley_urls(plan).next().is_none() {
            return Ok(None);
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let members = runtime.block_on(async {
            let mut members = Vec::new();
            for number in 0..count {
                let joining = timeout(JOIN_MAX, CheckingMember::join(plan, number, publishers));
                let (room, member) = joining.await.context("a checking member could not join in time")??;
                let (end, ended) = oneshot::channel();
                members.push((room, end, tokio::spawn(member.run(ended))));
            }
            anyhow::Ok(members)
        })?;
        Ok(Some(Self { runtime, members }))
    }

    /// Waits until the members have received everything that the tally knows of, and returns their results.
    pub(crate) fn finish(self, plan: &Plan, tally: &Tally) -> Result<CheckedCounts> {
        let Self { runtime, members } = self;
        runtime.block_on(async {
            let (mut counts, mut results) = (CheckedCounts::default(), Vec::new());
            for (room, end, result) in members {
                let top = tally.tails.get(&room).filter(|_| plan.counts_seqs()).map(|tail| tail.top);
                // An ended task has its result already.
                let _ = end.send(top.unwrap_or_default());
                results.push(result);
            }
            for result in results {
                counts.add(result.await.context("a checking member failed")?);
            }
            Ok(counts)
        })
    }
}

/// Returns the addresses that speak JSON over WebSocket, which also speak other formats to other clients.
fn parley_urls(plan: &Plan) -> impl Iterator<Item = String> {
    let addresses = plan.addresses.iter().filter(|address| address.dialect.is_parley_websocket());
    addresses.map(|address| format!("ws://{}/ws", address.at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Returns the lost, doubled and reordered messages of one publisher, each received with its seq and its number.
    fn faults_of(messages: &[(u64, u32)], end: u64) -> [u64; 3] {
        let mut check = MemberCheck::new(4, 7..9);
        for (seq, number) in messages {
            let body = String::from_utf8(Stamp { due: 1, publisher: 8, number: *number }.body(64)).unwrap();
            check.record(*seq, &body, false);
        }
        let CheckedCounts { received, lost, doubled, reordered, .. } = check.counts(end);
        assert_eq!(received, messages.len() as u64);
        [lost, doubled, reordered]
    }

    #[test]
    fn member_check_accepts_messages_in_order() {
        assert_eq!(faults_of(&[(5, 0), (6, 1), (7, 2)], 8), [0, 0, 0]);
        assert_eq!(faults_of(&[(5, 0), (6, 4)], 7), [0, 0, 0], "refused messages have no seq");
        assert_eq!(faults_of(&[], 0), [0, 0, 0], "the end is not known");
    }

    #[test]
    fn member_check_finds_every_altered_message() {
        assert_eq!(faults_of(&[(5, 0), (7, 2)], 8), [1, 0, 0], "dropped");
        assert_eq!(faults_of(&[(5, 0), (6, 1)], 8), [1, 0, 0], "dropped at the end");
        assert_eq!(faults_of(&[], 8), [3, 0, 0], "nothing received");
        assert_eq!(faults_of(&[(5, 0), (6, 1), (6, 1)], 7), [0, 1, 0], "doubled");
        assert_eq!(faults_of(&[(5, 0), (6, 1), (7, 1)], 8), [0, 1, 0], "doubled under another seq");
        assert_eq!(faults_of(&[(5, 0), (7, 2), (6, 1)], 8), [0, 0, 1], "reordered");
        assert_eq!(faults_of(&[(5, 1), (6, 2), (7, 1)], 8), [0, 1, 0], "stored twice");
    }

    #[test]
    fn repeated_message_after_rewind_is_no_fault() {
        let mut check = MemberCheck::new(4, 0..1);
        check.record(5, "", false);
        check.seqs.reposition(0, 0, 5);
        check.record(5, "", true);
        check.record(6, "", false);
        let counts = check.counts(7);
        assert_eq!((counts.received, counts.is_clean()), (2, true));
    }
}
