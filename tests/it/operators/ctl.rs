//! `gateway ctl`: status, audit and orders from an operator's shell.
//!
//! The tests run the deployed program with the deployed Redis rights. Exit codes: 0 done, 1 refused or drift, 2 failed.

mod audit;
mod sanctions;
mod keys;
mod orders;
mod reads;

use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{ChildProgram, Redis};
use serde_json::Value;

/// Longest duration of a command on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Runs a command; its settings come from the environment, like a gateway's.
async fn ctl(redis: &Redis, flags: &[&str]) -> ExitedProcess {
    let program =
        ChildProgram::parley("gateway", "ctl").args(["ctl"]).args(flags.iter().map(|flag| (*flag).to_owned()));
    program.env("PARLEY__REDIS__URL", &redis.url()).run(SOON).await
}

/// Runs a command that must succeed, and returns its output.
async fn output(redis: &Redis, flags: &[&str]) -> String {
    let finished = ctl(redis, flags).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{flags:?}: {finished:?}");
    finished.stdout
}

/// Runs a command that must succeed, and returns its JSON output.
async fn json(redis: &Redis, flags: &[&str]) -> Value {
    let text = output(redis, &[flags, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{flags:?}: {error}: {text}"))
}

/// Checks that a command failed with this code and one line on stderr that contains these words.
fn assert_failed(finished: &ExitedProcess, code: i32, words: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "no {word:?} in {finished:?}");
    }
}

/// Returns the cells of the line that begins with this word.
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let row = text.lines().find(|line| line.split("  ").next() == Some(first));
    row.unwrap_or_else(|| panic!("no row {first:?} in\n{text}"))
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}
