//! The pull loop of an open lease: one beat a second, and the actions that its answer calls for.
//!
//! An answered beat goes to the backplane, to the failure detector as a sample, and to `orders` as the mailbox. If the
//! generation lacks this gateway's claims, they are reasserted in the time until the next beat.

use std::time::{Duration, Instant};

use presence::lease::reassert::Reassertion;
use presence::lease::{BeatOutcome, Heartbeat, OwnLease};
use presence::registry::Phase;
use tokio::time::timeout;

use super::context::LeaseContext;
use super::sanctions;

/// Longest delay of a beat by a restore of the list of sanctions.
const RESTORE_MAX: Duration = Duration::from_secs(1);

/// Keeps an open lease until it is lost. An unreachable store does not end the lease.
pub(super) async fn keep(context: &LeaseContext, lease: &OwnLease) {
    let mut heartbeat = Heartbeat::new(lease);
    let mut reassertion = Reassertion::default();
    let mut recovering_since = None;
    loop {
        match heartbeat.next(|| context.quotas.take_report(Instant::now())).await {
            BeatOutcome::Answered(sample, beat) => {
                let generation = beat.generation.number;
                context.backplane.note_beat(&lease.incarnation, generation, sample.sent, sample.received);
                context.samples.send_replace(Some(sample));
                context.quotas.note_reports(Instant::now(), &lease.incarnation, &beat.usage);
                context.carry_out(beat.mailbox);
                context.sanctions.note_version(beat.sanctions);
                if beat.asserted && beat.generation.phase == Phase::Open {
                    if let Some(since) = recovering_since.take() {
                        let seconds = Instant::elapsed(&since).as_secs();
                        tracing::info!(generation, seconds, "store recovered");
                    }
                } else {
                    recovering_since.get_or_insert_with(Instant::now);
                }
                if beat.sanctions < context.sanctions.version() {
                    // Before the generation opens: from then on moderators change the list again.
                    let _ = timeout(RESTORE_MAX, sanctions::synchronize(context)).await;
                }
                if !beat.asserted {
                    reassert(context, lease, generation, &mut reassertion).await;
                }
            }
            BeatOutcome::Unanswered => {}
            BeatOutcome::Lost => return,
        }
    }
}

/// Reasserts claims until the next beat is due, and closes the sessions whose claims a later one has superseded.
async fn reassert(context: &LeaseContext, lease: &OwnLease, generation: u64, reassertion: &mut Reassertion) {
    reassertion.start_pass(lease, generation, || context.claims.all());
    while let Some(superseded) = reassertion.send_batch(lease, context.backplane.has_all_acknowledged(generation)).await
    {
        superseded.iter().for_each(|owner| context.orders.end_superseded(owner));
    }
}
