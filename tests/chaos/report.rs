//! The table of results, as shown in docs/GUARANTEES.md, and the first violations of each checker.

use std::path::PathBuf;

use crate::check::{CHECKERS, Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};
use crate::library_results::LibraryResults;
use crate::plan;
use crate::run::ChaosTask;

/// Maximum number of violations printed per checker.
const VIOLATIONS_SHOWN_MAX: usize = 10;

/// Returns the default path of the history, in the folder of this program.
pub fn default_path(seed: u64) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_default();
    folder.join(format!("chaos-{seed}.jsonl"))
}

/// Prints the results. Returns whether every guarantee holds; with a disabled mechanism, whether its checker failed.
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
    for (library, results) in LibraryResults::of(evidence) {
        let LibraryResults { sent, acked, refused, pending, received, reconnects } = &results;
        let [p50, p99, max] = [50, 99, 100].map(|percent| format!("{:.1} s", results.reconnect_seconds(percent)));
        println!("| {library}: sent, acked, refused, pending | {sent}, {acked}, {refused}, {pending} |");
        println!("| {library}: received | {received} |");
        println!("| {library}: reconnects, p50, p99, max | {}, {p50}, {p99}, {max} |", reconnects.len());
    }
    let mut passed = true;
    let mut is_detected = false;
    let mut details = Vec::new();
    for checker in CHECKERS {
        let finding = (checker.check)(evidence);
        passed &= finding.broken.is_empty();
        is_detected |= task.case.is_some_and(|case| case.checker == checker.name) && !finding.broken.is_empty();
        println!("| {} | {} |", checker.name, words(&finding));
        if !finding.broken.is_empty() {
            details.push(format!("{} ({}):", checker.name, checker.guarantee));
            details.extend(finding.broken.iter().take(VIOLATIONS_SHOWN_MAX).map(|line| format!("  {line}")));
        }
    }
    println!("\n{}", details.join("\n"));
    if task.case.is_some() { is_detected } else { passed }
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
