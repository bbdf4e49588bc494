//! Duplicates: no key and no message id occurs twice in a room's stream, and no session receives a key twice.

use std::collections::HashSet;

use super::{Evidence, Finding};
use crate::history::HistoryOp;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    for (room, stream) in &evidence.streams {
        let (mut keys, mut ids) = (HashSet::new(), HashSet::new());
        for entry in stream {
            finding.judged += 1;
            if !keys.insert(&entry.key) || !ids.insert(&entry.msg_id) {
                finding.broken.push(format!("{room}: stored twice: {entry:?}"));
            }
        }
    }
    for ((session, room), kept) in evidence.kept() {
        let mut keys = HashSet::new();
        for event in kept {
            let HistoryOp::Message { key, .. } = &event.op else { continue };
            finding.judged += 1;
            if !keys.insert(key) {
                finding.broken.push(format!("{room}: {session:?} received twice: {event:?}"));
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
        sample::change_stream(&mut evidence, |stream| stream.push(sample::entry(3, "ann", 3, "k1")));
        assert_eq!(check(&evidence).broken.len(), 1);
        sample::change_stream(&mut evidence, |stream| {
            stream[2].key = "other".to_owned();
            stream[2].msg_id = "m1".to_owned();
        });
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_message_delivered_twice() {
        let duplicate = sample::line(62, "bob", 1, OpStatus::Ok, sample::message(2, "ann", "mark-ann-2"));
        assert_eq!(check(&sample::with(sample::good(), duplicate)).broken.len(), 1);
    }
}
