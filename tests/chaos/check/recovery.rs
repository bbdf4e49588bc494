//! Recovery: when every fault is cleared, all come in again and hear within 15 s what each of them says last.
//!
//! "All" are the members who were ever in a room and do not share their name with a rival: those who speak a mark.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Evidence, Finding, SECOND};
use crate::history::{Kind, Op};

/// A mark is heard by then.
const AT_MOST: u64 = 15 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let is_mark = |event: &&crate::history::Event| event.op == Op::Phase { name: "mark".to_owned() };
    let Some(begin) = evidence.events.iter().find(is_mark).map(|event| event.at) else {
        finding.broken.push("not everybody came in again".to_owned());
        return finding;
    };
    let mut marks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut heard: HashMap<(&str, &str), u64> = HashMap::new();
    let mut listeners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in &evidence.events {
        match (&event.op, event.kind) {
            (Op::Join { room, .. }, Kind::Ok) if !event.process.starts_with("rival") => {
                listeners.entry(room).or_default().insert(&event.process);
            }
            (Op::Send { room, key, .. }, Kind::Invoke) if key.starts_with("mark-") => {
                marks.entry(room).or_default().insert(key);
            }
            (Op::Message { key, .. }, Kind::Ok) if key.starts_with("mark-") => {
                heard.entry((&event.process, key)).or_insert(event.at);
            }
            _ => {}
        }
    }
    for (room, members) in &listeners {
        let spoken = marks.get(room).cloned().unwrap_or_default();
        if spoken.is_empty() {
            finding.broken.push(format!("{room}: nobody could say anything"));
        }
        for (member, key) in members.iter().flat_map(|member| spoken.iter().map(move |key| (*member, *key))) {
            finding.judged += 1;
            if heard.get(&(member, key)).is_none_or(|at| *at > begin + AT_MOST) {
                finding.broken.push(format!("{room}: {member} did not hear {key} in time"));
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
    fn a_member_who_stays_deaf_is_found() {
        let mut evidence = sample::good();
        let mark = sample::message(2, "ann", "mark-ann-2");
        evidence.events.retain(|event| event.process != "bob" || event.op != mark);
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn a_crowd_that_never_comes_back_is_found() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(event.op, Op::Phase { .. }));
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
