//! What a checker is worth: for each mechanism a short story in which only that mechanism stands between the cluster
//! and a broken promise, and the checker that has to notice when it is taken out (`presence/src/host/failpoints.rs`).
//!
//! Told one by one with the mechanism gone, and all in one run with everything in its place.

use std::time::Duration;

use crate::plan::{Fault, FaultStep, Network};

/// What stands for telling all stories with nothing taken out.
pub const NOTHING: &str = "nothing";

/// One mechanism and its proof.
#[derive(Debug, Clone, Copy)]
pub struct FailpointStory {
    /// As `PARLEY_SABOTAGE` calls it.
    pub mechanism: &'static str,
    /// The checker that must fail.
    pub checker: &'static str,
    /// The time at which the fault begins and how long it lasts, in tenths of a second.
    tenths: (u64, u64),
    /// None is needed where people get in each other's way by themselves.
    fault: Option<Fault>,
    /// How long connections of members last, if not as long as usual.
    pub breaks_off: Option<Duration>,
}

/// Every story. No two break the same part at a time.
pub const STORIES: [FailpointStory; 8] = [
    // It sleeps until it counts as dead and its names went to others; then it wakes and goes on.
    FailpointStory {
        mechanism: "fence",
        checker: "nicknames",
        tenths: (10, 140),
        fault: Some(Fault::GatewayStop { gateway: 0 }),
        breaks_off: None,
    },
    // Two rivals that both want a name.
    FailpointStory { mechanism: "claim", checker: "nicknames", tenths: (0, 30), fault: None, breaks_off: None },
    // Messages that are written and whose answers get lost are said again.
    FailpointStory {
        mechanism: "dedupe",
        checker: "duplicates",
        tenths: (10, 40),
        fault: Some(Fault::BadNetwork { gateway: 1, network: Network::StallReplies }),
        breaks_off: None,
    },
    // What is said while a gateway hears nothing.
    FailpointStory {
        mechanism: "refill",
        checker: "contiguity",
        tenths: (70, 15),
        fault: Some(Fault::BadNetwork { gateway: 1, network: Network::Reset }),
        breaks_off: None,
    },
    // Its members reconnect to another gateway, where others go on sending.
    FailpointStory {
        mechanism: "hold_back",
        checker: "contiguity",
        tenths: (20, 5),
        fault: Some(Fault::GatewayRestart { gateway: 2 }),
        breaks_off: None,
    },
    // A nap that is shorter than death.
    FailpointStory {
        mechanism: "patience",
        checker: "presence",
        tenths: (90, 45),
        fault: Some(Fault::GatewayStop { gateway: 2 }),
        breaks_off: None,
    },
    // Members on a bad network, back at once.
    FailpointStory {
        mechanism: "stillness",
        checker: "stillness",
        tenths: (0, 60),
        fault: None,
        breaks_off: Some(Duration::from_secs(3)),
    },
    // What was acked in the last second before a crash.
    FailpointStory {
        mechanism: "repair",
        checker: "loss",
        tenths: (170, 5),
        fault: Some(Fault::RedisCrash),
        breaks_off: None,
    },
];

/// After the last fault: what went wrong has been heard of.
const AFTER: Duration = Duration::from_secs(2);
/// After a crash of Redis: what can be mended has been.
const MENDED: Duration = Duration::from_secs(8);
/// Enough for a message in every moment that counts.
pub const RATE: u32 = 120;

impl FailpointStory {
    /// The one about this mechanism.
    pub fn of(mechanism: &str) -> Option<Self> {
        STORIES.into_iter().find(|story| story.mechanism == mechanism)
    }

    /// Told alone, it begins at once.
    pub fn told_alone(self) -> Self {
        Self { tenths: (self.tenths.0.min(10), self.tenths.1), ..self }
    }

    /// The time at which it is over.
    fn ends(&self) -> Duration {
        let told = Duration::from_millis(100 * (self.tenths.0 + self.tenths.1));
        told + if self.fault.is_some_and(Fault::makes_redis_forget) { MENDED } else { AFTER }
    }
}

/// The plan of these stories and how long it takes.
pub fn plan(stories: &[FailpointStory]) -> (Vec<FaultStep>, Duration) {
    let tenths = |tenths| Duration::from_millis(100 * tenths);
    let step = |story: &FailpointStory| {
        let (begins, lasts) = story.tenths;
        Some(FaultStep { begins: tenths(begins), lasts: tenths(lasts), fault: story.fault? })
    };
    (stories.iter().filter_map(step).collect(), stories.iter().map(FailpointStory::ends).max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CHECKERS;

    #[test]
    fn every_story_names_checker_and_free_part() {
        let (steps, length) = plan(&STORIES);
        for story in STORIES {
            assert!(CHECKERS.iter().any(|checker| checker.name == story.checker), "{story:?}");
            assert!(plan(&[story.told_alone()]).1 <= length);
        }
        for (at, step) in steps.iter().enumerate() {
            let mut others = steps[at + 1..].iter().filter(|other| other.fault.part() == step.fault.part());
            assert!(others.all(|other| step.ends() < other.begins || other.ends() < step.begins), "{step:?}");
        }
    }
}
