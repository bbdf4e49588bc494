//! Short runs of the fault bench: every guarantee holds under faults.
//!
//! A run without one mechanism must break the guarantee behind it, so the bench detects output it checks.

use std::time::Duration;

use harness::{ChildProgram, ExitedProcess};

/// This seed draws, within one short run, these faults: a Redis crash, a killed gateway, a stopped presence service and
/// network resets. It also cuts subscriptions and command connections, and flushes the scripts.
const SEED: &str = "3";
/// The faults take 20 s; startup, replay and a drain without Redis take the rest.
const RUN_MAX: Duration = Duration::from_secs(150);
/// The guarantees, as named in the result table.
const GUARANTEES: [&str; 12] = [
    "loss",
    "duplicates",
    "order",
    "contiguity",
    "nicknames",
    "presence",
    "sessions",
    "stillness",
    "inbox",
    "recovery",
    "survival",
    "leaks",
];

async fn chaos(flags: &[&str]) -> ExitedProcess {
    let history = tempfile::NamedTempFile::new().expect("a file for the history");
    let history = history.path().to_str().expect("a UTF-8 path");
    let bench = ChildProgram::system(env!("CARGO_BIN_EXE_chaos"), "chaos");
    bench.args(flags.iter().copied().chain(["--history", history])).run(RUN_MAX).await
}

fn holds(finished: &ExitedProcess) {
    let output = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "{output}");
    for checker in GUARANTEES {
        assert!(output.contains(&format!("| {checker} | holds (")), "{checker} does not hold:\n{output}");
    }
}

#[tokio::test]
async fn every_guarantee_holds_under_faults() {
    holds(&chaos(&["--seed", SEED, "--seconds", "20"]).await);
}

/// Runs the faults of the tests below, without a disabled mechanism.
#[tokio::test]
async fn every_guarantee_holds_without_disabled_mechanisms() {
    holds(&chaos(&["--seed", SEED, "--without", "nothing"]).await);
}

async fn detects(mechanism: &str, checker: &str) {
    let finished = chaos(&["--seed", SEED, "--without", mechanism]).await;
    let output = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "{output}");
    assert!(output.contains(&format!("| {checker} | broken: ")), "{checker} detected nothing:\n{output}");
}

#[tokio::test]
async fn bench_detects_writes_after_lease_loss() {
    detects("fence", "nicknames").await;
}

#[tokio::test]
async fn bench_detects_a_nickname_claimed_twice() {
    detects("claim", "nicknames").await;
}

#[tokio::test]
async fn bench_detects_duplicates_from_retries() {
    detects("dedupe", "duplicates").await;
}

#[tokio::test]
async fn bench_detects_holes_without_refill() {
    detects("refill", "contiguity").await;
}

#[tokio::test]
async fn bench_detects_messages_that_overtake_a_replay() {
    detects("join_order", "contiguity").await;
}

#[tokio::test]
async fn bench_detects_a_gateway_fenced_too_early() {
    detects("detection_time", "presence").await;
}

#[tokio::test]
async fn bench_detects_a_leave_shown_at_once() {
    detects("leave_delay", "stillness").await;
}

#[tokio::test]
async fn bench_detects_lost_messages_without_republish() {
    detects("republish", "loss").await;
}
