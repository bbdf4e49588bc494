//! The messages of a connection that are being published, in the order of their requests.
//!
//! [`SendsInFlight`] holds their futures, so a client need not wait for one message before it sends the next. Answers
//! come out in the order of the requests. Invariants: at most [`SENDS_MAX`] messages and [`BYTES_MAX`] bytes, but one
//! always fits; no message is published before one that was sent before it. It knows neither the session nor the store.

use std::collections::VecDeque;
use std::fmt;
use std::future;
use std::mem;
use std::task::{Context, Poll, ready};

use futures_util::future::{BoxFuture, FutureExt};

use crate::wire::{CorrelationId, Refusal};

use super::questions::Permission;
use super::verbs::send::StoredSend;

/// Maximum number of messages of one connection.
const SENDS_MAX: usize = 256;
/// Maximum size of their bodies in bytes.
const BYTES_MAX: usize = 256 * 1024;
/// Maximum number of those that the application has not yet allowed.
const ASKED_MAX: usize = 16;

/// The outcome of a message.
pub(super) type SendAnswer = Result<StoredSend, Refusal>;

/// The messages of one connection.
#[derive(Debug, Default)]
pub(super) struct SendsInFlight {
    sends: VecDeque<SendInFlight>,
    /// Fits: see [`BYTES_MAX`] and the maximum size of a message.
    bytes: u32,
    /// The number of messages from the first one that is not yet allowed on. None of them is being published.
    asked: u32,
}

struct SendInFlight {
    id: CorrelationId,
    bytes: usize,
    stage: SendStage,
}

enum SendStage {
    /// It is being published, or its outcome is known.
    Begun(BoxFuture<'static, SendAnswer>),
    /// The application is asked about it, or about one before it. Boxed: such messages are rare.
    Asked(Box<AskedSend>),
}

struct AskedSend {
    question: BoxFuture<'static, Permission>,
    /// Not polled before the answer.
    outcome: BoxFuture<'static, SendAnswer>,
}

impl fmt::Debug for SendInFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendInFlight").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl SendStage {
    /// Polls a message once, which gives it its place in the order of its target.
    fn begin(mut outcome: BoxFuture<'static, SendAnswer>) -> Self {
        if let Some(known) = (&mut outcome).now_or_never() {
            outcome = Box::pin(future::ready(known));
        }
        Self::Begun(outcome)
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Begun(Box::pin(future::ready(Err(refusal))))
    }
}

impl SendsInFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Returns true if a message of this size fits.
    pub(super) fn has_space(&self, bytes: usize) -> bool {
        let has_space = self.sends.len() < SENDS_MAX && self.bytes as usize + bytes <= BYTES_MAX;
        self.is_empty() || has_space && (self.asked as usize) < ASKED_MAX
    }

    /// Adds a message. It is published at once, or after those before it are allowed.
    pub(super) fn push(&mut self, id: CorrelationId, bytes: usize, outcome: BoxFuture<'static, SendAnswer>) {
        if self.asked > 0 {
            return self.push_asked((id, bytes), Box::pin(future::ready(Ok(()))), outcome);
        }
        self.add(id, bytes, SendStage::begin(outcome));
    }

    /// Adds a message about which the application is asked. It is published once that and all before it are allowed.
    pub(super) fn push_asked(
        &mut self,
        (id, bytes): (CorrelationId, usize),
        question: BoxFuture<'static, Permission>,
        outcome: BoxFuture<'static, SendAnswer>,
    ) {
        self.asked += 1;
        self.add(id, bytes, SendStage::Asked(Box::new(AskedSend { question, outcome })));
    }

    /// Adds the refusal of a message, for its turn.
    pub(super) fn push_refused(&mut self, id: CorrelationId, refusal: Refusal) {
        if self.asked > 0 {
            self.asked += 1;
        }
        self.add(id, 0, SendStage::refused(refusal));
    }

    fn add(&mut self, id: CorrelationId, bytes: usize, stage: SendStage) {
        self.bytes += bytes as u32;
        self.sends.push_back(SendInFlight { id, bytes, stage });
    }

    /// Returns true if the application is asked about a message.
    pub(super) fn is_asking(&self) -> bool {
        self.asked > 0
    }

    /// Drops the messages that are not being published, without an answer.
    pub(super) fn abandon_asked(&mut self) {
        let begun = self.sends.len() - self.asked as usize;
        let abandoned: usize = self.sends.drain(begun..).map(|send| send.bytes).sum();
        self.bytes -= abandoned as u32;
        self.asked = 0;
    }

    /// Publishes the messages whose questions are answered, as far as all before them are, and refuses those that the
    /// application refused.
    fn begin_allowed(&mut self, context: &mut Context<'_>) {
        while self.asked > 0 {
            let first = self.sends.len() - self.asked as usize;
            let stage = &mut self.sends[first].stage;
            if let SendStage::Asked(asked) = stage {
                let Poll::Ready(permission) = asked.question.poll_unpin(context) else { return };
                let outcome = mem::replace(&mut asked.outcome, Box::pin(future::pending()));
                *stage = permission.map_or_else(SendStage::refused, |()| SendStage::begin(outcome));
            }
            self.asked -= 1;
        }
    }

    /// Polls for the outcome of the oldest message and removes it. Pending without a message.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(CorrelationId, SendAnswer)> {
        self.begin_allowed(context);
        let Some(oldest) = self.sends.front_mut() else { return Poll::Pending };
        let SendStage::Begun(outcome) = &mut oldest.stage else { return Poll::Pending };
        let outcome = ready!(outcome.poll_unpin(context));
        let (id, bytes) = (oldest.id.take(), oldest.bytes);
        self.bytes -= bytes as u32;
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
    use std::sync::{Arc, Mutex};

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

    /// A message whose publication the test observes, and its number.
    fn observed(number: u32, begun: &Arc<Mutex<Vec<u32>>>) -> BoxFuture<'static, SendAnswer> {
        let begun = Arc::clone(begun);
        Box::pin(async move {
            begun.lock().expect("no panic").push(number);
            Err(ErrorCode::Overloaded.into())
        })
    }

    #[test]
    fn asked_messages_are_published_in_order() {
        let (begun, mut sends) = (Arc::default(), SendsInFlight::default());
        let mut answers = Vec::new();
        for number in 0..3 {
            let (answer, question) = oneshot::channel();
            answers.push(answer);
            let question = Box::pin(async { question.await.expect("the question is answered") });
            sends.push_asked((to_raw_value(&number).ok(), 1), question, observed(number, &begun));
        }
        sends.push(to_raw_value(&3).ok(), 1, observed(3, &begun));
        sends.push_refused(to_raw_value(&4).ok(), ErrorCode::Unavailable.into());
        let [first, second, third] = <[oneshot::Sender<Permission>; 3]>::try_from(answers).expect("three");
        let _ = third.send(Ok(()));
        assert_eq!(next(&mut sends), None, "the first one is not allowed yet");
        assert!(begun.lock().expect("no panic").is_empty(), "a later message overtook");
        let _ = second.send(Err(ErrorCode::NotAllowed.into()));
        let _ = first.send(Ok(()));
        let order: Vec<String> = std::iter::from_fn(|| next(&mut sends)).collect();
        assert_eq!(order, ["0", "1", "2", "3", "4"]);
        assert_eq!(*begun.lock().expect("no panic"), [0, 2, 3], "a refused message is not published");
        assert_eq!((sends.bytes, sends.asked), (0, 0));
    }

    #[test]
    fn abandoned_messages_are_never_published() {
        let (begun, mut sends) = (Arc::default(), SendsInFlight::default());
        let (_undecided, outcome) = message();
        sends.push(to_raw_value(&0).ok(), 1, outcome);
        sends.push_asked((None, 1), Box::pin(future::ready(Ok(()))), observed(1, &begun));
        sends.push(None, 1, observed(2, &begun));
        sends.push_refused(None, ErrorCode::Unavailable.into());
        sends.abandon_asked();
        assert_eq!(next(&mut sends), None);
        assert!(begun.lock().expect("no panic").is_empty());
        assert_eq!((sends.sends.len(), sends.bytes, sends.is_asking()), (1, 1, false), "the first one is under way");
    }

    #[test]
    fn questions_of_a_connection_are_bounded() {
        let mut sends = SendsInFlight::default();
        for _ in 0..ASKED_MAX {
            assert!(sends.has_space(1));
            sends.push_asked((None, 1), Box::pin(future::pending()), message().1);
        }
        assert!(!sends.has_space(1));
    }
}
