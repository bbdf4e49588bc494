//! `load capacity`: the highest rate of messages into many rooms that a subject delivers in time.
//!
//! [`RateSearch`] is pure: it doubles the rate until one fails, and then tries rates between. The same clients send
//! at all rates, one window after the other. They log in again only if a window left a backlog or lost connections.
//! The outcome is that of the highest rate that held, with all windows in `steps`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::outcome;
use crate::plan::Plan;
use crate::run::{FinishedRun, RunningLoad};
use crate::scenario::{PreparedRun, run_name};
use crate::tally::Latencies;

/// Rates below the first one by this factor are not tried.
const FIRST_RATE_PARTS: f64 = 64.0;
/// Pause after a window that lost connections, in which a subject ends the lost sessions.
const RECOVERY_PAUSE: Duration = Duration::from_secs(10);

/// Conditions of a rate that holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CapacityBounds {
    /// Maximum p99 of deliveries, and of acks where the dialect has them.
    pub(crate) p99_ms: f64,
    /// Minimum share of the planned messages that is delivered, and answered.
    pub(crate) share: f64,
}

/// Result of a rate in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateVerdict {
    Holds,
    /// Everything arrived, but too late. A pause of the machine may be the cause, so the rate is tried once more.
    Late,
    /// Too little arrived, or a large backlog ended the window early.
    Short,
}

/// Search for the highest rate that holds.
#[derive(Debug)]
pub(crate) struct RateSearch {
    first: f64,
    bounds: CapacityBounds,
    bisections_left: u32,
    windows_left: u32,
    /// The highest rate that held.
    held: Option<f64>,
    /// The lowest rate that failed.
    failed: Option<f64>,
    /// A rate that was late once.
    suspect: Option<f64>,
}

impl RateSearch {
    /// Creates a search that begins at `first` and measures at most `windows` windows.
    pub(crate) fn new(first: f64, bounds: CapacityBounds, bisections: u32, windows: u32) -> Self {
        let (held, failed, suspect) = (None, None, None);
        Self { first, bounds, bisections_left: bisections, windows_left: windows, held, failed, suspect }
    }

    /// Returns the next rate to try; `None` at the end of the search.
    fn next(&mut self) -> Option<f64> {
        self.windows_left = self.windows_left.checked_sub(1)?;
        if self.suspect.is_some() {
            return self.suspect;
        }
        match (self.held, self.failed) {
            (None, None) => Some(self.first),
            (Some(held), None) => Some(held * 2.0),
            (None, Some(failed)) => Some(failed / 2.0).filter(|rate| rate * FIRST_RATE_PARTS >= self.first),
            (Some(held), Some(failed)) => {
                self.bisections_left = self.bisections_left.checked_sub(1)?;
                Some(f64::midpoint(held, failed))
            }
        }
    }

    fn record(&mut self, rate: f64, verdict: RateVerdict) {
        let is_second = self.suspect.take().is_some();
        match verdict {
            RateVerdict::Holds => self.held = Some(rate),
            RateVerdict::Late if !is_second => self.suspect = Some(rate),
            RateVerdict::Late | RateVerdict::Short => self.failed = Some(rate),
        }
    }
}

/// Shares of the planned messages of one window, and the verdict on its rate.
#[derive(Debug, Clone, Copy)]
struct WindowShares {
    /// Delivered to all members.
    delivered: f64,
    /// Answered; `None` without acks.
    acked: Option<f64>,
    verdict: RateVerdict,
}

impl WindowShares {
    fn of(finished: &FinishedRun, bounds: CapacityBounds) -> Self {
        let FinishedRun { plan, course, tally, .. } = finished;
        let planned = plan.rate().unwrap_or_default() * course.measured.as_secs_f64();
        let delivered = tally.measured.delivered as f64 / (planned * plan.readers() as f64).max(1.0);
        let has_acks = plan.addresses.iter().all(|address| address.dialect.has_acks());
        let acked = has_acks.then(|| tally.measured.acked as f64 / planned.max(1.0));
        let is_late = |latencies: &Latencies| latencies.percentile_ms(99.0) > bounds.p99_ms;
        let verdict = if delivered < bounds.share || acked.is_some_and(|acked| acked < bounds.share) {
            RateVerdict::Short
        } else if is_late(&tally.delivery) || (has_acks && is_late(&tally.ack)) {
            RateVerdict::Late
        } else {
            RateVerdict::Holds
        };
        Self { delivered, acked, verdict }
    }
}

/// Searches the capacity, and writes its outcome.
pub(crate) fn carry_out(prepared: &PreparedRun, mut search: RateSearch) -> Result<()> {
    let mut windows = MeasuredWindows::default();
    if let Err(error) = measure_all(prepared, &mut search, &mut windows) {
        // An overload may end the subject; the rates that held until then remain.
        let Some(held) = search.held else { return Err(error) };
        eprintln!("The search ended after {held:.0} a second: {error:#}");
    }
    let MeasuredWindows { steps, best, lowest } = windows;
    let holds = best.is_some();
    let Some(mut outcome) = best.or(lowest) else { return Ok(()) };
    // A rate that failed because of the load generator makes the capacity a bound.
    let is_limit = |step: &&Value| step["offered_per_s"].as_f64() == search.failed;
    if steps.iter().filter(is_limit).any(|step| step["load_too_busy"] == true) {
        outcome["load"]["too_busy"] = json!(true);
    }
    outcome["holds"] = json!(holds);
    outcome["fails_at_per_s"] = json!(search.failed);
    outcome["p99_max_ms"] = json!(search.bounds.p99_ms);
    outcome["steps"] = Value::Array(steps);
    println!("{}", outcome::summary(&outcome));
    outcome::save(&outcome, prepared.json.as_deref())
}

/// Outcomes of the windows so far.
#[derive(Debug, Default)]
struct MeasuredWindows {
    steps: Vec<Value>,
    /// Outcome of the highest rate that held.
    best: Option<Value>,
    /// Outcome of the last rate that failed.
    lowest: Option<Value>,
}

fn measure_all(prepared: &PreparedRun, search: &mut RateSearch, windows: &mut MeasuredWindows) -> Result<()> {
    let PreparedRun { scenario, plan, course, .. } = prepared;
    let mut logged_in = Some(RunningLoad::start(plan.clone(), course.clone(), Duration::ZERO)?);
    while let Some(rate) = search.next() {
        let mut load = match logged_in.take() {
            Some(load) => load,
            // Other names, because the subject may still hold the former ones.
            None => RunningLoad::start(Plan { run: run_name(), ..plan.clone() }, course.clone(), RECOVERY_PAUSE)?,
        };
        let finished = load.measure_at(rate)?;
        logged_in = finished.is_settled().then_some(load);
        let shares = WindowShares::of(&finished, search.bounds);
        search.record(rate, shares.verdict);
        let outcome = outcome::json(scenario, &finished);
        let step = step(&outcome, shares);
        eprintln!("{}", line(&step));
        windows.steps.push(step);
        match shares.verdict {
            RateVerdict::Holds => windows.best = Some(outcome),
            RateVerdict::Late | RateVerdict::Short => windows.lowest = Some(outcome),
        }
    }
    Ok(())
}

fn step(outcome: &Value, shares: WindowShares) -> Value {
    json!({
        "offered_per_s": outcome["offered_per_s"],
        "holds": shares.verdict == RateVerdict::Holds,
        "delivered_share": shares.delivered,
        "acked_share": shares.acked,
        "acked_per_s": outcome["acked_per_s"],
        "delivery_ms": {"p50": outcome["delivery_ms"]["p50"], "p99": outcome["delivery_ms"]["p99"]},
        "ack_ms": {"p50": outcome["ack_ms"]["p50"], "p99": outcome["ack_ms"]["p99"]},
        "refused": outcome["refused"],
        "lost": outcome["lost"],
        "errors": outcome["errors"],
        "load_too_busy": outcome["load"]["too_busy"],
    })
}

fn line(step: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    format!(
        "{:>8.0} a second: {}, {:.1} % delivered, ms: p50 {:.2}, p99 {:.2}, ack p99 {:.2}; {} refused, {} lost",
        number(&step["offered_per_s"]),
        if step["holds"] == true { "holds" } else { "fails" },
        number(&step["delivered_share"]) * 100.0,
        number(&step["delivery_ms"]["p50"]),
        number(&step["delivery_ms"]["p99"]),
        number(&step["ack_ms"]["p99"]),
        step["refused"],
        step["lost"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rates that a search tries on a subject that holds up to `capacity`, and its result. Up to twice that
    /// rate everything arrives late. Windows with the numbers of `pauses` are late in any case.
    fn searched(first: f64, capacity: f64, pauses: &[usize]) -> (Vec<f64>, Option<f64>) {
        let bounds = CapacityBounds { p99_ms: 50.0, share: 0.99 };
        let mut search = RateSearch::new(first, bounds, 2, 24);
        let mut rates = Vec::new();
        while let Some(rate) = search.next() {
            let verdict = match rate {
                _ if rate > capacity * 2.0 => RateVerdict::Short,
                _ if rate > capacity || pauses.contains(&rates.len()) => RateVerdict::Late,
                _ => RateVerdict::Holds,
            };
            search.record(rate, verdict);
            rates.push(rate);
        }
        (rates, search.held)
    }

    #[test]
    fn search_doubles_rate_and_bisects_twice() {
        let (rates, held) = searched(1000.0, 7500.0, &[]);
        assert_eq!(rates, [1000.0, 2000.0, 4000.0, 8000.0, 8000.0, 6000.0, 7000.0]);
        assert_eq!(held, Some(7000.0));
    }

    #[test]
    fn single_late_window_does_not_count() {
        let (rates, held) = searched(1000.0, 4000.0, &[1]);
        assert_eq!(rates[..4], [1000.0, 2000.0, 2000.0, 4000.0]);
        assert_eq!(held, Some(4000.0));
    }

    #[test]
    fn search_halves_first_rate_that_fails() {
        let (rates, held) = searched(1000.0, 300.0, &[]);
        assert_eq!(rates, [1000.0, 500.0, 500.0, 250.0, 375.0, 375.0, 312.5, 312.5]);
        assert_eq!(held, Some(250.0));
        assert_eq!(searched(64.0, 0.0, &[]).1, None, "a subject that answers nothing ends the search");
    }
}
