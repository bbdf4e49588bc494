//! The messages of the subscription's connection, read by the task that delivers them.
//!
//! redis-rs passes every push to a closure while it reads the connection. Usually a task of its own reads; here
//! [`PushFeed::next`] does, so a message reaches the hub without another task. Invariant: nothing is read while
//! messages wait, so Redis bounds what a slow gateway has not read and then closes its connection. Reconnecting is the
//! subscriber's job.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use redis::{PushInfo, PushKind, RedisResult, Value};

/// Maximum number of messages in one batch: enough to save writes, few enough to handle requests between two batches.
pub(super) const BATCH_MESSAGES_MAX: usize = 64;

/// A message of a channel.
#[derive(Debug)]
pub(super) struct PushMessage {
    pub(super) channel: Vec<u8>,
    pub(super) text: Vec<u8>,
}

/// The messages that are read and not returned yet, oldest first. Tokio ends a poll after 128 reads, which bounds them.
#[derive(Debug, Clone, Default)]
pub(super) struct ReceivedPushes(Arc<Mutex<VecDeque<PushMessage>>>);

/// The reading end.
pub(super) struct PushFeed {
    received: ReceivedPushes,
    /// Reads and writes the connection. `None` once that is closed.
    driver: Option<BoxFuture<'static, ()>>,
}

/// The end of a feed: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FeedEnded;

impl ReceivedPushes {
    /// Returns the closure that receives the pushes of a connection. It never blocks.
    pub(super) fn receiver(&self) -> impl Fn(PushInfo) -> RedisResult<()> + Send + Sync + use<> {
        let received = self.clone();
        move |push| {
            received.lock().extend(message(push));
            Ok(())
        }
    }

    fn take_batch(&self) -> Option<Vec<PushMessage>> {
        let mut received = self.lock();
        let messages = received.len().min(BATCH_MESSAGES_MAX);
        (messages > 0).then(|| received.drain(..messages).collect())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<PushMessage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(push: PushInfo) -> Option<PushMessage> {
    if push.kind != PushKind::Message {
        return None;
    }
    match <[Value; 2]>::try_from(push.data) {
        Ok([Value::BulkString(channel), Value::BulkString(text)]) => Some(PushMessage { channel, text }),
        _ => None,
    }
}

impl PushFeed {
    /// Reads the connection of `driver`, whose pushes go to [`ReceivedPushes::receiver`].
    pub(super) fn new(received: ReceivedPushes, driver: BoxFuture<'static, ()>) -> Self {
        Self { received, driver: Some(driver) }
    }

    /// Waits for messages and returns a batch of them, in order. Commands on the connection are sent and answered only
    /// while it waits. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`FeedEnded`], once every received message was returned.
    pub(super) async fn next(&mut self) -> Result<Vec<PushMessage>, FeedEnded> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<PushMessage>, FeedEnded>> {
        if let Some(batch) = self.received.take_batch() {
            return Poll::Ready(Ok(batch));
        }
        let Some(driver) = &mut self.driver else { return Poll::Ready(Err(FeedEnded)) };
        if driver.as_mut().poll(cx).is_ready() {
            self.driver = None;
        }
        match (self.received.take_batch(), &self.driver) {
            (Some(batch), _) => Poll::Ready(Ok(batch)),
            (None, None) => Poll::Ready(Err(FeedEnded)),
            (None, Some(_)) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    fn push(text: &str) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec()), Value::BulkString(text.as_bytes().to_vec())];
        PushInfo { kind: PushKind::Message, data }
    }

    /// Returns a feed whose connection reads the pushes of the other end until that is dropped. Its commands are not
    /// simulated.
    fn connected() -> (mpsc::UnboundedSender<PushInfo>, PushFeed) {
        let (connection, mut reads) = mpsc::unbounded_channel();
        let received = ReceivedPushes::default();
        let receive = received.receiver();
        let driver = async move {
            while let Some(push) = reads.recv().await {
                receive(push).expect("a push is always accepted");
            }
        };
        (connection, PushFeed::new(received, driver.boxed()))
    }

    /// Returns the texts of the next batch if one has arrived.
    fn next_texts(feed: &mut PushFeed) -> Option<Result<Vec<String>, FeedEnded>> {
        let text = |message: PushMessage| String::from_utf8(message.text).expect("a text");
        Some(feed.next().now_or_never()?.map(|batch| batch.into_iter().map(text).collect()))
    }

    #[test]
    fn feed_returns_bounded_batches_in_order() {
        let (connection, mut feed) = connected();
        let texts = Vec::from_iter((0..BATCH_MESSAGES_MAX + 2).map(|number| number.to_string()));
        assert_eq!(next_texts(&mut feed), None);
        texts.iter().for_each(|text| connection.send(push(text)).expect("the feed reads"));
        assert_eq!(next_texts(&mut feed), Some(Ok(texts[..BATCH_MESSAGES_MAX].to_vec())));
        connection.send(push("later")).expect("the feed reads");
        assert_eq!(next_texts(&mut feed), Some(Ok(texts[BATCH_MESSAGES_MAX..].to_vec())), "nothing is read meanwhile");
        assert_eq!(next_texts(&mut feed), Some(Ok(vec!["later".to_owned()])));
        assert_eq!(next_texts(&mut feed), None);
    }

    #[test]
    fn feed_ends_with_connection_and_skips_other_pushes() {
        let (connection, mut feed) = connected();
        let others = [(PushKind::Subscribe, vec![]), (PushKind::Message, vec![Value::Nil])];
        let others = others.map(|(kind, data)| PushInfo { kind, data });
        others.into_iter().chain([push("1")]).for_each(|push| connection.send(push).expect("the feed reads"));
        drop(connection);
        assert_eq!(next_texts(&mut feed), Some(Ok(vec!["1".to_owned()])));
        assert_eq!([next_texts(&mut feed), next_texts(&mut feed)], [const { Some(Err(FeedEnded)) }; 2]);
    }
}
