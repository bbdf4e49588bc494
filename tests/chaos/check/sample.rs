//! A small history in which everything is as it should be; the checkers' tests break it, one thing at a time.
//!
//! ann and bob sit on g1 and g2 and talk in `#a`; g1 is killed, its user goes offline 9 s later, goes on with her
//! session on g2 and tells bob something; Redis is away for a while and all stay.

use super::{Evidence, RecordedLeave, SECOND, StoredWrite};
use crate::history::{HistoryEvent, HistoryOp, OpStatus};
use crate::plan::Fault;

/// Builds one line of history at this second.
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
    let heard = HistoryOp::Message { room: "@bob".to_owned(), from, key, msg_id, epoch: None, seq: Some(1) };
    let session = Some("session of ann".to_owned());
    let back = HistoryOp::Register { nick: "ann".to_owned(), node: Some("g2".to_owned()), session, resumed: true };
    let events = vec![
        line(1, "ann", 1, Ok, registered("ann", "g1")),
        line(1, "bob", 1, Ok, registered("bob", "g2")),
        line(2, "ann", 1, Ok, join(0)),
        line(2, "bob", 1, Ok, join(0)),
        line(3, "ann", 1, Invoke, send(None)("k1")),
        line(3, "ann", 1, Ok, send(Some(1))("k1")),
        line(3, "bob", 1, Ok, message(1, "ann", "k1")),
        line(10, "bench", 0, Invoke, HistoryOp::Fault(kill)),
        line(10, "ann", 1, Ok, HistoryOp::End { why: "reset".to_owned() }),
        line(12, "bench", 0, Ok, HistoryOp::Fault(kill)),
        line(19, "bob", 1, Ok, HistoryOp::Left { room: "#a".to_owned(), nicks: vec!["ann".to_owned()] }),
        line(24, "ann", 1, Ok, back),
        line(24, "ann", 1, Ok, message(1, "ann", "k1")),
        line(25, "ann", 1, Invoke, direct(false)),
        line(25, "ann", 1, Ok, direct(true)),
        line(25, "bob", 1, Ok, heard),
        line(30, "bench", 0, Invoke, HistoryOp::Fault(outage)),
        line(50, "bench", 0, Ok, HistoryOp::Fault(outage)),
        line(60, "bench", 0, Ok, phase("mark")),
        line(61, "ann", 1, Invoke, send(None)("mark-ann-2")),
        line(61, "ann", 1, Ok, send(Some(2))("mark-ann-2")),
        line(61, "ann", 1, Ok, message(2, "ann", "mark-ann-2")),
        line(61, "bob", 1, Ok, message(2, "ann", "mark-ann-2")),
        line(80, "bench", 0, Ok, phase("leave")),
        line(81, "bench", 0, Ok, HistoryOp::Exit { node: "g2".to_owned(), code: Some(0), asked: true }),
    ];
    let log = vec![entry(1, "ann", 1, "k1"), entry(2, "ann", 3, "mark-ann-2")];
    let departures = vec![RecordedLeave { at: 19 * SECOND, nick: "ann".to_owned(), reason: "gateway_lost".to_owned() }];
    let logs = [("#a".to_owned(), log), ("@bob".to_owned(), vec![entry(1, "ann", 3, "d1")])].into();
    Evidence { events, logs, departures, ..Evidence::default() }
}

/// Changes what is in the log of the room.
pub(super) fn change(evidence: &mut Evidence, change: impl FnOnce(&mut Vec<StoredWrite>)) {
    evidence.logs.get_mut("#a").map(change);
}

/// Puts an event into its place in time.
pub(super) fn with(mut evidence: Evidence, event: HistoryEvent) -> Evidence {
    let place = evidence.events.partition_point(|other| other.at <= event.at);
    evidence.events.insert(place, event);
    evidence
}
