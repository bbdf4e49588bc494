//! Random plays: nothing is lost, doubled or pending, whatever the network and the cluster do.

use super::play::Play;

/// Number of plays, and of steps in each.
const PLAYS: u64 = 150;
const STEPS: usize = 1_200;

#[test]
#[allow(clippy::print_stderr)] // A failed test shows its seed.
fn random_plays_lose_and_double_nothing() {
    // `PARLEY_SEED=n` repeats the play of a failure.
    let seeds = match std::env::var("PARLEY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => {
            let first = rand::random_range(0..u64::MAX - PLAYS);
            first..first + PLAYS
        }
    };
    for seed in seeds {
        eprintln!("PARLEY_SEED={seed}");
        let mut play = Play::new(seed);
        for _ in 0..STEPS {
            play.random_step();
        }
        play.drain();
        play.judge();
    }
}
