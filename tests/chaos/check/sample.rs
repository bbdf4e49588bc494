//! A small history without violations; each test of a checker breaks one part of it.
//!
//! ann on g1 and bob on g2 are members of `#a`. g1 is killed, and ann goes offline 9 s later. She resumes her session
//! on g2 and sends bob a direct message. Redis is stopped for a while, and both stay online. bob is a program on a
//! client library. The application gets webhooks, the first one twice.

use super::{Evidence, RecordedLeave, SECOND, StoredWrite};
use crate::history::{HistoryEvent, HistoryOp, OpStatus};
use crate::plan::Fault;

/// Returns one event of the history at this second.
pub(super) fn line(second: u64, process: &str, session: u32, kind: OpStatus, op: HistoryOp) -> HistoryEvent {
    HistoryEvent { at: second * SECOND, process: process.to_owned(), session, kind, op }
}

pub(super) fn registered(nick: &str, node: &str) -> HistoryOp {
    let session = Some(format!("session of {nick}"));
    HistoryOp::Register { nick: nick.to_owned(), node: Some(node.to_owned()), session, resumed: false }
}

pub(super) fn send(seq: Option<u64>) -> impl Fn(&str) -> HistoryOp {
    move |key| HistoryOp::Send {
        room: "#a".to_owned(),
        key: key.to_owned(),
        msg_id: seq.map(|seq| format!("m{seq}")),
        seq,
    }
}

pub(super) fn message(seq: u64, from: &str, key: &str) -> HistoryOp {
    let (room, from, key) = ("#a".to_owned(), from.to_owned(), key.to_owned());
    HistoryOp::Message {
        room,
        from,
        key,
        msg_id: Some(format!("m{seq}")),
        epoch: Some("e1".to_owned()),
        seq: Some(seq),
    }
}

fn webhook(seq: u64, key: &str) -> HistoryOp {
    HistoryOp::Webhook { id: format!("m{seq}"), room: "#a".to_owned(), key: key.to_owned(), seq }
}

pub(super) fn entry(seq: u64, from: &str, fence: u64, key: &str) -> StoredWrite {
    StoredWrite { seq, msg_id: format!("m{seq}"), from: from.to_owned(), fence, key: key.to_owned() }
}

pub(super) fn good() -> Evidence {
    use OpStatus::{Invoke, Ok};
    let join = |seq| HistoryOp::Join { room: "#a".to_owned(), seq: Some(seq) };
    let (kill, outage) = (Fault::GatewayKill { gateway: 0 }, Fault::RedisStop);
    let phase = |name: &str| HistoryOp::Phase { name: name.to_owned() };
    let direct = |acked: bool| {
        let (room, key) = ("@bob".to_owned(), "d1".to_owned());
        HistoryOp::Send { room, key, msg_id: acked.then(|| "m1".to_owned()), seq: None }
    };
    let (from, key, msg_id) = ("ann".to_owned(), "d1".to_owned(), Some("m1".to_owned()));
    let delivered = HistoryOp::Message { room: "@bob".to_owned(), from, key, msg_id, epoch: None, seq: Some(1) };
    let session = Some("session of ann".to_owned());
    let resumed = HistoryOp::Register { nick: "ann".to_owned(), node: Some("g2".to_owned()), session, resumed: true };
    let library = || HistoryOp::Library { name: "js".to_owned(), failure: None };
    let events = vec![
        line(0, "bob", 0, Invoke, library()),
        line(1, "ann", 1, Ok, registered("ann", "g1")),
        line(1, "bob", 1, Ok, registered("bob", "g2")),
        line(2, "ann", 1, Ok, join(0)),
        line(2, "bob", 1, Ok, join(0)),
        line(3, "ann", 1, Invoke, send(None)("k1")),
        line(3, "ann", 1, Ok, send(Some(1))("k1")),
        line(3, "bob", 1, Ok, message(1, "ann", "k1")),
        line(10, "bench", 0, Invoke, HistoryOp::Fault(kill)),
        line(10, "ann", 1, Ok, HistoryOp::End { reason: "reset".to_owned() }),
        line(12, "bench", 0, Ok, HistoryOp::Fault(kill)),
        line(19, "bob", 1, Ok, HistoryOp::Left { room: "#a".to_owned(), nicks: vec!["ann".to_owned()] }),
        line(20, "application", 0, Ok, webhook(1, "k1")),
        line(24, "ann", 1, Ok, resumed),
        line(24, "ann", 1, Ok, message(1, "ann", "k1")),
        line(25, "ann", 1, Invoke, direct(false)),
        line(25, "ann", 1, Ok, direct(true)),
        line(25, "bob", 1, Ok, delivered),
        line(30, "bench", 0, Invoke, HistoryOp::Fault(outage)),
        line(50, "bench", 0, Ok, HistoryOp::Fault(outage)),
        line(60, "bench", 0, Ok, phase("mark")),
        line(61, "ann", 1, Invoke, send(None)("mark-ann-2")),
        line(61, "ann", 1, Ok, send(Some(2))("mark-ann-2")),
        line(61, "ann", 1, Ok, message(2, "ann", "mark-ann-2")),
        line(61, "bob", 1, Ok, message(2, "ann", "mark-ann-2")),
        line(62, "application", 0, Ok, webhook(1, "k1")),
        line(62, "application", 0, Ok, webhook(2, "mark-ann-2")),
        line(80, "bench", 0, Ok, phase("leave")),
        line(81, "bob", 1, Ok, library()),
        line(81, "bench", 0, Ok, HistoryOp::Exit { node: "g2".to_owned(), code: Some(0), requested: true }),
    ];
    let stream = vec![entry(1, "ann", 1, "k1"), entry(2, "ann", 3, "mark-ann-2")];
    let departures = vec![RecordedLeave { at: 19 * SECOND, nick: "ann".to_owned(), reason: "gateway_lost".to_owned() }];
    let streams = [("#a".to_owned(), stream), ("@bob".to_owned(), vec![entry(1, "ann", 3, "d1")])].into();
    Evidence { events, streams, departures, ..Evidence::default() }
}

/// Changes the stream of `#a`.
pub(super) fn change_stream(evidence: &mut Evidence, change: impl FnOnce(&mut Vec<StoredWrite>)) {
    evidence.streams.get_mut("#a").map(change);
}

/// Inserts an event at its time.
pub(super) fn with(mut evidence: Evidence, event: HistoryEvent) -> Evidence {
    let index = evidence.events.partition_point(|other| other.at <= event.at);
    evidence.events.insert(index, event);
    evidence
}
