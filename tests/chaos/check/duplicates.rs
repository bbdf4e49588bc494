//! Duplicates: no key and no message id is twice in a room's log, and none twice in what one session was told.

use std::collections::HashSet;

use super::{Evidence, Finding};
use crate::history::HistoryOp;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    for (room, log) in &evidence.logs {
        let (mut keys, mut ids) = (HashSet::new(), HashSet::new());
        for entry in log {
            finding.judged += 1;
            if !keys.insert(&entry.key) || !ids.insert(&entry.msg_id) {
                finding.broken.push(format!("{room}: in the log twice: {entry:?}"));
            }
        }
    }
    for ((session, room), told) in evidence.held() {
        let mut keys = HashSet::new();
        for event in told {
            let HistoryOp::Message { key, .. } = &event.op else { continue };
            finding.judged += 1;
            if !keys.insert(key) {
                finding.broken.push(format!("{room}: {session:?} was told twice: {event:?}"));
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
    fn checker_finds_duplicate_key_or_message_id() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log.push(sample::entry(3, "ann", 3, "k1")));
        assert_eq!(check(&evidence).broken.len(), 1);
        sample::change(&mut evidence, |log| {
            log[2].key = "other".to_owned();
            log[2].msg_id = "m1".to_owned();
        });
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_message_delivered_twice() {
        let again = sample::line(62, "bob", 1, OpStatus::Ok, sample::message(2, "ann", "mark-ann-2"));
        assert_eq!(check(&sample::with(sample::good(), again)).broken.len(), 1);
    }
}
