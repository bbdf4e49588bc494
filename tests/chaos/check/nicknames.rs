//! Nicknames: one owner at a time. In a room's stream the fence of a nickname never decreases. A message gets no ack if
//! another session had claimed its nickname before it was sent. No session claims the nickname of a session that is
//! online, unless a fault may have made that session's gateway count as lost.
//!
//! Fences may decrease among republished messages: the nickname moved between two gateways shortly before a crash of
//! Redis, or a gateway that counted as dead republished late.

use std::collections::HashMap;

use super::presence::{OnlineSpan, is_lost, online_spans};
use super::redis_loss::RedisLosses;
use super::{Evidence, Finding, SECOND, SessionHistory, StoredWrite};
use crate::history::{HistoryOp, OpStatus};

/// Maximum time from the close of a connection to its record in the history.
const CLOSE_RECORD_NANOS_MAX: u64 = SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, losses) = (Finding::default(), RedisLosses::new(evidence));
    for (room, stream) in &evidence.streams {
        let mut newest: HashMap<&str, &StoredWrite> = HashMap::new();
        for entry in stream {
            finding.judged += 1;
            let before = newest.entry(&entry.from).or_insert(entry);
            let are_republished = || losses.may_be_renumbered(&before.key) && losses.may_be_renumbered(&entry.key);
            if before.fence <= entry.fence {
                *before = entry;
            } else if !are_republished() && !losses.may_be_republished_late(&entry.key) {
                finding.broken.push(format!("{room}: {entry:?} follows {before:?}"));
            }
        }
    }
    let mut nicks: HashMap<SessionHistory<'_>, &str> = HashMap::new();
    // The last session that registered each nick, by the time of the reply.
    let mut owners: HashMap<&str, SessionHistory<'_>> = HashMap::new();
    // Messages sent after another session had registered the nick.
    let mut stale: HashMap<&str, SessionHistory<'_>> = HashMap::new();
    for event in &evidence.events {
        let session = (event.process.as_str(), event.session);
        match (&event.op, event.kind) {
            (HistoryOp::Register { nick, .. }, OpStatus::Ok) => {
                nicks.insert(session, nick);
                owners.insert(nick, session);
            }
            (HistoryOp::Send { key, .. }, OpStatus::Invoke) => {
                let owner = nicks.get(&session).and_then(|nick| owners.get(nick));
                if let Some(owner) = owner.filter(|owner| **owner != session) {
                    stale.insert(key, *owner);
                }
            }
            (HistoryOp::Send { key, .. }, OpStatus::Ok) => {
                finding.judged += 1;
                if let Some(owner) = stale.get(key.as_str()) {
                    finding.broken.push(format!("{session:?} got an ack for {key} under the nick of {owner:?}"));
                }
            }
            _ => {}
        }
    }
    check_double_claims(evidence, &mut finding);
    finding
}

/// Reports nicks that were claimed while a connection held them that stayed open afterwards or was refused a request.
fn check_double_claims(evidence: &Evidence, finding: &mut Finding) {
    let (spans, faults) = (online_spans(evidence), evidence.faults());
    for (at, later) in spans.iter().enumerate() {
        let is_other = |span: &&OnlineSpan<'_>| span.nick == later.nick && span.session != later.session;
        for holder in spans[..at].iter().filter(is_other) {
            finding.judged += 1;
            let stays_open =
                holder.to > later.from + CLOSE_RECORD_NANOS_MAX || holder.end_reason.starts_with("refused");
            if holder.to > later.from && stays_open && !is_lost(holder, later.from, &faults) {
                let (nick, at) = (later.nick, later.from / SECOND);
                finding
                    .broken
                    .push(format!("{:?} claimed {nick} at {at} s while {:?} held it", later.session, holder.session));
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
        sample::change_stream(&mut evidence, |stream| stream[1].fence = 0);
        assert_eq!(check(&evidence).broken.len(), 1);
        let kill = sample::line(62, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(crate::plan::Fault::RedisKill));
        let mut evidence = sample::with(evidence, kill);
        assert_eq!(check(&evidence).broken.len(), 1, "earlier messages are not republished");
        evidence.events.iter_mut().filter(|event| event.at < 60 * SECOND).for_each(|event| event.at = 60 * SECOND);
        assert_eq!(check(&evidence).broken.len(), 0, "both messages are republished");
    }

    #[test]
    fn checker_finds_claim_of_owned_nick() {
        let broken_after_claim = |at, nick, evidence| {
            let rival = |at, op| sample::line(at, "rival", 1, OpStatus::Ok, op);
            let evidence = sample::with(evidence, rival(at, sample::registered(nick, "g3")));
            check(&sample::with(evidence, rival(at + 1, HistoryOp::End { reason: "closed".to_owned() }))).broken.len()
        };
        assert_eq!(broken_after_claim(5, "bob", sample::good()), 1, "bob is online all the time");
        assert_eq!(broken_after_claim(12, "ann", sample::good()), 0, "her connection was reset");
        let mut without_end = sample::good();
        without_end.events.retain(|event| event.process != "ann" || !matches!(event.op, HistoryOp::End { .. }));
        assert_eq!(broken_after_claim(20, "ann", without_end), 0, "her gateway was killed");
    }

    #[test]
    fn checker_finds_ack_under_lost_nick() {
        use OpStatus::{Invoke, Ok};
        let rival = |at, op| sample::line(at, "rival", 1, Ok, op);
        let evidence = sample::with(sample::good(), rival(12, sample::registered("ann", "g3")));
        let evidence = sample::with(evidence, rival(20, HistoryOp::End { reason: "closed".to_owned() }));
        let evidence = sample::with(evidence, sample::line(13, "ann", 1, Invoke, sample::send(None)("ghost")));
        assert_eq!(check(&evidence).broken, Vec::<String>::new(), "a request alone is allowed");
        let evidence = sample::with(evidence, sample::line(14, "ann", 1, Ok, sample::send(Some(9))("ghost")));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
