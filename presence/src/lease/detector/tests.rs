//! The detector by itself: counters in, verdicts out.

use proptest::prelude::*;

use super::*;
use crate::registry::{Generation, Phase};

const TICK: Duration = Duration::from_millis(100);

fn lease(incarnation: &Incarnation, counter: u64, state: LeaseState, owns: bool) -> Lease {
    Lease { incarnation: incarnation.clone(), node: "g".into(), counter, state, owns }
}

fn sample(at: Instant, leases: Vec<Lease>) -> Sample {
    sample_in(Generation { number: 1, phase: Phase::Open }, at, leases)
}

fn sample_in(generation: Generation, at: Instant, leases: Vec<Lease>) -> Sample {
    Sample { sent: at, received: at + TICK / 10, table: LeaseTable { generation, leases } }
}

/// The second at which the first verdict falls when the counter follows `counter` and samples arrive where `sampled`.
fn first_verdict(counter: impl Fn(u32) -> u64, sampled: impl Fn(u32) -> bool, ticks: u32) -> Option<u32> {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = Detector::default();
    for tick in 0..ticks {
        if !sampled(tick) {
            continue;
        }
        let leases = vec![lease(&gateway, counter(tick), LeaseState::Live, true)];
        if !detector.judge(&sample(start + TICK * tick, leases)).is_empty() {
            return Some(tick);
        }
    }
    None
}

#[test]
fn a_counter_that_stands_still_is_fenced_after_8_s_and_not_before() {
    let fenced = first_verdict(|_| 7, |tick| tick.is_multiple_of(10), 1000).expect("fenced");
    assert!((80..=90).contains(&fenced), "at tick {fenced}");
}

#[test]
fn a_counter_that_moves_is_left_alone() {
    assert_eq!(first_verdict(|tick| u64::from(tick / 50), |tick| tick.is_multiple_of(10), 5000), None);
}

#[test]
fn a_break_in_our_own_view_starts_the_count_anew() {
    // Answers come for 7 s, then not for 2.5 s, then again: an outage must not be laid at a gateway's door.
    let sampled = |tick: u32| tick.is_multiple_of(10) && !(71..95).contains(&(tick % 95));
    assert_eq!(first_verdict(|_| 7, sampled, 5000), None);
}

/// The first second with a verdict about a gateway that stands still, when second `s` is in the generation `of(s)`.
fn first_verdict_in(of: impl Fn(u32) -> Generation) -> Option<u32> {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = Detector::default();
    (0..60).find(|second| {
        let leases = vec![lease(&gateway, 7, LeaseState::Live, true)];
        !detector.judge(&sample_in(of(*second), start + TICK * 10 * *second, leases)).is_empty()
    })
}

#[test]
fn nobody_is_judged_while_the_store_recovers_or_by_what_was_before() {
    let recovering = Generation { number: 2, phase: Phase::Recovering };
    assert_eq!(first_verdict_in(|_| recovering), None);
    let open = |number| Generation { number, phase: Phase::Open };
    // Seven seconds before a recovery and seven seconds after it are no evidence together.
    let restarted = |second| if second == 7 { recovering } else { open(if second < 7 { 1 } else { 2 }) };
    let fenced = first_verdict_in(restarted).expect("fenced");
    assert!((16..=18).contains(&fenced), "at {fenced} s");
    // Also when the recovery was too short to be seen.
    let fenced = first_verdict_in(|second| open(u64::from(second / 7))).is_none();
    assert!(fenced, "a new generation every 7 s");
}

#[test]
fn nobody_judges_themselves() {
    let (own, start) = (Incarnation::random(), Instant::now());
    let mut detector = Detector::default();
    detector.set_own(Some(own.clone()));
    for second in 0..60 {
        let leases = vec![lease(&own, 1, LeaseState::Live, true)];
        assert!(detector.judge(&sample(start + TICK * 10 * second, leases)).is_empty());
    }
}

#[test]
fn others_step_in_only_when_the_dead_still_own_something() {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = Detector::default();
    let mut judge = |second: u32, owns| {
        detector.judge(&sample(start + TICK * 10 * second, vec![lease(&gateway, 3, LeaseState::Fenced, owns)]))
    };
    assert!(judge(0, true).is_empty());
    assert!(judge(2, true).is_empty());
    assert_eq!(judge(4, true), [Verdict::Reap(gateway.clone())]);
    assert!(judge(5, false).is_empty());
}

proptest! {
    /// However samples arrive and counters move: a verdict means that the counter stood still for 8 s in front of our
    /// eyes, with no break of our own view in between.
    #[test]
    fn no_verdict_without_8_s_of_evidence(steps in prop::collection::vec((1_u32..40, prop::bool::weighted(0.1)), 1..200)) {
        let (gateway, start) = (Incarnation::random(), Instant::now());
        let mut detector = Detector::default();
        let (mut tick, mut counter) = (0, 0);
        let mut evidence: Vec<(u32, u64)> = Vec::new();
        for (pause, moves) in steps {
            tick += pause;
            counter += u64::from(moves);
            evidence.push((tick, counter));
            let leases = vec![lease(&gateway, counter, LeaseState::Live, true)];
            if detector.judge(&sample(start + TICK * tick, leases)).is_empty() {
                continue;
            }
            let mut oldest = tick;
            for pair in evidence.windows(2).rev() {
                if pair[0].1 != counter || pair[1].0 - pair[0].0 > 20 {
                    break;
                }
                oldest = pair[0].0;
            }
            prop_assert!(tick - oldest >= 80, "only {} ticks of evidence", tick - oldest);
        }
    }
}
