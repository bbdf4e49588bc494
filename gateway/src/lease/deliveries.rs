//! Routes deliveries: own echoes to the lease health, orders to [`SessionOrders`], all others to the hub.
//!
//! [`DeliveryRouter::route`] runs on the task that reads from the store, so it neither blocks nor calls the backplane.

use std::sync::Arc;
use std::time::Instant;

use presence::lease::LeaseHealth;
use presence::model::Incarnation;

use crate::backplane::Delivery;
use crate::hub::{Hub, refill};
use crate::metrics::Metrics;
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
    /// Counts reconnects and round trips.
    pub metrics: Arc<Metrics>,
}

impl DeliveryRouter {
    /// Routes one delivery.
    pub fn route(&self, delivery: Delivery) {
        match delivery {
            Delivery::Echo { counter, incarnation } => self.record_echo(&incarnation, counter),
            Delivery::Kick { session } => self.orders.kick(&session),
            Delivery::Taken { session, fence } => self.orders.take_over(&session, fence),
            Delivery::SubscriptionRestored => {
                self.metrics.backplane_reconnects.inc();
                self.hub.deliver(Delivery::SubscriptionRestored);
            }
            message => trace::deliver(&message).in_scope(|| self.hub.deliver(message)),
        }
    }

    /// Records an own echo. After a late one the hub compares all streams, since other deliveries may have been lost.
    fn record_echo(&self, incarnation: &Incarnation, counter: u64) {
        self.health.echoed(incarnation, counter);
        let now = Instant::now();
        if let Some(took) = self.health.round_trip(counter, now) {
            self.metrics.round_trip.record(took);
        }
        if refill::is_late(self.health.echo_age(now)) {
            self.hub.verify_streams();
        }
    }
}
