//! Leaks: when all members have left, no gateway has more descriptors than before the first connection, and Redis has
//! no key that belongs to a session.

use super::{Evidence, Finding};
use crate::history::HistoryOp;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let leave = HistoryOp::Phase { name: "leave".to_owned() };
    let has_left = evidence.events.iter().any(|event| event.op == leave);
    Finding { judged: usize::from(has_left), excused: 0, broken: evidence.leftovers.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn checker_reports_leftover_keys() {
        let leftovers = vec!["owned-nicks:x".to_owned()];
        assert_eq!(check(&Evidence { leftovers, ..sample::good() }).broken.len(), 1);
    }
}
