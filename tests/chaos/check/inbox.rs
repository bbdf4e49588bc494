//! Inbox: at the end, a session has received every message that was sent to it.
//!
//! Checked for members over WebSocket that kept their first session: all returned in time for the last messages.

use std::collections::{BTreeMap, HashSet};

use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let mut last: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        if let HistoryOp::Register { nick, session: Some(_), .. } = &event.op {
            last.insert(nick, (&event.process, event.session));
        }
    }
    for (nick, (process, session)) in last {
        let inbox = format!("@{nick}");
        let mut received = HashSet::new();
        for event in evidence.events.iter().filter(|event| event.process == process && event.kind == OpStatus::Ok) {
            if let HistoryOp::Message { room, key, .. } = &event.op
                && *room == inbox
            {
                received.insert(key.as_str());
            }
        }
        // The inbox of an ended session may hold messages that it never received.
        if session > 1 {
            continue;
        }
        for entry in evidence.stream(&inbox) {
            finding.judged += 1;
            if !received.contains(entry.key.as_str()) {
                finding.broken.push(format!("{nick} never received {entry:?}"));
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn checker_finds_undelivered_inbox_message() {
        let evidence = sample::good();
        assert_eq!(check(&evidence).broken, Vec::<String>::new());
        let mut incomplete = evidence;
        incomplete.events.retain(|event| !matches!(&event.op, HistoryOp::Message { room, .. } if room == "@bob"));
        assert_eq!(check(&incomplete).broken.len(), 1);
    }
}
