//! Short runs of the fault bench: every guarantee holds under faults.
//!
//! A run without one mechanism must break the guarantee behind it, so the bench detects output it checks.

use std::time::Duration;

use harness::{ChildProgram, ExitedProcess};

/// This seed draws, within one short run, these faults: a Redis crash, a restarted gateway, a killed presence service,
/// an application that refuses webhooks, and network faults. It also cuts subscriptions and command connections, and
/// flushes the scripts.
const SEED: &str = "499";
/// Of kills and restarts of gateways and stops of Redis this seed draws, within 30 s: a restart of every gateway, a
/// kill, and a stop of Redis during which two gateways are killed.
const LIBRARY_SEED: &str = "49";
/// The faults take at most 30 s; startup, replay and a drain without Redis take the rest.
const RUN_MAX: Duration = Duration::from_secs(150);
/// The guarantees, as named in the result table.
const GUARANTEES: [&str; 14] = [
    "loss",
    "duplicates",
    "order",
    "contiguity",
    "nicknames",
    "presence",
    "sessions",
    "stillness",
    "inbox",
    "webhooks",
    "calls",
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

#[tokio::test]
async fn library_clients_lose_nothing_under_faults() {
    let faults = ["gateway kill -9", "gateway restarted", "redis stopped"].map(|fault| ["--only", fault]);
    let flags: Vec<&str> =
        ["--seed", LIBRARY_SEED, "--seconds", "30"].into_iter().chain(faults.into_iter().flatten()).collect();
    let finished = chaos(&flags).await;
    holds(&finished);
    for library in ["js", "python", "rust"] {
        let [sent, acked, refused, pending] = figures(&finished, &format!("{library}: sent, acked, refused, pending"));
        assert!(sent > 20 && (acked, refused, pending) == (sent, 0, 0), "{}", finished.stdout);
        let [received] = figures(&finished, &format!("{library}: received"));
        assert!(received > sent, "{}", finished.stdout);
        assert!(!finished.stdout.contains(&format!("{library}: reconnects, p50, p99, max | 0")), "{}", finished.stdout);
    }
}

/// Returns the numbers in a row of the result table.
fn figures<const N: usize>(finished: &ExitedProcess, row: &str) -> [u64; N] {
    let rest = finished.stdout.split_once(&format!("| {row} | ")).map(|(_, rest)| rest);
    let cell = rest.and_then(|rest| rest.split_once(" |")).map_or("", |(cell, _)| cell);
    let numbers: Vec<u64> = cell.split(", ").filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{row}: no {N} numbers in:\n{}", finished.stdout))
}

/// One program drops a received message, the next one repeats one, and the next one drops an ack.
#[tokio::test]
async fn bench_detects_altered_output_of_library_clients() {
    let finished = chaos(&["--seed", SEED, "--seconds", "10", "--only", "nginx reload", "--alter-lines"]).await;
    assert_eq!(finished.code, Some(1), "{}\n{}", finished.stdout, finished.stderr);
    for (checker, violation) in [
        ("contiguity", "(\"js0\", 1) received"),
        ("duplicates", "(\"python0\", 1) received twice"),
        ("calls", "was never answered"),
    ] {
        assert!(finished.stdout.contains(&format!("| {checker} | broken: ")), "{checker}: {}", finished.stdout);
        assert!(finished.stdout.contains(violation), "{violation}: {}", finished.stdout);
    }
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
async fn bench_detects_webhooks_that_are_not_retried() {
    detects("webhook_retry", "webhooks").await;
}

#[tokio::test]
async fn bench_detects_lost_messages_without_republish() {
    detects("republish", "loss").await;
}
