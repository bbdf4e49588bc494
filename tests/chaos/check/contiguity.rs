//! Contiguity: after seq n a session is told n + 1, or of a jump that says where it goes on. The first is the one
//! after `joined`. Nothing that the log still has at the end is said to be gone.
//!
//! The line port sends no numbers; there the log says which message follows which.

use std::collections::HashMap;

use super::redis_loss::Forgetting;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, Jump};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, forgetting) = (Finding::default(), Forgetting::new(evidence));
    let numbers: HashMap<(&str, &str), u64> = evidence
        .logs
        .iter()
        .flat_map(|(room, log)| log.iter().map(|entry| ((room.as_str(), entry.key.as_str()), entry.seq)))
        .collect();
    for ((session, room), told) in evidence.lists() {
        let mut newest = None;
        for event in told {
            match &event.op {
                HistoryOp::Join { seq, .. } => newest = *seq,
                HistoryOp::Jump { jump, .. } => {
                    let is_right = match jump {
                        Jump::Gap { from, to } => {
                            let is_kept = evidence.log(room).iter().any(|entry| (*from..=*to).contains(&entry.seq));
                            from <= to && newest.is_none_or(|newest| newest + 1 == *from) && !is_kept
                        }
                        Jump::Rewound { seq } => newest.is_none_or(|newest| *seq <= newest),
                        Jump::Epoch { seq } => newest.is_none_or(|newest| *seq == newest),
                        Jump::Anew => true,
                    };
                    if !is_right {
                        finding.broken.push(format!("{room}: {session:?} after {newest:?} was told {event:?}"));
                    }
                    newest = jump.goes_on_after();
                }
                // Put back afterwards it has another number by now.
                HistoryOp::Message { seq: None, key, .. } if forgetting.holds(key) => newest = None,
                HistoryOp::Message { key, seq, .. } => {
                    let Some(seq) = seq.or_else(|| numbers.get(&(room, key.as_str())).copied()) else { continue };
                    finding.judged += 1;
                    if newest.is_some_and(|newest: u64| newest + 1 != seq) {
                        finding.broken.push(format!("{room}: {session:?} after {newest:?} was told {event:?}"));
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
        let broken_when_told = |from, to| {
            let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Gap { from, to } };
            let mut told = evidence.clone();
            let last = told.events.iter().position(|event| event.op == sample::message(4, "ann", "k4")).unwrap_or(0);
            told.events.insert(last, sample::line(62, "bob", 1, OpStatus::Ok, jump));
            check(&told).broken.len()
        };
        assert_eq!(broken_when_told(3, 3), 0);
        assert_eq!(broken_when_told(2, 3), 1, "a gap over what was told");
        assert_eq!(broken_when_told(3, 4), 1, "a gap over what comes next");
        let mut kept = sample::good();
        sample::change(&mut kept, |log| log.push(sample::entry(3, "ann", 3, "k3")));
        let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Gap { from: 3, to: 3 } };
        let told = sample::with(kept, sample::line(62, "bob", 1, OpStatus::Ok, jump));
        assert_eq!(check(&told).broken.len(), 1, "it is in the log");
    }

    #[test]
    fn checker_finds_hole_after_join() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| event.process != "bob" || event.op != sample::message(1, "ann", "k1"));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
