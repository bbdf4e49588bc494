//! Order: the messages that a session received and kept are in the room's stream, in the same order. In one epoch a seq
//! means one message, for all sessions. A message that was sent after the ack of another one follows it.
//!
//! A received message that is neither stored nor trimmed is a violation. Excused and counted are the last messages of a
//! member that left before it could receive `rewound`. Also excused are republished messages of two gateways, or of a
//! gateway that counted as dead: their order may change.

use std::collections::HashMap;

use super::redis_loss::{AckedWrite, RedisLosses};
use super::{Evidence, Finding};
use crate::history::{HistoryEvent, HistoryOp};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, losses) = (Finding::default(), RedisLosses::new(evidence));
    check_kept_order(evidence, &losses, &mut finding);
    check_seq_meaning(evidence, &mut finding);
    check_sender_order(evidence, &losses, &mut finding);
    finding
}

fn check_kept_order(evidence: &Evidence, losses: &RedisLosses<'_>, finding: &mut Finding) {
    let indices: HashMap<(&str, &str), usize> = evidence
        .streams
        .iter()
        .flat_map(|(room, stream)| {
            stream.iter().enumerate().map(|(at, entry)| ((room.as_str(), entry.key.as_str()), at))
        })
        .collect();
    let mut epoch_begins: HashMap<(&str, &str), u64> = HashMap::new();
    for event in &evidence.events {
        if let HistoryOp::Message { room, epoch: Some(epoch), .. } = &event.op {
            epoch_begins.entry((room, epoch)).or_insert(event.at);
        }
    }
    let may_be_lost = |event: &HistoryEvent| {
        let HistoryOp::Message { room, key, epoch, .. } = &event.op else { return false };
        let began = epoch.as_ref().and_then(|epoch| epoch_begins.get(&(room, epoch)));
        losses.may_be_lost_since(key, event.at, began.copied())
    };
    for ((session, room), kept) in evidence.kept() {
        let mut newest = None;
        let certain = kept.iter().rposition(|event| !may_be_lost(event)).map_or(0, |last| last + 1);
        for (number, event) in kept.into_iter().enumerate() {
            let HistoryOp::Message { key, .. } = &event.op else { continue };
            finding.judged += 1;
            let index = indices.get(&(room, key.as_str()));
            if index.is_some() && newest <= index {
                newest = index;
            } else if number >= certain || index.is_none() && evidence.is_trimmed(room) {
                finding.excused += 1;
            } else {
                let what = if index.is_some() { "out of order" } else { "a message that is not stored" };
                finding.broken.push(format!("{room}: {session:?} received {what}: {event:?}"));
            }
        }
    }
}

fn check_seq_meaning(evidence: &Evidence, finding: &mut Finding) {
    let mut keys: HashMap<(&str, &str, u64), &str> = HashMap::new();
    for event in &evidence.events {
        let HistoryOp::Message { room, key, epoch: Some(epoch), seq: Some(seq), .. } = &event.op else { continue };
        let first = keys.entry((room, epoch, *seq)).or_insert(key);
        if first != key {
            finding.broken.push(format!("{room}: the seq was {first} for others in this epoch: {event:?}"));
        }
    }
}

fn check_sender_order(evidence: &Evidence, losses: &RedisLosses<'_>, finding: &mut Finding) {
    for (room, stream) in &evidence.streams {
        // By sender: its latest sent message among the earlier entries.
        let mut latest: HashMap<&str, (u64, AckedWrite<'_>, &str)> = HashMap::new();
        for key in stream.iter().map(|entry| entry.key.as_str()) {
            let Some((sent_at, acked)) = losses.acked(key) else { continue };
            let before = latest.entry(acked.session.0).or_insert((sent_at, acked, key));
            if before.0 > acked.at {
                let may_be_reordered = || {
                    acked.may_be_from_other_gateway(&before.1)
                        && losses.may_be_renumbered(key)
                        && losses.may_be_renumbered(before.2)
                };
                if may_be_reordered() || losses.may_be_republished_late(key) {
                    finding.excused += 1;
                } else {
                    finding
                        .broken
                        .push(format!("{room}: {key} was acked before {} was sent, and follows it", before.2));
                }
            }
            if before.0 < sent_at {
                *before = (sent_at, acked, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::{Jump, OpStatus};
    use crate::plan::Fault;

    /// Adds a kill of Redis right after the last message.
    fn with_redis_kill(evidence: Evidence) -> Evidence {
        let kill = |second, kind| sample::line(second, "bench", 0, kind, HistoryOp::Fault(Fault::RedisKill));
        sample::with(sample::with(evidence, kill(62, OpStatus::Invoke)), kill(63, OpStatus::Ok))
    }

    fn delivery(second: u64, seq: u64, key: &str) -> HistoryEvent {
        sample::line(second, "bob", 1, OpStatus::Ok, sample::message(seq, "ann", key))
    }

    /// Returns a run in which bob receives a message in second 61 that is not stored.
    fn with_unstored_message() -> Evidence {
        let request = sample::line(61, "ann", 1, OpStatus::Invoke, sample::send(None)("ghost"));
        sample::with(sample::with(sample::good(), request), delivery(61, 3, "ghost"))
    }

    #[test]
    fn checker_finds_exchanged_messages() {
        let mut evidence = sample::good();
        sample::change_stream(&mut evidence, |stream| stream.reverse());
        assert_eq!(
            check(&evidence).broken.len(),
            3,
            "both members received both messages, and ann sent them in this order"
        );
    }

    #[test]
    fn checker_finds_unstored_message_unless_rewound() {
        assert_eq!(check(&with_unstored_message()).broken.len(), 1);
        let rewound = |seq| {
            let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Rewound { seq } };
            check(&sample::with(with_unstored_message(), sample::line(63, "bob", 1, OpStatus::Ok, jump))).broken.len()
        };
        assert_eq!((rewound(2), rewound(3)), (0, 1));
    }

    #[test]
    fn checker_excuses_unstored_message_only_at_session_end() {
        let left = with_redis_kill(with_unstored_message());
        assert_eq!((check(&left).broken.len(), check(&left).excused), (0, 1), "bob left before rewound");
        let mut stayed = sample::with(left, delivery(70, 4, "later"));
        sample::change_stream(&mut stayed, |stream| stream.push(sample::entry(4, "ann", 3, "later")));
        assert_eq!((check(&stayed).broken.len(), check(&stayed).excused), (1, 0));
    }

    #[test]
    fn checker_finds_seq_shared_by_two_messages() {
        let mut evidence = sample::with(sample::good(), delivery(62, 3, "k3"));
        sample::change_stream(&mut evidence, |stream| stream.push(sample::entry(3, "ann", 3, "k3")));
        assert_eq!(check(&evidence).broken, Vec::<String>::new());
        let mut other = sample::message(2, "ann", "k3");
        let in_another_epoch = |op: &mut HistoryOp| {
            if let HistoryOp::Message { epoch, .. } = op {
                *epoch = Some("e2".to_owned());
            }
        };
        let found = |op: &HistoryOp| {
            check(&sample::with(evidence.clone(), sample::line(62, "eve", 1, OpStatus::Ok, op.clone()))).broken
        };
        assert_eq!(found(&other).len(), 1);
        in_another_epoch(&mut other);
        assert_eq!(found(&other).len(), 0);
    }

    #[test]
    fn checker_excuses_reordering_by_two_gateways() {
        let send = |second, session, kind, key: &str| {
            let seq = (kind == OpStatus::Ok).then_some(9);
            sample::line(second, "eve", session, kind, sample::send(seq)(key))
        };
        let reordered = |session| {
            let mut evidence = sample::good();
            for (second, session, key) in [(60, 1, "first"), (61, session, "second")] {
                evidence = sample::with(evidence, send(second, session, OpStatus::Invoke, key));
                evidence = sample::with(evidence, send(second, session, OpStatus::Ok, key));
            }
            let entries = ["second", "first"].map(|key| sample::entry(3, "eve", 3, key));
            sample::change_stream(&mut evidence, |stream| stream.extend(entries));
            evidence
        };
        let found = |evidence: &Evidence| (check(evidence).broken.len(), check(evidence).excused);
        assert_eq!(found(&reordered(1)), (1, 0));
        assert_eq!(found(&reordered(2)), (1, 0));
        assert_eq!(found(&with_redis_kill(reordered(1))), (1, 0), "one gateway");
        assert_eq!(found(&with_redis_kill(reordered(2))), (0, 1));
    }
}
