//! Routes deliveries: own echoes to the lease health, orders to [`SessionOrders`], all others to the hub.
//!
//! [`DeliveryRouter`] runs on the task that reads from the store, so it neither blocks nor calls the backplane.

use std::sync::Arc;
use std::time::Instant;
use std::vec::Drain;

use presence::lease::LeaseHealth;
use presence::model::Incarnation;

use crate::backplane::{Delivery, ReceiveDeliveries};
use crate::hub::{Hub, refill};
use crate::metrics::Metrics;
use crate::sanctions::ClusterSanctions;
use crate::trace;

use super::orders::SessionOrders;

/// Routes deliveries of the backplane to the modules that handle them.
#[derive(Debug)]
pub struct DeliveryRouter {
    /// Receives messages, presence and typing notices.
    pub hub: Arc<Hub>,
    /// Records own echoes.
    pub health: Arc<LeaseHealth>,
    /// Carries out orders to end a session.
    pub orders: SessionOrders,
    /// Learns of changes of the list of sanctions.
    pub sanctions: Arc<ClusterSanctions>,
    /// Counts reconnects and round trips.
    pub metrics: Arc<Metrics>,
}

impl ReceiveDeliveries for DeliveryRouter {
    fn deliver(&self, delivery: Delivery) {
        self.route(delivery, |delivery| self.hub.deliver(delivery));
    }

    fn deliver_batch(&self, deliveries: Drain<'_, Delivery>) {
        let mut batch = self.hub.start_batch();
        deliveries.for_each(|delivery| self.route(delivery, |delivery| batch.deliver(delivery)));
        batch.fan_out();
    }
}

impl DeliveryRouter {
    /// Routes one delivery.
    fn route(&self, delivery: Delivery, to_hub: impl FnOnce(Delivery)) {
        match delivery {
            Delivery::Echo { counter, incarnation } => self.record_echo(&incarnation, counter, Instant::now()),
            Delivery::Kick { session } => self.orders.kick(&session),
            Delivery::Taken { session, fence } => self.orders.take_over(&session, fence),
            Delivery::Remove(removal) => self.orders.remove(&removal),
            Delivery::Enter(entry) => self.orders.enter(&entry),
            Delivery::Announcement(announcement) => self.orders.announce(&announcement),
            Delivery::SanctionChanged { version } => self.sanctions.note_version(version),
            Delivery::SubscriptionRestored => {
                self.metrics.backplane_reconnects.inc();
                to_hub(Delivery::SubscriptionRestored);
            }
            message => trace::deliver(&message).in_scope(|| to_hub(message)),
        }
    }

    /// Records an own echo. After a late one the hub compares all streams, since other deliveries may have been lost.
    fn record_echo(&self, incarnation: &Incarnation, counter: u64, now: Instant) {
        self.health.echoed(incarnation, counter);
        if let Some(took) = self.health.round_trip(counter, now) {
            self.metrics.round_trip.record(took);
        }
        if refill::is_late(self.health.echo_age(now)) {
            self.hub.verify_streams();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use presence::lease::{BeatOutcome, Heartbeat, OwnLease};
    use presence::model::stream::{StreamEnd, StreamId};
    use presence::model::{RoomName, SessionId};
    use presence::registry::{GatewayInfo, MemoryRegistry, Registry};
    use presence::store::memory::Store;

    use super::*;
    use crate::lease::LocalClaims;
    use crate::outbound::Outbox;
    use crate::wire::Dialect;

    #[tokio::test]
    async fn late_echo_verifies_every_stream() {
        let (health, metrics) = (Arc::new(LeaseHealth::default()), Arc::new(Metrics::new()));
        let hub = Arc::new(Hub::new(metrics.counts.clone()));
        let room = RoomName::parse("#lobby").expect("a valid name");
        hub.start_join(&room, &SessionId::random(), &Outbox::new(Dialect::Json));
        let end = StreamEnd { epoch: "e".to_owned(), seq: 0, forks: Vec::new() };
        hub.observe_end(&StreamId::Room(room.key().clone()), &end);

        let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
        let [node, version, ws, tcp, admin] = ["g1"; 5].map(str::to_owned);
        let info = GatewayInfo { node, version, ws, tcp, admin };
        let lease = OwnLease::new(registry, Arc::clone(&health), info);
        assert!(lease.open().await);
        let BeatOutcome::Answered(sample, beat) = Heartbeat::new(&lease).next(Default::default).await else {
            panic!("no answer")
        };
        let orders = SessionOrders::new(Arc::clone(&hub), Arc::<LocalClaims>::default());
        let sanctions = Arc::new(ClusterSanctions::new(true));
        let router = DeliveryRouter { hub: Arc::clone(&hub), health, orders, sanctions, metrics };
        for (seconds, is_late) in [(1, false), (3, true)] {
            router.record_echo(&lease.incarnation, beat.counter, sample.sent + Duration::from_secs(seconds));
            assert_eq!(hub.refill_requests().now_or_never().is_some(), is_late, "an echo after {seconds} s");
        }
    }
}
