//! Contiguity: after seq n a session receives n + 1 or a jump with the new position. The first message follows the
//! position in `joined`. No gap covers a message that the stream still has at the end.
//!
//! The line port sends no seqs; there the order in the stream shows which message comes next.

use std::collections::HashMap;

use super::redis_loss::RedisLosses;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, Jump};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, losses) = (Finding::default(), RedisLosses::new(evidence));
    let seqs: HashMap<(&str, &str), u64> = evidence
        .streams
        .iter()
        .flat_map(|(room, stream)| stream.iter().map(|entry| ((room.as_str(), entry.key.as_str()), entry.seq)))
        .collect();
    for ((session, room), received) in evidence.received() {
        let mut newest = None;
        for event in received {
            match &event.op {
                HistoryOp::Join { seq, .. } => newest = *seq,
                HistoryOp::Jump { jump, .. } => {
                    let is_valid = match jump {
                        Jump::Gap { from, to } => {
                            let is_kept = evidence.stream(room).iter().any(|entry| (*from..=*to).contains(&entry.seq));
                            from <= to && newest.is_none_or(|newest| newest + 1 == *from) && !is_kept
                        }
                        Jump::Rewound { seq } => newest.is_none_or(|newest| *seq <= newest),
                        Jump::Epoch { seq } => newest.is_none_or(|newest| *seq == newest),
                        Jump::Reset => true,
                    };
                    if !is_valid {
                        finding.broken.push(format!("{room}: {session:?} received {event:?} after {newest:?}"));
                    }
                    newest = jump.new_position();
                }
                // A republished message may have a new seq.
                HistoryOp::Message { seq: None, key, .. } if losses.may_be_renumbered(key) => newest = None,
                HistoryOp::Message { key, seq, .. } => {
                    let Some(seq) = seq.or_else(|| seqs.get(&(room, key.as_str())).copied()) else { continue };
                    finding.judged += 1;
                    if newest.is_some_and(|newest: u64| newest + 1 != seq) {
                        finding.broken.push(format!("{room}: {session:?} received {event:?} after {newest:?}"));
                    }
                    newest = Some(seq);
                }
                _ => {}
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::OpStatus;

    #[test]
    fn checker_finds_hole_without_correct_gap() {
        let evidence =
            sample::with(sample::good(), sample::line(62, "bob", 1, OpStatus::Ok, sample::message(4, "ann", "k4")));
        assert_eq!(check(&evidence).broken.len(), 1);
        let broken_with_gap = |from, to| {
            let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Gap { from, to } };
            let mut changed = evidence.clone();
            let last = changed.events.iter().position(|event| event.op == sample::message(4, "ann", "k4")).unwrap_or(0);
            changed.events.insert(last, sample::line(62, "bob", 1, OpStatus::Ok, jump));
            check(&changed).broken.len()
        };
        assert_eq!(broken_with_gap(3, 3), 0);
        assert_eq!(broken_with_gap(2, 3), 1, "the gap covers a received message");
        assert_eq!(broken_with_gap(3, 4), 1, "the gap covers the next message");
        let mut kept = sample::good();
        sample::change_stream(&mut kept, |stream| stream.push(sample::entry(3, "ann", 3, "k3")));
        let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Gap { from: 3, to: 3 } };
        let changed = sample::with(kept, sample::line(62, "bob", 1, OpStatus::Ok, jump));
        assert_eq!(check(&changed).broken.len(), 1, "the message is in the stream");
    }

    #[test]
    fn checker_finds_hole_after_join() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| event.process != "bob" || event.op != sample::message(1, "ann", "k1"));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
