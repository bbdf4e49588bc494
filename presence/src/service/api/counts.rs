//! Counters of the messages that the API publishes.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::host::metrics::{ApiMetrics, Label, Labelled};
use crate::registry::{PostError, PostedMessage, RegistryError};

/// Outcome of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PostOutcome {
    Stored,
    Duplicate,
    Refused,
    Unknown,
}

impl Label for PostOutcome {
    const ROWS: &'static [Self] = &[Self::Stored, Self::Duplicate, Self::Refused, Self::Unknown];

    fn value(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// The counters. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ApiCounts {
    posts: Arc<Labelled<PostOutcome, IntCounter>>,
}

impl ApiCounts {
    /// Registers the counters.
    pub(super) fn new(metrics: &ApiMetrics) -> Self {
        let name = "parley_api_messages_total";
        let help = "Messages of applications that reached the store, by outcome.";
        Self { posts: Arc::new(Labelled::counters(&metrics.registry, name, help, "outcome")) }
    }

    /// Counts the result of a message.
    pub(super) fn post(&self, result: &Result<PostedMessage, PostError>) {
        let outcome = match result {
            Ok(PostedMessage { duplicate: false, .. }) => PostOutcome::Stored,
            Ok(_) => PostOutcome::Duplicate,
            Err(PostError::Registry(RegistryError::Unknown(_))) => PostOutcome::Unknown,
            Err(_) => PostOutcome::Refused,
        };
        self.posts[outcome].inc();
    }
}
