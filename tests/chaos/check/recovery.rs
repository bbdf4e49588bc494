//! Recovery: when every fault is cleared, all members join again and receive each other's last messages within 15 s.
//!
//! The last messages are marks. Rivals, which share a nickname, send none and are not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Evidence, Finding, SECOND};
use crate::history::{HistoryOp, OpStatus};

/// Time limit for the delivery of a mark.
const MARK_NANOS_MAX: u64 = 15 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let is_mark = |event: &&crate::history::HistoryEvent| event.op == HistoryOp::Phase { name: "mark".to_owned() };
    let Some(begin) = evidence.events.iter().find(is_mark).map(|event| event.at) else {
        finding.broken.push("not every member joined again".to_owned());
        return finding;
    };
    // By room: the members with the time of a join without a position, and the acked marks with sender and time.
    let mut members: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut marks: BTreeMap<&str, Vec<(&str, &str, u64)>> = BTreeMap::new();
    let mut received: HashMap<(&str, &str), u64> = HashMap::new();
    let is_rival = |process: &str| process.starts_with("rival");
    let mut attempted: BTreeSet<(&str, &str)> = BTreeSet::new();
    for event in evidence.events.iter().filter(|event| !is_rival(&event.process)) {
        let process = event.process.as_str();
        match &event.op {
            HistoryOp::Send { room, key, .. } if event.kind == OpStatus::Invoke && key.starts_with("mark-") => {
                attempted.insert((room, process));
            }
            _ if event.kind != OpStatus::Ok => {}
            // A line client receives no earlier messages, so only later marks count for it.
            HistoryOp::Join { room, seq } => {
                members.entry(room).or_default().insert(process, seq.map_or(event.at, |_| 0));
            }
            HistoryOp::Send { room, key, .. } if key.starts_with("mark-") => {
                marks.entry(room).or_default().push((process, key, event.at));
            }
            HistoryOp::Message { key, .. } if key.starts_with("mark-") => {
                received.entry((process, key)).or_insert(event.at);
            }
            _ => {}
        }
    }
    for (room, members) in &members {
        let acked = marks.get(room).map(Vec::as_slice).unwrap_or_default();
        if acked.is_empty() {
            finding.broken.push(format!("{room}: no member could send a message"));
        }
        for (member, since) in members {
            if attempted.contains(&(*room, *member)) && !acked.iter().any(|(sender, ..)| sender == member) {
                finding.broken.push(format!("{room}: {member} could not send a message"));
            }
            for (_, key, _) in acked.iter().filter(|(.., at)| at > since) {
                finding.judged += 1;
                if received.get(&(*member, *key)).is_none_or(|at| *at > begin + MARK_NANOS_MAX) {
                    finding.broken.push(format!("{room}: {member} did not receive {key} in time"));
                }
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
    fn checker_finds_member_that_misses_a_mark() {
        let mut evidence = sample::good();
        let mark = sample::message(2, "ann", "mark-ann-2");
        evidence.events.retain(|event| event.process != "bob" || event.op != mark);
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_member_unable_to_send() {
        let request = sample::line(61, "bob", 1, OpStatus::Invoke, sample::send(None)("mark-bob-1"));
        assert_eq!(check(&sample::with(sample::good(), request)).broken.len(), 1);
    }

    #[test]
    fn checker_finds_crowd_that_never_returns() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Phase { .. }));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
