//! A rate with a burst, by the generic cell rate algorithm (GCRA).
//!
//! [`RateLimit`] is the setting, [`ArrivalTime`] the state of one limit in 8 bytes. Invariant: in any time, no more is
//! admitted than the burst and the rate times that time; a refusal names the exact time after which the same cost is
//! admitted. Pure: a time since any beginning is passed in, always the same one. It does not know what is counted.

use std::time::Duration;

/// Microseconds of a second.
const SECOND_US: u64 = 1_000_000;

/// A maximum rate, and the burst that is admitted at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Units in each period; 0 lifts the limit.
    units: u64,
    period_us: u64,
    burst: u64,
    /// True if the costs differ: bytes are counted.
    is_of_bytes: bool,
}

/// The theoretical arrival time of the next unit, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ArrivalTime(u64);

impl ArrivalTime {
    /// Returns true if nothing is left of what was admitted.
    pub(crate) const fn is_over(self, now_us: u64) -> bool {
        self.0 <= now_us
    }
}

impl RateLimit {
    /// At most `units` requests per second, and `burst` at once.
    #[must_use]
    pub const fn per_second(units: u64, burst: u64) -> Self {
        Self::of_requests(units, SECOND_US, burst)
    }

    /// At most `units` requests per minute, and `burst` at once.
    #[must_use]
    pub const fn per_minute(units: u64, burst: u64) -> Self {
        Self::of_requests(units, 60 * SECOND_US, burst)
    }

    /// At most `units` bytes per second, and `burst` at once. A larger request costs the burst.
    #[must_use]
    pub const fn bytes_per_second(units: u64, burst: u64) -> Self {
        Self { units, period_us: SECOND_US, burst, is_of_bytes: true }
    }

    const fn of_requests(units: u64, period_us: u64, burst: u64) -> Self {
        Self { units, period_us, burst, is_of_bytes: false }
    }

    /// Returns the limit of the same kind with another rate and burst.
    #[must_use]
    pub const fn with(self, units: u64, burst: u64) -> Self {
        Self { units, burst, ..self }
    }

    /// Returns the limit of this many clients together.
    #[must_use]
    pub const fn times(self, clients: u64) -> Self {
        Self { units: self.units.saturating_mul(clients), burst: self.burst.saturating_mul(clients), ..self }
    }

    /// Returns the limit that admits everything.
    #[must_use]
    pub const fn lifted(self) -> Self {
        Self { units: 0, ..self }
    }

    /// Returns the maximum time by which the arrival time may be ahead.
    fn tolerance_us(self) -> u64 {
        let units = self.units.max(1);
        if self.is_of_bytes {
            // The rounding of single costs must not add up to more than the burst.
            self.burst.saturating_mul(self.period_us) / units
        } else {
            self.burst.saturating_mul(self.period_us.div_ceil(units))
        }
    }

    /// Returns the units in each period; 0 for a lifted limit.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.units
    }

    /// Returns the units that are admitted at once.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// Returns true if everything is admitted.
    pub(crate) const fn is_lifted(self) -> bool {
        self.units == 0
    }

    /// Returns the state after a request of this cost.
    ///
    /// # Errors
    /// The time after which it is admitted.
    pub(crate) fn admit(self, state: ArrivalTime, now_us: u64, cost: u64) -> Result<ArrivalTime, Duration> {
        if self.is_lifted() {
            return Ok(state);
        }
        let next = self.after(state, now_us, cost);
        let ahead = next.0 - now_us;
        match ahead.checked_sub(self.tolerance_us()) {
            None | Some(0) => Ok(next),
            Some(wait_us) => Err(Duration::from_micros(wait_us)),
        }
    }

    /// Returns the state as if a request of this cost were admitted.
    pub(crate) fn after(self, ArrivalTime(state): ArrivalTime, now_us: u64, cost: u64) -> ArrivalTime {
        // A request over the burst would never be admitted, a quiet session may make it.
        ArrivalTime(state.max(now_us).saturating_add(self.interval_us(cost).min(self.tolerance_us())))
    }

    /// Returns the state after costs that were admitted elsewhere, whether they would be admitted here or not.
    pub(super) fn charged(self, ArrivalTime(state): ArrivalTime, now_us: u64, cost: u64) -> ArrivalTime {
        if self.is_lifted() {
            return ArrivalTime(state);
        }
        ArrivalTime(state.max(now_us).saturating_add(self.interval_us(cost)))
    }

    /// Returns the state without a cost that was admitted a moment ago.
    pub(super) fn refunded(self, ArrivalTime(state): ArrivalTime, cost: u64) -> ArrivalTime {
        ArrivalTime(state.saturating_sub(self.interval_us(cost)))
    }

    /// Returns the time in which the rate admits a cost.
    fn interval_us(self, cost: u64) -> u64 {
        cost.saturating_mul(self.period_us).div_ceil(self.units.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> impl Strategy<Value = RateLimit> {
        prop_oneof![
            (1_u64..5000, 1_u64..500).prop_map(|(units, burst)| RateLimit::per_second(units, burst)),
            (1_u64..200, 1_u64..20).prop_map(|(units, burst)| RateLimit::per_minute(units, burst)),
        ]
    }

    proptest! {
        #[test]
        fn requests_never_exceed_burst_and_rate(
            limit in limits(),
            pauses in prop::collection::vec(prop_oneof![Just(0_u64), 0..2000_u64, 0..3_000_000_u64], 1..300),
        ) {
            let (mut state, mut now, mut admitted) = (ArrivalTime::default(), 5_u64, Vec::new());
            for pause in pauses {
                now += pause;
                if let Ok(next) = limit.admit(state, now, 1) {
                    state = next;
                    admitted.push(now);
                }
            }
            for (at, first) in admitted.iter().enumerate() {
                for (count, last) in admitted[at..].iter().enumerate() {
                    let earned = u128::from(limit.units) * u128::from(last - first) / u128::from(limit.period_us);
                    prop_assert!((count as u128) < u128::from(limit.burst) + earned, "{limit:?}");
                }
            }
        }

        #[test]
        fn bytes_never_exceed_burst_and_rate(
            units in 1000_u64..1_000_000,
            burst in 65_536_u64..1_000_000,
            sends in prop::collection::vec((prop_oneof![Just(0_u64), 0..500_000_u64], 1..65_536_u64), 1..200),
        ) {
            let limit = RateLimit::bytes_per_second(units, burst);
            let (mut state, mut now, mut admitted) = (ArrivalTime::default(), 0_u64, Vec::new());
            for (pause, bytes) in sends {
                now += pause;
                if let Ok(next) = limit.admit(state, now, bytes) {
                    state = next;
                    admitted.push((now, bytes));
                }
            }
            for (at, (first, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (last, bytes) in &admitted[at..] {
                    sum += bytes;
                    let earned = u128::from(units) * u128::from(last - first) / u128::from(SECOND_US);
                    prop_assert!(u128::from(sum) <= u128::from(burst) + earned + 1, "{limit:?}");
                }
            }
        }

        #[test]
        fn refusal_names_exact_time_of_admission(
            limit in prop_oneof![limits(), Just(RateLimit::bytes_per_second(65_536, 262_144))],
            costs in prop::collection::vec(1..1000_u64, 1..600),
        ) {
            let (mut state, mut now) = (ArrivalTime::default(), 0_u64);
            for cost in costs {
                let cost = if limit.burst < 65_536 { 1 } else { cost * 60 };
                let admitted = limit.admit(state, now, cost);
                let Err(wait) = admitted else {
                    state = admitted.unwrap_or(state);
                    continue;
                };
                let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
                prop_assert!(limit.admit(state, now + wait - 1, cost).is_err(), "not a microsecond earlier");
                now += wait;
                let next = limit.admit(state, now, cost);
                prop_assert!(next.is_ok(), "at the named time");
                state = next.unwrap_or(state);
            }
        }
    }

    #[test]
    fn whole_burst_is_admitted_at_once() {
        for (units, burst) in [(7, 10), (20, 60), (3, 1), (999, 333)] {
            let (limit, mut state) = (RateLimit::per_second(units, burst), ArrivalTime::default());
            let admitted = std::iter::from_fn(|| {
                state = limit.admit(state, 3, 1).ok()?;
                Some(())
            });
            assert_eq!(admitted.count() as u64, burst, "{limit:?}");
        }
        let bytes = RateLimit::bytes_per_second(65_536, 262_144);
        let spent = bytes.admit(ArrivalTime::default(), 0, 262_144);
        assert_eq!(spent, Ok(ArrivalTime(4_000_000)));
        assert_eq!(bytes.admit(ArrivalTime(4_000_000), 0, 65_536), Err(Duration::from_secs(1)));
    }

    #[test]
    fn lifted_limit_admits_everything() {
        let limit = RateLimit::bytes_per_second(0, 1);
        assert_eq!(limit.admit(ArrivalTime::default(), 0, u64::MAX), Ok(ArrivalTime::default()));
    }

    #[test]
    fn cost_over_the_burst_passes_after_quiet() {
        let limit = RateLimit::bytes_per_second(1000, 500);
        let spent = limit.admit(ArrivalTime::default(), 0, 65_000);
        assert_eq!(spent, Ok(ArrivalTime(500_000)));
        assert_eq!(limit.admit(ArrivalTime(500_000), 0, 65_000), Err(Duration::from_millis(500)));
    }
}
