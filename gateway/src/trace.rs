//! The way of a message as spans: one where it is published, one on every gateway where it is delivered.
//!
//! Both carry the `msg_id`, which travels in the envelope anyway, so they are linked without a byte more: an exporter makes
//! the trace's id from it on every gateway by itself. At DEBUG and above only; otherwise a span costs one comparison.
//! Never holds a body.

use tracing::Span;

use crate::backplane::{Delivery, PublishRequest};

/// A message on its way into the store, from its first attempt to its answer.
#[must_use]
pub fn publish(to: &str, draft: &PublishRequest) -> Span {
    tracing::debug_span!("publish", msg_id = draft.msg_id, to, from = draft.from.as_str())
}

/// A message that has arrived here, on its way into the outboxes of this gateway. Anything else has no span.
#[must_use]
pub fn deliver(delivery: &Delivery) -> Span {
    match delivery {
        Delivery::Room { message, .. } | Delivery::Direct { message, .. } => {
            tracing::debug_span!("deliver", msg_id = message.msg_id, to = message.to, seq = message.seq)
        }
        _ => Span::none(),
    }
}
