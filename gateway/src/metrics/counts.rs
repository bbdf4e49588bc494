//! Metrics on the path of every message: fan-out batches ([`Counts`]), gaps, and the time to the socket
//! ([`Deliveries`]).
//!
//! The hub and the listeners hold these by value. Invariant: a call is a few relaxed additions per batch or write, for
//! any number of messages in it, so counting does not slow the fan-out down. No call takes a lock.

use std::sync::Arc;
use std::time::SystemTime;

use presence::host::metrics::{Bounds, Family, Histogram, Labelled, counter};
use prometheus::{IntCounter, Registry};

use super::GapOutcome;
use crate::hub::position::StreamStep;
use crate::message::Accepted;

/// Metrics of the hub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Messages delivered to readers, one for each receiver.
    pub delivered: IntCounter,
    /// Presence and typing events dropped for slow readers, one for each receiver.
    pub skipped: IntCounter,
    /// Duration of the deliveries.
    pub deliveries: Deliveries,
    batches: Histogram,
    gaps: IntCounter,
    missing: Arc<Labelled<GapOutcome, IntCounter>>,
}

impl Counts {
    pub(super) fn new(on: &Registry) -> Self {
        Self {
            delivered: counter(
                on,
                "parley_messages_delivered_total",
                "Messages delivered by this gateway, one for each receiver.",
            ),
            skipped: counter(
                on,
                "parley_events_dropped_total",
                "Presence and typing events dropped for slow readers, one for each receiver.",
            ),
            deliveries: Deliveries::new(on),
            batches: Family::single(
                on,
                "parley_fanout_round_deliveries",
                "Deliveries of one fan-out batch: messages times receivers. The buckets count deliveries.",
                Bounds::RECEIVERS,
            ),
            gaps: counter(
                on,
                "parley_gaps_found_total",
                "Pages read from streams to refill gaps in rooms and inboxes.",
            ),
            missing: Arc::new(Labelled::counters(
                on,
                "parley_gap_messages_total",
                "Messages that did not arrive, by outcome.",
                "outcome",
            )),
        }
    }

    /// Records the number of deliveries of one fan-out batch.
    pub fn fan_out_finished(&self, deliveries: u64) {
        if deliveries > 0 {
            self.delivered.inc_by(deliveries);
            self.batches.record_many(deliveries, 1);
        }
    }

    /// Records the outcome of a refill: a page of a stream read for messages that did not arrive.
    pub fn gap<T>(&self, steps: &[StreamStep<T>]) {
        self.gaps.inc();
        for step in steps {
            match step {
                StreamStep::Message(..) => self.missing[GapOutcome::Repaired].inc(),
                StreamStep::Gap { from, to } => self.missing[GapOutcome::Lost].inc_by(to - from + 1),
                StreamStep::EpochChanged { .. } => {}
            }
        }
    }
}

/// Time of messages from the gateway of the sender to the sockets of this gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deliveries {
    seconds: Histogram,
}

impl Deliveries {
    fn new(on: &Registry) -> Self {
        let help = "Time from accepting a message on its sender's gateway to writing it to a socket here. Each write counts \
            with its oldest message. Between machines it depends on synchronised clocks.";
        Self { seconds: Family::single(on, "parley_delivery_seconds", help, Bounds::SECONDS) }
    }

    /// Records that a write just finished on `sockets`; its oldest message was accepted at `oldest`.
    pub fn written(&self, oldest: Accepted, sockets: u64) {
        if sockets > 0
            && let Some(age) = oldest.age(SystemTime::now())
        {
            self.seconds.record_many(u64::try_from(age.as_micros()).unwrap_or(u64::MAX), sockets);
        }
    }
}
