//! Calls: a client library ends every send once, with an ack, and its program exits when it is asked to. Messages that
//! one program sent to one room are stored in the order of the calls.
//!
//! Excused and counted are sends that end with `outcome_unknown`, and the order of republished messages.

use std::collections::{BTreeMap, HashMap};

use super::redis_loss::RedisLosses;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

/// The only error that a library passes on for a valid message: it cannot find out if the message was stored.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    check_programs(evidence, &mut finding);
    let calls = calls(evidence);
    for (key, call) in &calls {
        finding.judged += 1;
        match call.answers.as_slice() {
            [None] => {}
            [Some(code)] if *code == OUTCOME_UNKNOWN => finding.excused += 1,
            [Some(code)] => finding.broken.push(format!("{key} was refused with {code}")),
            [] => finding.broken.push(format!("{key} was never answered")),
            _ => finding.broken.push(format!("{key} was answered {} times", call.answers.len())),
        }
    }
    check_order(evidence, &calls, &mut finding);
    finding
}

/// Reports the programs that failed or never ended.
fn check_programs(evidence: &Evidence, finding: &mut Finding) {
    let mut running = BTreeMap::new();
    for event in &evidence.events {
        let HistoryOp::Library { name, failure } = &event.op else { continue };
        match event.kind {
            OpStatus::Invoke => {
                finding.judged += 1;
                running.insert(event.process.as_str(), name);
            }
            _ => {
                running.remove(event.process.as_str());
                finding.broken.extend(failure.as_ref().map(|failure| format!("{}: {failure}", event.process)));
            }
        }
    }
    finding.broken.extend(running.keys().map(|process| format!("{process} did not end")));
}

/// A call of `send`.
#[derive(Debug)]
struct SendCall<'a> {
    process: &'a str,
    /// Position among all calls.
    number: usize,
    /// The code of each error, or `None` for an ack.
    answers: Vec<Option<&'a str>>,
}

/// Returns the calls of all programs on libraries, by key.
fn calls(evidence: &Evidence) -> HashMap<&str, SendCall<'_>> {
    let is_start = |op: &HistoryOp| matches!(op, HistoryOp::Library { .. });
    let starts = evidence.events.iter().filter(|event| is_start(&event.op));
    let programs: Vec<&str> = starts.map(|event| event.process.as_str()).collect();
    let mut calls: HashMap<&str, SendCall<'_>> = HashMap::new();
    for event in evidence.events.iter().filter(|event| programs.contains(&event.process.as_str())) {
        let (key, answer) = match (&event.op, event.kind) {
            (HistoryOp::Send { key, .. }, OpStatus::Invoke) => {
                let (process, number) = (event.process.as_str(), calls.len());
                calls.insert(key, SendCall { process, number, answers: Vec::new() });
                continue;
            }
            (HistoryOp::Send { key, .. }, _) => (key, None),
            (HistoryOp::Refused { key, code }, _) => (key, Some(code.as_str())),
            _ => continue,
        };
        calls.entry(key).and_modify(|call| call.answers.push(answer));
    }
    calls
}

/// Reports messages that are stored before a message of an earlier call.
fn check_order(evidence: &Evidence, calls: &HashMap<&str, SendCall<'_>>, finding: &mut Finding) {
    let losses = RedisLosses::new(evidence);
    for (room, stream) in &evidence.streams {
        let mut newest: HashMap<&str, (usize, &str)> = HashMap::new();
        for key in stream.iter().map(|entry| entry.key.as_str()) {
            let Some(SendCall { process, number, .. }) = calls.get(key) else { continue };
            let before = newest.entry(process).or_insert((*number, key));
            let is_republished = || losses.may_be_renumbered(key) || losses.may_be_republished_late(key);
            if before.0 <= *number {
                *before = (*number, key);
            } else if is_republished() {
                finding.excused += 1;
            } else {
                finding.broken.push(format!("{room}: {key} is stored after {}", before.1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::HistoryEvent;

    fn event(second: u64, kind: OpStatus, op: HistoryOp) -> HistoryEvent {
        sample::line(second, "eve", 1, kind, op)
    }

    fn library(failure: Option<&str>) -> HistoryOp {
        HistoryOp::Library { name: "js".to_owned(), failure: failure.map(str::to_owned) }
    }

    fn refused(code: &str) -> HistoryOp {
        HistoryOp::Refused { key: "e1".to_owned(), code: code.to_owned() }
    }

    /// Returns a run in which a program sends `e1`, with these answers.
    fn with_answers(answers: &[HistoryOp]) -> Evidence {
        let mut evidence = sample::with(sample::good(), event(2, OpStatus::Invoke, library(None)));
        evidence = sample::with(evidence, event(62, OpStatus::Invoke, sample::send(None)("e1")));
        for answer in answers {
            evidence = sample::with(evidence, event(63, OpStatus::Ok, answer.clone()));
        }
        sample::with(evidence, event(81, OpStatus::Ok, library(None)))
    }

    #[test]
    fn checker_finds_call_without_one_answer() {
        let ack = sample::send(Some(3))("e1");
        let found = |answers: &[HistoryOp]| {
            let finding = check(&with_answers(answers));
            (finding.broken.len(), finding.excused)
        };
        assert_eq!(found(std::slice::from_ref(&ack)), (0, 0));
        assert_eq!(found(&[]), (1, 0), "pending for ever");
        assert_eq!(found(&[ack.clone(), ack]), (1, 0), "answered twice");
        assert_eq!(found(&[refused("unavailable")]), (1, 0), "the library repeats it");
        assert_eq!(found(&[refused(OUTCOME_UNKNOWN)]), (0, 1));
    }

    #[test]
    fn checker_finds_program_that_fails_or_hangs() {
        let mut evidence = with_answers(&[sample::send(Some(3))("e1")]);
        let hung = evidence.events.iter().rposition(|event| event.op == library(None));
        let end = hung.map(|at| evidence.events.remove(at));
        assert_eq!(check(&evidence).broken, ["eve did not end"]);
        let failed = HistoryEvent { op: library(Some("crashed")), kind: OpStatus::Fail, ..end.expect("an end") };
        assert_eq!(check(&sample::with(evidence, failed)).broken, ["eve: crashed"]);
    }

    #[test]
    fn checker_finds_messages_stored_out_of_order() {
        let mut evidence = with_answers(&[sample::send(Some(4))("e1")]);
        for (kind, seq) in [(OpStatus::Invoke, None), (OpStatus::Ok, Some(3))] {
            evidence = sample::with(evidence, event(64, kind, sample::send(seq)("e2")));
        }
        let entries = [sample::entry(3, "eve", 3, "e2"), sample::entry(4, "eve", 3, "e1")];
        sample::change_stream(&mut evidence, |stream| stream.extend(entries));
        assert_eq!(check(&evidence).broken, ["#a: e1 is stored after e2"]);
    }
}
