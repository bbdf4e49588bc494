//! Sessions: a session outlives its connections and gateways. A client that resumes with its token never needs a new
//! session, and is still in all its rooms.

use std::collections::HashSet;

use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (mut begun, mut joined) = (HashSet::new(), HashSet::new());
    let is_member = |process: &str| !process.starts_with("rival");
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok && is_member(&event.process)) {
        let process = event.process.as_str();
        match &event.op {
            HistoryOp::Register { resumed: true, .. } => finding.judged += 1,
            // The line port has no sessions to resume, and does not show its node.
            HistoryOp::Register { node: Some(_), resumed: false, .. } if !begun.insert(process) => {
                finding.broken.push(format!("{process} needed a new session: {event:?}"));
            }
            HistoryOp::Join { room, .. }
                if begun.contains(process) && !joined.insert((process, event.session, room)) =>
            {
                finding.broken.push(format!("{process} had to join {room} again"));
            }
            _ => {}
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::{SECOND, sample};
    use super::*;

    #[test]
    fn checker_finds_lost_session() {
        let mut evidence = sample::good();
        for event in evidence.events.iter_mut().filter(|event| event.at > 20 * SECOND) {
            if let HistoryOp::Register { resumed, .. } = &mut event.op {
                *resumed = false;
            }
        }
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_lost_room() {
        let second_join = HistoryOp::Join { room: "#a".to_owned(), seq: Some(1) };
        let evidence = sample::with(sample::good(), sample::line(24, "ann", 1, OpStatus::Ok, second_join));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
