//! The sources of the metrics that are read at each scrape.

use std::sync::Arc;
use std::time::Instant;

use crate::hub::Hub;
use crate::lease::LeaseContext;
use crate::listen::Admission;
use crate::metrics::AtScrape;

/// Connects the metrics that are read at each scrape with their sources.
pub(super) fn at_scrape(lease: &Arc<LeaseContext>, hub: &Arc<Hub>, admission: &Arc<Admission>) -> AtScrape {
    let started = Instant::now();
    let (sessions, rooms, admission) = (Arc::clone(hub), Arc::clone(hub), Arc::clone(admission));
    let [detached, unsafe_bytes, generation, beats, subscription] = [(); 5].map(|()| Arc::clone(lease));
    AtScrape {
        sessions: Box::new(move || sessions.size().sessions),
        detached: Box::new(move || detached.claims.count_detached()),
        rooms: Box::new(move || rooms.size().rooms),
        unsafe_bytes: Box::new(move || unsafe_bytes.backplane.unsafe_bytes()),
        generation: Box::new(move || *generation.health.generations().borrow()),
        beat_age: Box::new(move || {
            let now = Instant::now();
            beats.health.echo_age(now).unwrap_or(now - started)
        }),
        subscription: Box::new(move || subscription.backplane.subscription()),
        draining: Box::new(move || admission.is_leaving()),
    }
}
