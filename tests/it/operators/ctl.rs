//! `gateway ctl`: what an operator's shell is told of a cluster, and what it can order. Run as the program that is
//! deployed, with the rights on Redis that are deployed.

mod audit;
mod orders;
mod reads;

use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{Program, Redis};
use serde_json::Value;

/// How long a command may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Runs a command; its settings come from the environment, as those of a gateway do.
async fn ctl(redis: &Redis, flags: &[&str]) -> ExitedProcess {
    let program = Program::parley("gateway", "ctl").args(["ctl"]).args(flags.iter().map(|flag| (*flag).to_owned()));
    program.env("PARLEY__REDIS__URL", &redis.url()).run(SOON).await
}

/// What a command answers that can be done.
async fn told(redis: &Redis, flags: &[&str]) -> String {
    let finished = ctl(redis, flags).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{flags:?}: {finished:?}");
    finished.stdout
}

/// The same for machines.
async fn json(redis: &Redis, flags: &[&str]) -> Value {
    let text = told(redis, &[flags, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{flags:?}: {error}: {text}"))
}

/// One line on stderr with these words, nothing on stdout.
fn failed(finished: &ExitedProcess, code: i32, words: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "must say {word:?}: {finished:?}");
    }
}

/// The cells of a line that begins with this word.
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let row = text.lines().find(|line| line.split("  ").next() == Some(first));
    row.unwrap_or_else(|| panic!("no row {first:?} in\n{text}"))
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}
