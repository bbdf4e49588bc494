//! Survival: no program ends by itself, and a program that receives SIGTERM exits with 0.
//!
//! A drain without Redis may exceed its grace period (exit code 2), which is excused.

use super::{Evidence, Finding, SECOND};
use crate::history::HistoryOp;
use crate::plan::Fault;

/// Maximum time of a drain: its grace period of 30 s and a margin.
const DRAIN_NANOS_MAX: u64 = 40 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let faults = evidence.faults();
    for event in &evidence.events {
        let HistoryOp::Exit { node, code, requested } = &event.op else { continue };
        finding.judged += 1;
        let delays_drain = |(from, to, fault): &(u64, u64, Fault)| {
            fault.interrupts_redis() && *from <= event.at && to.saturating_add(DRAIN_NANOS_MAX) >= event.at
        };
        match (requested, code) {
            (true, Some(0)) => {}
            (true, Some(2)) if faults.iter().any(delays_drain) => finding.excused += 1,
            (true, code) => finding.broken.push(format!("{node} was asked to drain and exited with {code:?}")),
            (false, code) => finding.broken.push(format!("{node} exited by itself with {code:?}")),
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
        let exit = |code, requested| HistoryOp::Exit { node: "g1".to_owned(), code, requested };
        for (op, broken) in
            [(exit(Some(101), false), 1), (exit(Some(1), true), 1), (exit(None, true), 1), (exit(Some(0), true), 0)]
        {
            let evidence = sample::with(sample::good(), sample::line(70, "bench", 0, OpStatus::Ok, op));
            assert_eq!(check(&evidence).broken.len(), broken);
        }
    }
}
