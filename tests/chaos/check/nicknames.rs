//! Nicknames: one owner at a time. In a room's log the fence of a nickname never goes back. No ack is given for a
//! message that was sent under a nickname which another session had claimed before. No session claims the nickname of
//! another one that is online on a gateway without a fault that may have made it count as lost.
//!
//! What is put back after a crash of Redis comes from two gateways, if the name had moved from one to the other just
//! before, and late from one that counted as dead.

use std::collections::HashMap;

use super::presence::{OnlineSpan, is_lost, stays};
use super::redis_loss::Forgetting;
use super::{Evidence, Finding, SECOND, SessionHistory, StoredWrite};
use crate::history::{HistoryOp, OpStatus};

/// A connection that was closed writes it down by then.
const NOTICED: u64 = SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, forgetting) = (Finding::default(), Forgetting::new(evidence));
    for (room, log) in &evidence.logs {
        let mut newest: HashMap<&str, &StoredWrite> = HashMap::new();
        for entry in log {
            finding.judged += 1;
            let before = newest.entry(&entry.from).or_insert(entry);
            let are_put_back = || forgetting.holds(&before.key) && forgetting.holds(&entry.key);
            if before.fence <= entry.fence {
                *before = entry;
            } else if !are_put_back() && !forgetting.is_late(&entry.key) {
                finding.broken.push(format!("{room}: after {before:?} the log has {entry:?}"));
            }
        }
    }
    let mut names: HashMap<SessionHistory<'_>, &str> = HashMap::new();
    // Who was given the nick last, as far as anybody had been told.
    let mut owners: HashMap<&str, SessionHistory<'_>> = HashMap::new();
    // What was begun when somebody else had the name already.
    let mut stolen: HashMap<&str, SessionHistory<'_>> = HashMap::new();
    for event in &evidence.events {
        let session = (event.process.as_str(), event.session);
        match (&event.op, event.kind) {
            (HistoryOp::Register { nick, .. }, OpStatus::Ok) => {
                names.insert(session, nick);
                owners.insert(nick, session);
            }
            (HistoryOp::Send { key, .. }, OpStatus::Invoke) => {
                let owner = names.get(&session).and_then(|nick| owners.get(nick));
                if let Some(owner) = owner.filter(|owner| **owner != session) {
                    stolen.insert(key, *owner);
                }
            }
            (HistoryOp::Send { key, .. }, OpStatus::Ok) => {
                finding.judged += 1;
                if let Some(owner) = stolen.get(key.as_str()) {
                    finding.broken.push(format!("{session:?} said {key} under the name that {owner:?} had"));
                }
            }
            _ => {}
        }
    }
    given_twice(evidence, &mut finding);
    finding
}

/// Names given to somebody while a connection held them that went on afterwards, or was refused something under them.
fn given_twice(evidence: &Evidence, finding: &mut Finding) {
    let (stays, faults) = (stays(evidence), evidence.faults());
    for (at, later) in stays.iter().enumerate() {
        let is_other = |stay: &&OnlineSpan<'_>| stay.nick == later.nick && stay.session != later.session;
        for holder in stays[..at].iter().filter(is_other) {
            finding.judged += 1;
            let goes_on = holder.to > later.from + NOTICED || holder.why.starts_with("refused");
            if holder.to > later.from && goes_on && !is_lost(holder, later.from, &faults) {
                let (nick, at) = (later.nick, later.from / SECOND);
                finding.broken.push(format!("{:?} got {nick} at {at} s, {:?} had it", later.session, holder.session));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn checker_finds_fence_going_back() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log[1].fence = 0);
        assert_eq!(check(&evidence).broken.len(), 1);
        let kill = sample::line(62, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(crate::plan::Fault::RedisKill));
        let mut evidence = sample::with(evidence, kill);
        assert_eq!(check(&evidence).broken.len(), 1, "what was before it is not put back");
        evidence.events.iter_mut().filter(|event| event.at < 60 * SECOND).for_each(|event| event.at = 60 * SECOND);
        assert_eq!(check(&evidence).broken.len(), 0, "both are put back");
    }

    #[test]
    fn checker_finds_claim_of_owned_nick() {
        let given = |at, nick, evidence| {
            let rival = |at, op| sample::line(at, "rival", 1, OpStatus::Ok, op);
            let evidence = sample::with(evidence, rival(at, sample::registered(nick, "g3")));
            check(&sample::with(evidence, rival(at + 1, HistoryOp::End { why: "hung up".to_owned() }))).broken.len()
        };
        assert_eq!(given(5, "bob", sample::good()), 1, "bob is there all the time");
        assert_eq!(given(12, "ann", sample::good()), 0, "her connection was reset");
        let mut deaf = sample::good();
        deaf.events.retain(|event| event.process != "ann" || !matches!(event.op, HistoryOp::End { .. }));
        assert_eq!(given(20, "ann", deaf), 0, "her gateway was killed");
    }

    #[test]
    fn checker_finds_ack_under_lost_nick() {
        use OpStatus::{Invoke, Ok};
        let rival = |at, op| sample::line(at, "rival", 1, Ok, op);
        let evidence = sample::with(sample::good(), rival(12, sample::registered("ann", "g3")));
        let evidence = sample::with(evidence, rival(20, HistoryOp::End { why: "hung up".to_owned() }));
        let evidence = sample::with(evidence, sample::line(13, "ann", 1, Invoke, sample::send(None)("ghost")));
        assert_eq!(check(&evidence).broken, Vec::<String>::new(), "asking is allowed");
        let evidence = sample::with(evidence, sample::line(14, "ann", 1, Ok, sample::send(Some(9))("ghost")));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
