//! Order: what one session was told in a room, and not told to discard, is a part of the room's log, in its order.
//!
//! Messages that are in no log count as told out of nothing, unless Redis may have forgotten them or they were trimmed.

use std::collections::HashMap;

use super::{Evidence, Finding};
use crate::history::Op;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, excused) = (Finding::default(), evidence.excused_losses());
    let places: HashMap<(&str, &str), usize> = evidence
        .logs
        .iter()
        .flat_map(|(room, log)| log.iter().enumerate().map(|(at, entry)| ((room.as_str(), entry.key.as_str()), at)))
        .collect();
    for ((session, room), told) in evidence.held() {
        let mut newest = None;
        for event in told {
            let Op::Message { key, .. } = &event.op else { continue };
            finding.judged += 1;
            let Some(place) = places.get(&(room, key.as_str())) else {
                if evidence.is_trimmed(room) || excused.hold(event.at) {
                    finding.excused += 1;
                } else {
                    finding.broken.push(format!("{room}: {session:?} was told what is not in the log: {event:?}"));
                }
                continue;
            };
            if newest.is_some_and(|newest| newest > place) {
                finding.broken.push(format!("{room}: {session:?} was told out of order: {event:?}"));
            }
            newest = newest.max(Some(place));
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::{Jump, Kind};

    #[test]
    fn an_exchange_is_found() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log.reverse());
        assert_eq!(check(&evidence).broken.len(), 2, "both were told both");
    }

    #[test]
    fn a_message_from_nowhere_is_found_unless_it_was_to_be_discarded() {
        let ghost = sample::line(62, "bob", 1, Kind::Ok, sample::message(3, "ann", "ghost"));
        let haunted = sample::with(sample::good(), ghost);
        assert_eq!(check(&haunted).broken.len(), 1);
        let rewound = |seq| {
            let jump = Op::Jump { room: "#a".to_owned(), jump: Jump::Rewound { seq } };
            check(&sample::with(haunted.clone(), sample::line(63, "bob", 1, Kind::Ok, jump))).broken.len()
        };
        assert_eq!((rewound(2), rewound(3)), (0, 1));
    }
}
