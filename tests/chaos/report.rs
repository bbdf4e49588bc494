//! The table at the end of a run, as it goes into the README, and the first of what is wrong in words.

use std::path::PathBuf;

use crate::check::{CHECKERS, Evidence, Finding, Promise, Verdict};
use crate::history::{Kind, Op};
use crate::plan;
use crate::run::Task;

/// Findings of one checker that are shown; all are in the history.
const SHOWN: usize = 10;

/// Where a history goes when nobody says: beside the program.
pub fn default_path(seed: u64) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_default();
    folder.join(format!("chaos-{seed}.jsonl"))
}

/// Prints the results; returns whether every promise held, or, when a mechanism was taken out, whether the one that stands
/// for it is broken.
pub fn print(task: &Task, version: &str, evidence: &Evidence) -> bool {
    let sends = |kind| {
        let is_meant = |event: &&crate::history::Event| event.kind == kind && matches!(event.op, Op::Send { .. });
        evidence.events.iter().filter(is_meant).count()
    };
    let faults: Vec<String> = plan::count(evidence.faults().into_iter().map(|(.., fault)| fault))
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    println!("\n| what | result |\n| --- | --- |");
    println!("| seed, version | {}, {version} |", task.seed);
    println!("| seconds of faults, appendfsync | {}, {} |", task.length.as_secs(), task.fsync);
    println!("| messages acked | {} |", sends(Kind::Ok));
    println!("| outcome unknown, refused | {}, {} |", sends(Kind::Info), sends(Kind::Fail));
    println!("| faults | {} |", faults.join(", "));
    let mut passed = true;
    let mut is_noticed = false;
    let mut details = Vec::new();
    for checker in CHECKERS {
        let finding = (checker.check)(evidence);
        let verdict = checker.verdict(&finding);
        passed &= !matches!(verdict, Verdict::Broken(_));
        is_noticed |= task.story.is_some_and(|story| story.checker == checker.name) && !finding.broken.is_empty();
        println!("| {} | {} |", checker.name, words(&verdict, &finding));
        if !finding.broken.is_empty() {
            let (Promise::Given(reason) | Promise::NotYet(reason)) = checker.promise;
            details.push(format!("{} ({reason}):", checker.name));
            details.extend(finding.broken.iter().take(SHOWN).map(|line| format!("  {line}")));
        }
    }
    println!("\n{}", details.join("\n"));
    if task.story.is_some() { is_noticed } else { passed }
}

fn words(verdict: &Verdict, finding: &Finding) -> String {
    let judged = finding.judged;
    let excused = if finding.excused > 0 { format!(", {} excused", finding.excused) } else { String::new() };
    match verdict {
        Verdict::Holds if judged == 0 => "nothing to judge".to_owned(),
        Verdict::Holds => format!("holds ({judged} judged{excused})"),
        Verdict::Broken(count) => format!("broken: {count} (of {judged} judged{excused})"),
        Verdict::NotPromised(count) => format!("not promised yet: {count} (of {judged} judged{excused})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_how_much_it_is_worth() {
        let finding = Finding { judged: 0, ..Finding::default() };
        assert_eq!(words(&Verdict::Holds, &finding), "nothing to judge");
        let finding = Finding { judged: 5, excused: 2, broken: Vec::new() };
        assert_eq!(words(&Verdict::Holds, &finding), "holds (5 judged, 2 excused)");
        assert_eq!(words(&Verdict::NotPromised(1), &finding), "not promised yet: 1 (of 5 judged, 2 excused)");
    }
}
