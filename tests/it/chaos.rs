//! A short run of the fault bench with a fixed seed: every promise holds while one part after another is broken.

use std::time::Duration;

use harness::Program;

/// Draws, within the few seconds of this run: a gateway and Redis killed, Redis and presence stopped, two bad networks,
/// subscriptions cut.
const SEED: &str = "78";
/// The faults take 20 s; coming up, catching up and a drain without Redis the rest.
const PATIENCE: Duration = Duration::from_secs(150);

#[tokio::test]
async fn every_promise_holds_under_faults() {
    let bench = Program::system(env!("CARGO_BIN_EXE_chaos"), "chaos");
    let finished = bench.args(["--seed", SEED, "--seconds", "20"]).run(PATIENCE).await;
    let what = format!("{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "make chaos SEED={SEED} SECONDS=20:\n{what}");
    for checker in ["loss", "duplicates", "order", "contiguity", "nicknames", "presence", "recovery", "survival"] {
        assert!(what.contains(&format!("| {checker} | holds (")), "{checker} does not hold:\n{what}");
    }
}
