//! The table at the end of a run, as docs/GUARANTEES.md shows it, and the first findings in words.

use std::path::PathBuf;

use crate::check::{CHECKERS, Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};
use crate::plan;
use crate::run::ChaosTask;

/// Findings of one checker that are shown; all are in the history.
const SHOWN: usize = 10;

/// Where a history goes without a flag: beside the program.
pub fn default_path(seed: u64) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_default();
    folder.join(format!("chaos-{seed}.jsonl"))
}

/// Prints the results; returns whether every promise held, or, when a mechanism was taken out, whether the one that
/// stands for it is broken.
pub fn print(task: &ChaosTask, version: &str, evidence: &Evidence) -> bool {
    let sends = |kind| {
        let is_meant =
            |event: &&crate::history::HistoryEvent| event.kind == kind && matches!(event.op, HistoryOp::Send { .. });
        evidence.events.iter().filter(is_meant).count()
    };
    let faults: Vec<String> = plan::count(evidence.faults().into_iter().map(|(.., fault)| fault))
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    println!("\n| what | result |\n| --- | --- |");
    println!("| seed, version | {}, {version} |", task.seed);
    println!("| seconds of faults, appendfsync | {}, {} |", task.length.as_secs(), task.fsync);
    println!("| messages acked | {} |", sends(OpStatus::Ok));
    println!("| outcome unknown, refused | {}, {} |", sends(OpStatus::Info), sends(OpStatus::Fail));
    println!("| faults | {} |", faults.join(", "));
    let mut passed = true;
    let mut is_noticed = false;
    let mut details = Vec::new();
    for checker in CHECKERS {
        let finding = (checker.check)(evidence);
        passed &= finding.broken.is_empty();
        is_noticed |= task.story.is_some_and(|story| story.checker == checker.name) && !finding.broken.is_empty();
        println!("| {} | {} |", checker.name, words(&finding));
        if !finding.broken.is_empty() {
            details.push(format!("{} ({}):", checker.name, checker.promise));
            details.extend(finding.broken.iter().take(SHOWN).map(|line| format!("  {line}")));
        }
    }
    println!("\n{}", details.join("\n"));
    if task.story.is_some() { is_noticed } else { passed }
}

fn words(finding: &Finding) -> String {
    let Finding { judged, excused, broken } = finding;
    let excused = if *excused > 0 { format!(", {excused} excused") } else { String::new() };
    match broken.len() {
        0 if *judged == 0 => "nothing to judge".to_owned(),
        0 => format!("holds ({judged} judged{excused})"),
        count => format!("broken: {count} (of {judged} judged{excused})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_shows_number_of_judged_items() {
        let words = |judged, excused, broken| words(&Finding { judged, excused, broken });
        assert_eq!(words(0, 0, Vec::new()), "nothing to judge");
        assert_eq!(words(5, 2, Vec::new()), "holds (5 judged, 2 excused)");
        assert_eq!(words(5, 0, vec!["x".to_owned()]), "broken: 1 (of 5 judged)");
    }
}
