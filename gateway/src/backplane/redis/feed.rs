//! The bounded queue between the task that reads our subscription's socket and the task that delivers.
//!
//! redis-rs hands every push to a closure on its own reading task; a slow delivery must not stop that task, and an
//! unbounded queue would take the place of Redis's own limit for slow subscribers. When the queue is full the feed ends:
//! what was queued still comes out, then the connection is made anew and everybody learns that something is missing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

/// Most messages that may wait.
const MESSAGES: usize = 64 * 1024;
/// Most bytes that may wait.
const BYTES: usize = 32 * 1024 * 1024;
/// Messages taken at once: enough to save wake-ups, few enough to let wishes through between two rounds.
const ROUND: usize = 256;

/// What came over a channel.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) channel: Vec<u8>,
    pub(super) text: Vec<u8>,
}

impl Message {
    fn size(&self) -> usize {
        self.channel.len() + self.text.len()
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Feed {
    queue: mpsc::Receiver<Message>,
    waiting: Arc<AtomicUsize>,
}

/// The feed is over: the connection is gone, or more came than we could deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Makes a feed and the closure that fills it. The closure never blocks; it ends the feed when the queue is full.
pub(super) fn feed() -> (impl Fn(PushInfo) -> Result<(), Ended> + Send + Sync + 'static, Feed) {
    bounded(MESSAGES, BYTES)
}

fn bounded(messages: usize, bytes: usize) -> (impl Fn(PushInfo) -> Result<(), Ended> + Send + Sync + 'static, Feed) {
    let (sender, queue) = mpsc::channel(messages);
    let waiting = Arc::new(AtomicUsize::new(0));
    let feed = Feed { queue, waiting: waiting.clone() };
    // Taken out once the feed has ended, so that nothing can come after a gap.
    let sender = Mutex::new(Some(sender));
    let push = move |push: PushInfo| {
        let Some(message) = message(push) else {
            return Ok(());
        };
        let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sender.as_ref().ok_or(Ended)?;
        let before = waiting.fetch_add(message.size(), Ordering::Relaxed);
        let fits = before + message.size() <= bytes || before == 0;
        if fits && open.try_send(message).is_ok() {
            return Ok(());
        }
        *sender = None;
        Err(Ended)
    };
    (push, feed)
}

fn message(push: PushInfo) -> Option<Message> {
    if push.kind != PushKind::Message {
        return None;
    }
    match <[Value; 2]>::try_from(push.data) {
        Ok([Value::BulkString(channel), Value::BulkString(text)]) => Some(Message { channel, text }),
        _ => None,
    }
}

impl Feed {
    /// Waits for messages and takes some of them, in order. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Ended`], once everything that had been queued was taken.
    pub(super) async fn next(&mut self) -> Result<Vec<Message>, Ended> {
        let mut round = Vec::new();
        if self.queue.recv_many(&mut round, ROUND).await == 0 {
            return Err(Ended);
        }
        self.waiting.fetch_sub(round.iter().map(Message::size).sum(), Ordering::Relaxed);
        Ok(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec()), Value::BulkString(text.as_bytes().to_vec())];
        PushInfo { kind: PushKind::Message, data }
    }

    async fn drain(feed: &mut Feed) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(round) = feed.next().await {
            texts.extend(round.into_iter().map(|message| String::from_utf8_lossy(&message.text).into_owned()));
        }
        texts
    }

    #[tokio::test]
    async fn a_full_queue_ends_the_feed_after_what_was_queued() {
        let (sender, mut feed) = bounded(2, 1000);
        assert_eq!([sender(push("1")), sender(push("2")), sender(push("3"))], [Ok(()), Ok(()), Err(Ended)]);
        assert_eq!(feed.next().await.map(|round| round.len()), Ok(2));
        assert_eq!(sender(push("4")), Err(Ended), "nothing comes after a gap, even with room again");
        assert_eq!(drain(&mut feed).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn bytes_are_bounded_but_one_message_always_fits() {
        let (sender, mut feed) = bounded(100, 10);
        let big = "x".repeat(50);
        assert_eq!(sender(push(&big)), Ok(()));
        assert_eq!(feed.next().await.map(|round| round.len()), Ok(1));
        assert_eq!([sender(push("12345678")), sender(push("9"))], [Ok(()), Err(Ended)]);
        assert_eq!(drain(&mut feed).await, ["12345678"]);
    }

    #[tokio::test]
    async fn the_feed_ends_with_its_connection_and_skips_other_pushes() {
        let (sender, mut feed) = bounded(4, 100);
        assert_eq!(sender(PushInfo { kind: PushKind::Subscribe, data: vec![] }), Ok(()));
        assert_eq!(sender(PushInfo { kind: PushKind::Message, data: vec![Value::Nil] }), Ok(()));
        assert_eq!(sender(push("1")), Ok(()));
        drop(sender);
        assert_eq!(drain(&mut feed).await, ["1"]);
    }
}
