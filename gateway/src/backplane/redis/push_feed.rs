//! The bounded queue between the task that reads the subscription's socket and the task that delivers.
//!
//! redis-rs passes every push to a closure on its reading task, which a slow delivery must not block. An unbounded
//! queue would defeat Redis's own limit for slow subscribers. [`PushFeed`] is the reading end. Invariant: when the
//! queue is full the feed ends after the queued messages, so nothing arrives behind a gap. Reconnecting is the
//! subscriber's job.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

/// Maximum number of queued messages.
const QUEUE_MESSAGES_MAX: usize = 64 * 1024;
/// Maximum size of the queued messages.
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum number of messages in one batch: enough to save wake-ups, few enough to handle requests between two batches.
const BATCH_MESSAGES_MAX: usize = 256;

/// A message of a channel.
#[derive(Debug)]
pub(super) struct PushMessage {
    pub(super) channel: Vec<u8>,
    pub(super) text: Vec<u8>,
}

impl PushMessage {
    fn size(&self) -> usize {
        self.channel.len() + self.text.len()
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct PushFeed {
    queue: mpsc::Receiver<PushMessage>,
    waiting: Arc<AtomicUsize>,
}

/// The end of a feed: the connection closed, or the queue was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FeedEnded;

/// Returns a feed and the closure that fills it. The closure never blocks; it ends the feed when the queue is full.
pub(super) fn feed() -> (impl Fn(PushInfo) -> Result<(), FeedEnded> + Send + Sync + 'static, PushFeed) {
    bounded(QUEUE_MESSAGES_MAX, QUEUE_BYTES_MAX)
}

fn bounded(
    messages: usize,
    bytes: usize,
) -> (impl Fn(PushInfo) -> Result<(), FeedEnded> + Send + Sync + 'static, PushFeed) {
    let (sender, queue) = mpsc::channel(messages);
    let waiting = Arc::new(AtomicUsize::new(0));
    let feed = PushFeed { queue, waiting: waiting.clone() };
    // `None` once the feed has ended, so that nothing can follow a gap.
    let sender = Mutex::new(Some(sender));
    let push = move |push: PushInfo| {
        let Some(message) = message(push) else {
            return Ok(());
        };
        let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sender.as_ref().ok_or(FeedEnded)?;
        let before = waiting.fetch_add(message.size(), Ordering::Relaxed);
        let fits = before + message.size() <= bytes || before == 0;
        if fits && open.try_send(message).is_ok() {
            return Ok(());
        }
        *sender = None;
        Err(FeedEnded)
    };
    (push, feed)
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
    /// Waits for messages and returns a batch of them, in order. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`FeedEnded`], once every queued message was returned.
    pub(super) async fn next(&mut self) -> Result<Vec<PushMessage>, FeedEnded> {
        let mut batch = Vec::new();
        if self.queue.recv_many(&mut batch, BATCH_MESSAGES_MAX).await == 0 {
            return Err(FeedEnded);
        }
        self.waiting.fetch_sub(batch.iter().map(PushMessage::size).sum(), Ordering::Relaxed);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec()), Value::BulkString(text.as_bytes().to_vec())];
        PushInfo { kind: PushKind::Message, data }
    }

    async fn take_all(feed: &mut PushFeed) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(batch) = feed.next().await {
            texts.extend(batch.into_iter().map(|message| String::from_utf8_lossy(&message.text).into_owned()));
        }
        texts
    }

    #[tokio::test]
    async fn full_queue_ends_feed_after_queued_messages() {
        let (sender, mut feed) = bounded(2, 1000);
        assert_eq!([sender(push("1")), sender(push("2")), sender(push("3"))], [Ok(()), Ok(()), Err(FeedEnded)]);
        assert_eq!(feed.next().await.map(|batch| batch.len()), Ok(2));
        assert_eq!(sender(push("4")), Err(FeedEnded), "a message after a gap is refused, even with space again");
        assert_eq!(take_all(&mut feed).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn queue_bounds_bytes_but_accepts_any_single_message() {
        let (sender, mut feed) = bounded(100, 10);
        let big = "x".repeat(50);
        assert_eq!(sender(push(&big)), Ok(()));
        assert_eq!(feed.next().await.map(|batch| batch.len()), Ok(1));
        assert_eq!([sender(push("12345678")), sender(push("9"))], [Ok(()), Err(FeedEnded)]);
        assert_eq!(take_all(&mut feed).await, ["12345678"]);
    }

    #[tokio::test]
    async fn feed_ends_with_connection_and_skips_other_pushes() {
        let (sender, mut feed) = bounded(4, 100);
        assert_eq!(sender(PushInfo { kind: PushKind::Subscribe, data: vec![] }), Ok(()));
        assert_eq!(sender(PushInfo { kind: PushKind::Message, data: vec![Value::Nil] }), Ok(()));
        assert_eq!(sender(push("1")), Ok(()));
        drop(sender);
        assert_eq!(take_all(&mut feed).await, ["1"]);
    }
}
