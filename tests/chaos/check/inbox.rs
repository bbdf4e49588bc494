//! Inbox: at the end, a session has every message that was sent to it while it lived.
//!
//! Judged for the last session of each member over WebSocket: all came back and had time before the last messages.

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
        let mut told = HashSet::new();
        for event in evidence.events.iter().filter(|event| event.process == process && event.kind == OpStatus::Ok) {
            if let HistoryOp::Message { room, key, .. } = &event.op
                && *room == inbox
            {
                told.insert(key.as_str());
            }
        }
        // Of a former session only what was sent last may be missing; it died with it.
        if session > 1 {
            continue;
        }
        for entry in evidence.log(&inbox) {
            finding.judged += 1;
            if !told.contains(entry.key.as_str()) {
                finding.broken.push(format!("{nick} was never told {entry:?}"));
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
        let mut deaf = evidence;
        deaf.events.retain(|event| !matches!(&event.op, HistoryOp::Message { room, .. } if room == "@bob"));
        assert_eq!(check(&deaf).broken.len(), 1);
    }
}
