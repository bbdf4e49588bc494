//! What is counted on the way of every message: rounds of fan-out, gaps, and the time to the socket.
//!
//! The hub and the doors hold these by value. Each call is a few relaxed additions for a whole round or write, however
//! many messages are in it: fan-out is what Parley is fast at, and counting must not be what slows it down.

use std::sync::Arc;
use std::time::SystemTime;

use presence::host::metrics::{Bounds, Family, Histogram, Labelled, counter};
use prometheus::{IntCounter, Registry};

use super::Missing;
use crate::hub::position::StreamStep;
use crate::message::Accepted;

/// What the hub counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Messages given to readers, one for each receiver.
    pub delivered: IntCounter,
    /// Changes of presence that were left out because too much waited for a reader, one for each receiver.
    pub left_out: IntCounter,
    /// How long they took.
    pub deliveries: Deliveries,
    rounds: Histogram,
    gaps: IntCounter,
    missing: Arc<Labelled<Missing, IntCounter>>,
}

impl Counts {
    pub(super) fn new(on: &Registry) -> Self {
        Self {
            delivered: counter(
                on,
                "parley_messages_delivered_total",
                "Messages delivered by this gateway, one for each receiver.",
            ),
            left_out: counter(
                on,
                "parley_events_dropped_total",
                "Presence and typing events dropped for slow readers, one for each receiver.",
            ),
            deliveries: Deliveries::new(on),
            rounds: Family::single(
                on,
                "parley_fanout_round_deliveries",
                "Deliveries of one fan-out batch: messages times receivers. The buckets count deliveries.",
                Bounds::RECEIVERS,
            ),
            gaps: counter(on, "parley_gaps_found_total", "Pages read from streams to refill gaps in rooms."),
            missing: Arc::new(Labelled::counters(
                on,
                "parley_gap_messages_total",
                "Messages that did not arrive, by outcome.",
                "outcome",
            )),
        }
    }

    /// One round of fan-out made so many deliveries.
    pub fn round(&self, deliveries: u64) {
        if deliveries > 0 {
            self.delivered.inc_by(deliveries);
            self.rounds.record_many(deliveries, 1);
        }
    }

    /// A page of a log was read for what had not arrived, and this came of it.
    pub fn gap<T>(&self, steps: &[StreamStep<T>]) {
        self.gaps.inc();
        for step in steps {
            match step {
                StreamStep::Message(..) => self.missing[Missing::Repaired].inc(),
                StreamStep::Gap { from, to } => self.missing[Missing::Lost].inc_by(to - from + 1),
                StreamStep::EpochChanged { .. } => {}
            }
        }
    }
}

/// How long messages take from their sender's gateway to the sockets of this one. Cheap to clone.
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

    /// So many sockets have taken a write just now whose oldest message was accepted then.
    pub fn written(&self, oldest: Accepted, sockets: u64) {
        if sockets > 0
            && let Some(age) = oldest.age(SystemTime::now())
        {
            self.seconds.record_many(u64::try_from(age.as_micros()).unwrap_or(u64::MAX), sockets);
        }
    }
}
