//! stub: the interface doors use.
use std::time::Instant;

use presence::model::LeftReason;

use crate::wire::{CorrelationId, Format, Refusal, Request};

use super::outbox::Outbox;

/// stub
#[derive(Debug)]
pub struct Services {}

/// Drives one session: performs what the core decides. Owned by the connection's task.
#[derive(Debug)]
pub struct Driver {}

impl Driver {
    /// A fresh session on a connection of this format. `pings` is whether the door can ping: without, silence has no limit.
    #[must_use]
    pub fn new(_services: &std::sync::Arc<Services>, _format: Format) -> Self {
        todo!()
    }

    /// Where this connection's output waits; the door empties it, also while a request is being handled.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        todo!()
    }

    /// A sign of life: any frame, whatever it held.
    pub fn heard(&mut self) {}

    /// Handles one decoded request, or answers the refusal of one that could not be decoded; everything it has to say is
    /// in the outbox when it returns. Must be run to its end: doors poll it beside the outbox, never drop it.
    pub async fn request(&mut self, _decoded: Result<Request, (CorrelationId, Refusal)>) {
        todo!()
    }

    /// When [`Driver::tick`] wants to be called next; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Looks at the clock: may queue a ping, or close a connection that fell silent or never registered.
    pub fn tick(&mut self) {}

    /// The connection is over: leaves every room and gives the nickname back. Must be run to its end.
    pub async fn end(self, _reason: LeftReason) {}
}
