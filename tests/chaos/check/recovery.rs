//! Recovery: when every fault is cleared, all come in again and hear within 15 s what each of them says last.
//!
//! "All" are the members that were ever in a room and do not share their name with a rival: those that send a mark.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Evidence, Finding, SECOND};
use crate::history::{HistoryOp, OpStatus};

/// A mark is heard by then.
const AT_MOST: u64 = 15 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let is_mark = |event: &&crate::history::HistoryEvent| event.op == HistoryOp::Phase { name: "mark".to_owned() };
    let Some(begin) = evidence.events.iter().find(is_mark).map(|event| event.at) else {
        finding.broken.push("not everybody came in again".to_owned());
        return finding;
    };
    // By room: who is in it, and since when if they had to begin anew; and the marks that were acked, by whom and when.
    let mut members: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut marks: BTreeMap<&str, Vec<(&str, &str, u64)>> = BTreeMap::new();
    let mut heard: HashMap<(&str, &str), u64> = HashMap::new();
    let is_rival = |process: &str| process.starts_with("rival");
    let mut tried: BTreeSet<(&str, &str)> = BTreeSet::new();
    for event in evidence.events.iter().filter(|event| !is_rival(&event.process)) {
        let process = event.process.as_str();
        match &event.op {
            HistoryOp::Send { room, key, .. } if event.kind == OpStatus::Invoke && key.starts_with("mark-") => {
                tried.insert((room, process));
            }
            _ if event.kind != OpStatus::Ok => {}
            // The line port does not go on where it was.
            HistoryOp::Join { room, seq } => {
                members.entry(room).or_default().insert(process, seq.map_or(event.at, |_| 0));
            }
            HistoryOp::Send { room, key, .. } if key.starts_with("mark-") => {
                marks.entry(room).or_default().push((process, key, event.at));
            }
            HistoryOp::Message { key, .. } if key.starts_with("mark-") => {
                heard.entry((process, key)).or_insert(event.at);
            }
            _ => {}
        }
    }
    for (room, members) in &members {
        let spoken = marks.get(room).map(Vec::as_slice).unwrap_or_default();
        if spoken.is_empty() {
            finding.broken.push(format!("{room}: nobody could say anything"));
        }
        for (member, since) in members {
            if tried.contains(&(*room, *member)) && !spoken.iter().any(|(speaker, ..)| speaker == member) {
                finding.broken.push(format!("{room}: {member} could say nothing"));
            }
            for (_, key, _) in spoken.iter().filter(|(.., at)| at > since) {
                finding.judged += 1;
                if heard.get(&(*member, *key)).is_none_or(|at| *at > begin + AT_MOST) {
                    finding.broken.push(format!("{room}: {member} did not hear {key} in time"));
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
    fn checker_finds_member_without_marks() {
        let mut evidence = sample::good();
        let mark = sample::message(2, "ann", "mark-ann-2");
        evidence.events.retain(|event| event.process != "bob" || event.op != mark);
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_member_unable_to_send() {
        let asked = sample::line(61, "bob", 1, OpStatus::Invoke, sample::send(None)("mark-bob-1"));
        assert_eq!(check(&sample::with(sample::good(), asked)).broken.len(), 1);
    }

    #[test]
    fn checker_finds_crowd_that_never_returns() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Phase { .. }));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
