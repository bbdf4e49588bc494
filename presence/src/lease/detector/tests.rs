//! Tests of the pure judge: samples in, verdicts out.

use proptest::prelude::*;

use super::*;
use crate::registry::{Generation, Phase};

const TICK: Duration = Duration::from_millis(100);

fn lease(incarnation: &Incarnation, counter: u64, state: LeaseState, owns: bool) -> Lease {
    Lease { incarnation: incarnation.clone(), node: "g".into(), counter, state, owns }
}

fn sample(at: Instant, leases: Vec<Lease>) -> LeaseSample {
    sample_in(Generation { number: 1, phase: Phase::Open }, at, leases)
}

fn sample_in(generation: Generation, at: Instant, leases: Vec<Lease>) -> LeaseSample {
    let table = LeaseTable { generation, leases };
    LeaseSample { sent: at, received: at + TICK / 10, table, accepts_beats: true }
}

/// Returns the tick of the first verdict when the counter follows `counter` and samples arrive at `sampled` ticks.
fn first_verdict(counter: impl Fn(u32) -> u64, sampled: impl Fn(u32) -> bool, ticks: u32) -> Option<u32> {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = FailureDetector::default();
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
fn unchanged_counter_is_fenced_after_8_s() {
    let fenced = first_verdict(|_| 7, |tick| tick.is_multiple_of(10), 1000).expect("fenced");
    assert!((80..=90).contains(&fenced), "at tick {fenced}");
}

#[test]
fn moving_counter_is_never_fenced() {
    assert_eq!(first_verdict(|tick| u64::from(tick / 50), |tick| tick.is_multiple_of(10), 5000), None);
}

#[test]
fn sampling_gap_restarts_the_observation() {
    // Samples arrive for 7 s, stop for 2.5 s, and arrive again: an outage is no evidence against a gateway.
    let sampled = |tick: u32| tick.is_multiple_of(10) && !(71..95).contains(&(tick % 95));
    assert_eq!(first_verdict(|_| 7, sampled, 5000), None);
}

#[test]
fn refused_beats_restart_the_observation() {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = FailureDetector::default();
    for tick in (0..1000).step_by(10) {
        let mut sample = sample(start + TICK * tick, vec![lease(&gateway, 7, LeaseState::Live, true)]);
        sample.accepts_beats = tick % 80 != 0;
        assert_eq!(detector.judge(&sample), [], "at tick {tick}");
    }
}

/// Returns the second of the first verdict about an unchanged counter, when each second has the generation
/// `generation_at`.
fn first_verdict_in(generation_at: impl Fn(u32) -> Generation) -> Option<u32> {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = FailureDetector::default();
    (0..60).find(|second| {
        let leases = vec![lease(&gateway, 7, LeaseState::Live, true)];
        !detector.judge(&sample_in(generation_at(*second), start + TICK * 10 * *second, leases)).is_empty()
    })
}

#[test]
fn recovery_discards_earlier_observations() {
    let recovering = Generation { number: 2, phase: Phase::Recovering };
    assert_eq!(first_verdict_in(|_| recovering), None);
    let open = |number| Generation { number, phase: Phase::Open };
    // Seven seconds before a recovery and seven seconds after it do not add up to evidence.
    let restarted = |second| if second == 7 { recovering } else { open(if second < 7 { 1 } else { 2 }) };
    let fenced = first_verdict_in(restarted).expect("fenced");
    assert!((16..=18).contains(&fenced), "at {fenced} s");
    // The same holds for a recovery that falls between two samples.
    let short_recoveries = |second| open(u64::from(second / 7));
    assert_eq!(first_verdict_in(short_recoveries), None, "a new generation every 7 s");
}

#[test]
fn detector_never_judges_its_own_lease() {
    let (own, start) = (Incarnation::random(), Instant::now());
    let mut detector = FailureDetector::default();
    detector.set_own(Some(own.clone()));
    for second in 0..60 {
        let leases = vec![lease(&own, 1, LeaseState::Live, true)];
        assert!(detector.judge(&sample(start + TICK * 10 * second, leases)).is_empty());
    }
}

#[test]
fn fenced_gateway_is_reaped_while_it_owns_something() {
    let (gateway, start) = (Incarnation::random(), Instant::now());
    let mut detector = FailureDetector::default();
    let mut judge = |second: u32, owns| {
        detector.judge(&sample(start + TICK * 10 * second, vec![lease(&gateway, 3, LeaseState::Fenced, owns)]))
    };
    assert!(judge(0, true).is_empty());
    assert!(judge(2, true).is_empty());
    assert_eq!(judge(4, true), [FailureVerdict::Reap(gateway.clone())]);
    assert!(judge(5, false).is_empty());
}

proptest! {
    /// For any samples and counters, a verdict needs 8 s of samples without a gap that show the same counter.
    #[test]
    fn verdict_needs_8_s_of_evidence(steps in prop::collection::vec((1_u32..40, prop::bool::weighted(0.1)), 1..200)) {
        let (gateway, start) = (Incarnation::random(), Instant::now());
        let mut detector = FailureDetector::default();
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
