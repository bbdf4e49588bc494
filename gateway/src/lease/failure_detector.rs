//! Runs the failure detector on the lease table of each beat, and counts its actions.

use std::sync::Arc;

use presence::lease::detector::{self, ReapOutcome};

use super::context::LeaseContext;

/// Fences and reaps failed gateways for as long as it is polled.
pub async fn run(context: Arc<LeaseContext>) {
    let count = |outcome| match outcome {
        ReapOutcome::Fenced => context.metrics.fences.inc(),
        ReapOutcome::Reaped(reaped) => {
            context.metrics.reaped_nicks.inc_by(reaped.nicks);
            context.metrics.reaped_members.inc_by(reaped.members);
        }
    };
    let samples = context.samples.subscribe();
    detector::run(context.registry.clone(), samples, || context.health.incarnation(), count).await;
}
