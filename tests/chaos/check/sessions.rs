//! Sessions: a session outlives its connections and gateways. A client that resumes with its token
//! never has to begin anew, and is still in every room that it was in.

use std::collections::HashSet;

use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (mut begun, mut entered) = (HashSet::new(), HashSet::new());
    let is_member = |process: &str| !process.starts_with("rival");
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok && is_member(&event.process)) {
        let process = event.process.as_str();
        match &event.op {
            HistoryOp::Register { resumed: true, .. } => finding.judged += 1,
            // The line port has no sessions to go on with.
            HistoryOp::Register { session: Some(_), resumed: false, .. } if !begun.insert(process) => {
                finding.broken.push(format!("{process} had to begin anew: {event:?}"));
            }
            HistoryOp::Join { room, .. }
                if begun.contains(process) && !entered.insert((process, event.session, room)) =>
            {
                finding.broken.push(format!("{process} had to enter {room} again"));
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
        let again = HistoryOp::Join { room: "#a".to_owned(), seq: Some(1) };
        let evidence = sample::with(sample::good(), sample::line(24, "ann", 1, OpStatus::Ok, again));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
