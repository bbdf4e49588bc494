//! Metrics of hooks: questions by hook and outcome, and the time to the answer.

use std::time::Duration;

use presence::host::metrics::{Bounds, Family, Histogram, Label, Labelled};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::HookKind;
use super::verdict::{HookFailure, HookVerdict};

/// Message if a registration fails.
const REGISTERED_ONCE: &str = "metric names are valid and registered once";

/// The outcome of a question.
#[derive(Debug, Clone, Copy)]
pub(super) enum HookOutcome {
    /// The application allowed the request.
    Allowed,
    /// The application refused it.
    Refused,
    /// An earlier answer decided.
    Remembered,
    /// The deadline passed.
    Late,
    /// There was no answer.
    Unanswered,
    /// The answer had another status than 200, or was malformed.
    Unusable,
    /// Too many questions were under way.
    Crowded,
}

impl Label for HookOutcome {
    const ROWS: &'static [Self] =
        &[Self::Allowed, Self::Refused, Self::Remembered, Self::Late, Self::Unanswered, Self::Unusable, Self::Crowded];

    fn value(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Remembered => "remembered",
            Self::Late => "late",
            Self::Unanswered => "unanswered",
            Self::Unusable => "unusable",
            Self::Crowded => "crowded",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

impl From<&HookVerdict> for HookOutcome {
    fn from(verdict: &HookVerdict) -> Self {
        match verdict {
            HookVerdict::Allowed => Self::Allowed,
            HookVerdict::Refused(_) => Self::Refused,
        }
    }
}

impl From<&HookFailure> for HookOutcome {
    fn from(failure: &HookFailure) -> Self {
        match failure {
            HookFailure::Crowded => Self::Crowded,
            HookFailure::Late => Self::Late,
            HookFailure::Unanswered(_) => Self::Unanswered,
            HookFailure::Status(_) | HookFailure::Malformed(_) => Self::Unusable,
        }
    }
}

/// Metrics of the hooks of a gateway.
#[derive(Debug)]
pub(super) struct HookMetrics {
    questions: Labelled<HookKind, Labelled<HookOutcome, IntCounter>>,
    seconds: Labelled<HookKind, Histogram>,
}

impl HookMetrics {
    /// Registers the metrics.
    pub(super) fn new(on: &Registry) -> Self {
        let help = "Requests about which the application was to be asked, by hook and outcome.";
        let family = IntCounterVec::new(Opts::new("parley_hook_questions_total", help), &["hook", "outcome"]);
        let family = family.expect(REGISTERED_ONCE);
        on.register(Box::new(family.clone())).expect(REGISTERED_ONCE);
        let questions = Labelled::new(|hook| Labelled::new(|outcome| family.with_label_values(&[hook, outcome])));
        let help = "Time from the start of a question to the application until its answer or its deadline.";
        let (family, seconds) = Family::labelled("parley_hook_seconds", help, "hook", Bounds::SECONDS);
        on.register(Box::new(family)).expect(REGISTERED_ONCE);
        Self { questions, seconds }
    }

    /// Counts the outcome of a question.
    pub(super) fn count(&self, hook: HookKind, outcome: HookOutcome) {
        self.questions[hook][outcome].inc();
    }

    /// Records the time of a question that was sent.
    pub(super) fn answered(&self, hook: HookKind, took: Duration) {
        self.seconds[hook].record(took);
    }

    /// Returns the number of questions with an outcome.
    #[cfg(test)]
    pub(super) fn counted(&self, hook: HookKind, outcome: HookOutcome) -> u64 {
        self.questions[hook][outcome].get()
    }
}
