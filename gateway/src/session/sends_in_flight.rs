//! The messages of a connection that are being published, in the order of their requests.
//!
//! [`SendsInFlight`] holds their futures, so a client need not wait for one message before it sends the next. Answers
//! come out in the order of the requests. Invariant: at most [`SENDS_MAX`] messages and [`BYTES_MAX`] bytes, but one
//! always fits. It knows neither the session nor the store.

use std::collections::VecDeque;
use std::fmt;
use std::future;
use std::task::{Context, Poll, ready};

use futures_util::future::{BoxFuture, FutureExt};

use crate::wire::{CorrelationId, Refusal};

use super::verbs::send::StoredSend;

/// Maximum number of messages of one connection.
const SENDS_MAX: usize = 256;
/// Maximum size of their bodies in bytes.
const BYTES_MAX: usize = 256 * 1024;

/// The outcome of a message.
pub(super) type SendAnswer = Result<StoredSend, Refusal>;

/// The messages of one connection.
#[derive(Debug, Default)]
pub(super) struct SendsInFlight {
    sends: VecDeque<SendInFlight>,
    bytes: usize,
}

struct SendInFlight {
    id: CorrelationId,
    bytes: usize,
    outcome: BoxFuture<'static, SendAnswer>,
}

impl fmt::Debug for SendInFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendInFlight").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl SendsInFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Returns true if a message of this size fits.
    pub(super) fn has_space(&self, bytes: usize) -> bool {
        self.is_empty() || self.sends.len() < SENDS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Adds a message and polls it once, which gives it its place in the order of its target.
    pub(super) fn push(&mut self, id: CorrelationId, bytes: usize, mut outcome: BoxFuture<'static, SendAnswer>) {
        if let Some(known) = (&mut outcome).now_or_never() {
            outcome = Box::pin(future::ready(known));
        }
        self.bytes += bytes;
        self.sends.push_back(SendInFlight { id, bytes, outcome });
    }

    /// Adds the refusal of a message, for its turn.
    pub(super) fn push_refused(&mut self, id: CorrelationId, refusal: Refusal) {
        self.sends.push_back(SendInFlight { id, bytes: 0, outcome: Box::pin(future::ready(Err(refusal))) });
    }

    /// Polls for the outcome of the oldest message and removes it. Pending without a message.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(CorrelationId, SendAnswer)> {
        let Some(oldest) = self.sends.front_mut() else { return Poll::Pending };
        let outcome = ready!(oldest.outcome.poll_unpin(context));
        let id = oldest.id.take();
        self.bytes -= oldest.bytes;
        self.sends.pop_front();
        if self.sends.is_empty() {
            // A burst leaves no memory behind.
            self.sends = VecDeque::new();
        }
        Poll::Ready((id, outcome))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;
    use presence::model::codes::ErrorCode;
    use serde_json::value::to_raw_value;
    use tokio::sync::oneshot;

    use super::*;

    /// A message whose outcome the test decides.
    fn message() -> (oneshot::Sender<SendAnswer>, BoxFuture<'static, SendAnswer>) {
        let (decide, outcome) = oneshot::channel();
        (decide, Box::pin(async { outcome.await.expect("the outcome is decided") }))
    }

    fn next(sends: &mut SendsInFlight) -> Option<String> {
        match sends.poll_next(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready((id, _)) => id.map(|id| id.get().to_owned()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn outcomes_come_in_order_of_requests() {
        let mut sends = SendsInFlight::default();
        let refused = || Err(ErrorCode::Overloaded.into());
        let mut decisions = Vec::new();
        for number in 0..3 {
            let (decide, outcome) = message();
            decisions.push(decide);
            sends.push(to_raw_value(&number).ok(), 1, outcome);
        }
        sends.push(to_raw_value(&3).ok(), 1, Box::pin(future::ready(refused())));
        if let Some(last) = decisions.pop() {
            let _ = last.send(refused());
        }
        assert_eq!(next(&mut sends), None, "the first one has no outcome");
        for decide in decisions {
            let _ = decide.send(refused());
        }
        let order: Vec<String> = std::iter::from_fn(|| next(&mut sends)).collect();
        assert_eq!(order, ["0", "1", "2", "3"]);
        assert!(sends.is_empty() && sends.sends.capacity() == 0);
    }

    #[test]
    fn space_is_bounded_in_messages_and_bytes() {
        let mut sends = SendsInFlight::default();
        assert!(sends.has_space(2 * BYTES_MAX), "one message always fits");
        sends.push(None, BYTES_MAX - 1, message().1);
        assert!(sends.has_space(1) && !sends.has_space(2));
        let mut sends = SendsInFlight::default();
        for _ in 0..SENDS_MAX {
            assert!(sends.has_space(1));
            sends.push(None, 1, message().1);
        }
        assert!(!sends.has_space(1));
    }
}
