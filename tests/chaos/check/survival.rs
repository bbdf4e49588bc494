//! Survival: no program ends by itself, and one that was told to leave does so with exit code 0.
//!
//! A drain that cannot reach Redis may run out of its grace period (2): Redis was away, so it is excused.

use super::{Evidence, Finding, SECOND};
use crate::history::HistoryOp;
use crate::plan::Fault;

/// A drain may take its grace period of 30 s.
const DRAIN: u64 = 40 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let faults = evidence.faults();
    for event in &evidence.events {
        let HistoryOp::Exit { node, code, asked } = &event.op else { continue };
        finding.judged += 1;
        let hinders = |(from, to, fault): &(u64, u64, Fault)| {
            fault.silences_redis() && *from <= event.at && to.saturating_add(DRAIN) >= event.at
        };
        match (asked, code) {
            (true, Some(0)) => {}
            (true, Some(2)) if faults.iter().any(hinders) => finding.excused += 1,
            (true, code) => finding.broken.push(format!("{node} was told to leave and ended with {code:?}")),
            (false, code) => finding.broken.push(format!("{node} ended by itself with {code:?}")),
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
    fn checker_finds_crash_and_failed_drain() {
        let exit = |code, asked| HistoryOp::Exit { node: "g1".to_owned(), code, asked };
        for (op, broken) in
            [(exit(Some(101), false), 1), (exit(Some(1), true), 1), (exit(None, true), 1), (exit(Some(0), true), 0)]
        {
            let evidence = sample::with(sample::good(), sample::line(70, "bench", 0, OpStatus::Ok, op));
            assert_eq!(check(&evidence).broken.len(), broken);
        }
    }
}
