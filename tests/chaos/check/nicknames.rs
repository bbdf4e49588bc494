//! Nicknames: one owner at a time. In a room's log a nick's fence never goes back, and nobody gets a message acked that
//! they began to say under a name which somebody else had been given before.

use std::collections::HashMap;

use super::{Evidence, Finding, Session};
use crate::history::{Kind, Op};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    for (room, log) in &evidence.logs {
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for entry in log {
            finding.judged += 1;
            let before = newest.insert(&entry.from, entry.fence).unwrap_or_default();
            if before > entry.fence {
                finding.broken.push(format!("{room}: after fence {before} the log has {entry:?}"));
            }
        }
    }
    let mut names: HashMap<Session<'_>, &str> = HashMap::new();
    // Who was given the nick last, as far as anybody had been told.
    let mut owners: HashMap<&str, Session<'_>> = HashMap::new();
    // What was begun when somebody else had the name already.
    let mut stolen: HashMap<&str, Session<'_>> = HashMap::new();
    for event in &evidence.events {
        let session = (event.process.as_str(), event.session);
        match (&event.op, event.kind) {
            (Op::Register { nick, .. }, Kind::Ok) => {
                names.insert(session, nick);
                owners.insert(nick, session);
            }
            (Op::Send { key, .. }, Kind::Invoke) => {
                let owner = names.get(&session).and_then(|nick| owners.get(nick));
                if let Some(owner) = owner.filter(|owner| **owner != session) {
                    stolen.insert(key, *owner);
                }
            }
            (Op::Send { key, .. }, Kind::Ok) => {
                finding.judged += 1;
                if let Some(owner) = stolen.get(key.as_str()) {
                    finding.broken.push(format!("{session:?} said {key} under the name that {owner:?} had"));
                }
            }
            _ => {}
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_fence_that_goes_back_is_found() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log[1].fence = 0);
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn a_ghost_that_speaks_under_a_lost_name_is_found() {
        use Kind::{Invoke, Ok};
        let evidence = sample::with(sample::good(), sample::line(26, "ann", 1, Invoke, sample::send(None)("ghost")));
        assert_eq!(check(&evidence).broken, Vec::<String>::new(), "asking is allowed");
        let evidence = sample::with(evidence, sample::line(27, "ann", 1, Ok, sample::send(Some(9))("ghost")));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
