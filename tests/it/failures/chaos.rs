//! The fault bench, told to break little: every promise holds while one part after another is broken, and each is seen to
//! break when the mechanism behind it is taken out.

use std::time::Duration;

use harness::{ExitedProcess, Program};

/// Draws, within the few seconds of this run: a crash of Redis, a gateway killed, presence stopped, a network that resets,
/// subscriptions and command connections cut, scripts flushed.
const SEED: &str = "3";
/// The faults take 20 s; coming up, catching up and a drain without Redis the rest.
const PATIENCE: Duration = Duration::from_secs(150);
/// What is promised, as the table calls it.
const PROMISED: [&str; 12] = [
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
    let history = tempfile::NamedTempFile::new().expect("a place for the history");
    let history = history.path().to_str().expect("a path without surprises");
    let bench = Program::system(env!("CARGO_BIN_EXE_chaos"), "chaos");
    bench.args(flags.iter().copied().chain(["--history", history])).run(PATIENCE).await
}

fn holds(finished: &ExitedProcess) {
    let what = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "{what}");
    for checker in PROMISED {
        assert!(what.contains(&format!("| {checker} | holds (")), "{checker} does not hold:\n{what}");
    }
}

#[tokio::test]
async fn every_promise_holds_under_faults() {
    holds(&chaos(&["--seed", SEED, "--seconds", "20"]).await);
}

/// The faults of the tests below, all of them.
#[tokio::test]
async fn every_promise_holds_with_every_mechanism_in_its_place() {
    holds(&chaos(&["--seed", SEED, "--without", "nothing"]).await);
}

async fn is_noticed(mechanism: &str, checker: &str) {
    let finished = chaos(&["--seed", SEED, "--without", mechanism]).await;
    let what = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "{what}");
    assert!(what.contains(&format!("| {checker} | broken: ")), "{checker} noticed nothing:\n{what}");
}

#[tokio::test]
async fn a_gateway_that_writes_after_its_lease_was_lost_is_noticed() {
    is_noticed("fence", "nicknames").await;
}

#[tokio::test]
async fn a_name_that_is_given_to_two_is_noticed() {
    is_noticed("claim", "nicknames").await;
}

#[tokio::test]
async fn repetitions_that_make_copies_are_noticed() {
    is_noticed("dedupe", "duplicates").await;
}

#[tokio::test]
async fn holes_that_are_not_refilled_are_noticed() {
    is_noticed("refill", "contiguity").await;
}

#[tokio::test]
async fn news_that_overtakes_what_was_missed_is_noticed() {
    is_noticed("hold_back", "contiguity").await;
}

#[tokio::test]
async fn a_gateway_that_is_declared_dead_too_early_is_noticed() {
    is_noticed("patience", "presence").await;
}

#[tokio::test]
async fn a_leave_that_is_shown_at_once_is_noticed() {
    is_noticed("stillness", "stillness").await;
}

#[tokio::test]
async fn what_redis_forgot_and_nobody_puts_back_is_noticed() {
    is_noticed("repair", "loss").await;
}
