//! The spans of a message: [`publish`] on the gateway that publishes it, [`deliver`] on every gateway that delivers it.
//!
//! Both carry the `msg_id` of the envelope, so they are linked at no cost: an exporter derives the trace id from it on
//! every gateway. They exist if DEBUG is enabled or a build with `otlp` exports them;
//! otherwise a span costs one comparison. They never contain a
//! message body.

use tracing::Span;

use crate::backplane::{Delivery, PublishRequest};

/// Returns the span of a publish, from its first attempt to its answer.
#[must_use]
pub fn publish(to: &str, request: &PublishRequest) -> Span {
    tracing::debug_span!("publish", msg_id = request.msg_id, to, from = request.from.as_str())
}

/// Returns the span of a message that is delivered to the outboxes of this gateway. Other deliveries have none.
#[must_use]
pub fn deliver(delivery: &Delivery) -> Span {
    match delivery {
        Delivery::Room { message, .. } | Delivery::Direct { message, .. } => {
            tracing::debug_span!("deliver", msg_id = message.msg_id, to = message.to, seq = message.seq)
        }
        _ => Span::none(),
    }
}
