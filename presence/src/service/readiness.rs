//! Readiness of a presence process: judged by the failure detector's newest sample and by the reasons that the store
//! reports, so a check costs Redis nothing.
//!
//! The store logs its own reasons, so only the others are logged here. The gateway's readiness is in its own crate.

use std::time::Duration;

use crate::host::admin::Readiness;
use crate::lease::LeaseSample;

/// Maximum age of the registry's last answer while the process is ready.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(3);
/// Interval at which a change of readiness is detected and logged.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Returns the reasons against readiness; none if the process is ready. `is_refusing`: Redis refuses calls.
pub(super) fn judge(is_closing: bool, newest: Option<&LeaseSample>, is_refusing: bool) -> Readiness {
    let age = newest.map(|sample| sample.received.elapsed());
    let silence = if is_refusing { "the leases have not been read" } else { "redis has not answered" };
    let reasons = [
        is_closing.then(|| "shutting down".to_owned()),
        match age {
            None => Some(format!("{silence} yet")),
            Some(age) if age > ANSWER_AGE_MAX => Some(format!("{silence} for {} s", age.as_secs())),
            Some(_) => None,
        },
    ];
    Readiness { reasons: reasons.into_iter().flatten().collect() }
}

/// Logs each change of readiness for as long as it is polled.
pub(super) async fn log_changes(ready: impl Fn() -> Readiness) {
    let mut tick = tokio::time::interval(CHECK_INTERVAL);
    let mut was_ready = false;
    loop {
        tick.tick().await;
        let Readiness { reasons } = ready();
        match (was_ready, reasons.as_slice()) {
            (false, []) => tracing::info!("ready"),
            (true, [_, ..]) => tracing::warn!(reasons = reasons.join("; "), "not ready"),
            _ => continue,
        }
        was_ready = !was_ready;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::registry::{Generation, LeaseTable, Phase};

    fn reasons(is_closing: bool, answered_before: Option<Duration>, is_refusing: bool) -> Vec<String> {
        let sample = answered_before.map(|age| LeaseSample {
            sent: Instant::now() - age,
            received: Instant::now() - age,
            table: LeaseTable { generation: Generation { number: 1, phase: Phase::Open }, leases: Vec::new() },
            accepts_beats: true,
        });
        judge(is_closing, sample.as_ref(), is_refusing).reasons
    }

    #[test]
    fn readiness_needs_an_answer_within_three_seconds() {
        let age = Duration::from_secs;
        assert_eq!(reasons(false, Some(age(2)), false), Vec::<String>::new());
        assert_eq!(reasons(false, Some(age(4)), false), ["redis has not answered for 4 s"]);
        assert_eq!(reasons(false, None, false), ["redis has not answered yet"]);
        assert_eq!(reasons(true, Some(age(0)), false), ["shutting down"]);
    }

    #[test]
    fn redis_that_refuses_is_not_called_silent() {
        let reasons = |answered_before| reasons(false, answered_before, true);
        assert_eq!(reasons(Some(Duration::from_secs(4))), ["the leases have not been read for 4 s"]);
        assert_eq!(reasons(None), ["the leases have not been read yet"]);
    }
}
