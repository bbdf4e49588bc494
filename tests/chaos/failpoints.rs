//! Tests of the checkers: for each safety mechanism, a fault that violates a guarantee without it, and the checker that
//! must detect the violation. The mechanisms are in `presence/src/host/failpoints.rs`.
//!
//! Each case runs alone with its mechanism disabled. All cases also run together with no mechanism disabled.

use std::time::Duration;

use crate::plan::{Fault, FaultStep, Network};

/// Name for a run of all cases with no mechanism disabled.
pub const NOTHING: &str = "nothing";

/// A mechanism, the fault that needs it, and the checker of its guarantee.
#[derive(Debug, Clone, Copy)]
pub struct FailpointCase {
    /// Value of `PARLEY_FAILPOINT`.
    pub mechanism: &'static str,
    /// Checker that must fail.
    pub checker: &'static str,
    /// Start and duration of the fault, in tenths of a second.
    tenths: (u64, u64),
    /// `None` if the members' own actions suffice.
    fault: Option<Fault>,
    /// Time after which members lose their connections, if not the default.
    pub connection_loss_after: Option<Duration>,
}

/// All cases. Invariant: no two affect the same part at the same time.
pub const CASES: [FailpointCase; 9] = [
    // The gateway is stopped until it counts as dead and other sessions own its nicks; then it continues.
    FailpointCase {
        mechanism: "fence",
        checker: "nicknames",
        tenths: (10, 140),
        fault: Some(Fault::GatewayStop { gateway: 0 }),
        connection_loss_after: None,
    },
    // Two rivals claim one nick.
    FailpointCase {
        mechanism: "claim",
        checker: "nicknames",
        tenths: (0, 30),
        fault: None,
        connection_loss_after: None,
    },
    // Messages are stored, their replies are lost, and the clients send them again.
    FailpointCase {
        mechanism: "dedupe",
        checker: "duplicates",
        tenths: (10, 40),
        fault: Some(Fault::BadNetwork { gateway: 1, network: Network::StallReplies }),
        connection_loss_after: None,
    },
    // Messages are published while the gateway's subscription is down.
    FailpointCase {
        mechanism: "refill",
        checker: "contiguity",
        tenths: (70, 15),
        fault: Some(Fault::BadNetwork { gateway: 1, network: Network::Reset }),
        connection_loss_after: None,
    },
    // The members reconnect to another gateway while other members send.
    FailpointCase {
        mechanism: "join_order",
        checker: "contiguity",
        tenths: (20, 5),
        fault: Some(Fault::GatewayRestart { gateway: 2 }),
        connection_loss_after: None,
    },
    // The gateway is stopped for less than the detection time.
    FailpointCase {
        mechanism: "detection_time",
        checker: "presence",
        tenths: (90, 45),
        fault: Some(Fault::GatewayStop { gateway: 2 }),
        connection_loss_after: None,
    },
    // Members lose their connections and return at once.
    FailpointCase {
        mechanism: "leave_delay",
        checker: "stillness",
        tenths: (0, 60),
        fault: None,
        connection_loss_after: Some(Duration::from_secs(3)),
    },
    // Redis crashes within a second after acks.
    FailpointCase {
        mechanism: "republish",
        checker: "loss",
        tenths: (170, 5),
        fault: Some(Fault::RedisCrash),
        connection_loss_after: None,
    },
    // The application refuses webhooks for a while.
    FailpointCase {
        mechanism: "webhook_retry",
        checker: "webhooks",
        tenths: (20, 20),
        fault: Some(Fault::ReceiverRefuses),
        connection_loss_after: None,
    },
];

/// Time after the last fault in which violations become visible.
const AFTER_FAULT: Duration = Duration::from_secs(2);
/// Time after a crash of Redis in which the gateways republish.
const AFTER_REDIS_CRASH: Duration = Duration::from_secs(8);
/// Messages per second, enough to have one in flight at every critical moment.
pub const RATE: u32 = 120;

impl FailpointCase {
    /// Returns the case of this mechanism.
    pub fn of(mechanism: &str) -> Option<Self> {
        CASES.into_iter().find(|case| case.mechanism == mechanism)
    }

    /// Moves the fault to the start of the run, for a run of this case only.
    pub fn alone(self) -> Self {
        Self { tenths: (self.tenths.0.min(10), self.tenths.1), ..self }
    }

    /// Returns the time at which the case is over.
    fn ends(&self) -> Duration {
        let fault_end = Duration::from_millis(100 * (self.tenths.0 + self.tenths.1));
        fault_end + if self.fault.is_some_and(Fault::loses_redis_writes) { AFTER_REDIS_CRASH } else { AFTER_FAULT }
    }
}

/// Returns the plan of these cases and its length.
pub fn plan(cases: &[FailpointCase]) -> (Vec<FaultStep>, Duration) {
    let tenths = |tenths| Duration::from_millis(100 * tenths);
    let step = |case: &FailpointCase| {
        let (begins, lasts) = case.tenths;
        Some(FaultStep { begins: tenths(begins), lasts: tenths(lasts), fault: case.fault? })
    };
    (cases.iter().filter_map(step).collect(), cases.iter().map(FailpointCase::ends).max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CHECKERS;

    #[test]
    fn every_case_has_checker_and_free_part() {
        let (steps, length) = plan(&CASES);
        for case in CASES {
            assert!(CHECKERS.iter().any(|checker| checker.name == case.checker), "{case:?}");
            assert!(plan(&[case.alone()]).1 <= length);
        }
        for (at, step) in steps.iter().enumerate() {
            let mut others = steps[at + 1..].iter().filter(|other| other.fault.part() == step.fault.part());
            assert!(others.all(|other| step.ends() < other.begins || other.ends() < step.begins), "{step:?}");
        }
    }
}
