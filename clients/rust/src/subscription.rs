//! The stream of events that an application takes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::feed::{Feed, FeedEvent, TakeEffects};
use crate::handle::{Handle, HandleCommand};

/// A stream of events. An event counts as handled when the next one is requested, or when the stream is dropped.
///
/// A room, a conversation or a session has one stream of a kind: a new one continues where the former stopped, and ends
/// it. [`next`](Self::next) and the [`Stream`] lose no event if they are cancelled.
#[derive(Debug)]
pub struct Events<T> {
    feed: Arc<Feed<T>>,
    handle: Arc<Handle>,
    /// Key of the stream of the session.
    key: String,
    number: u64,
}

impl<T> Events<T> {
    pub(crate) fn open(feed: Arc<Feed<T>>, handle: Arc<Handle>, key: &str) -> Self {
        let number = feed.open();
        Self { feed, handle, key: key.to_owned(), number }
    }

    fn report(&self, effects: &TakeEffects) {
        if effects.is_released {
            self.handle.command(HandleCommand::Handled);
        }
        if effects.is_relieved {
            self.handle.command(HandleCommand::Relieved(self.key.clone()));
        }
    }
}

#[allow(private_bounds)] // The events are those of this crate.
impl<T: FeedEvent> Events<T> {
    /// Waits for the next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        let (event, effects) = self.feed.poll(self.number, context);
        self.report(&effects);
        event
    }
}

#[allow(private_bounds)]
impl<T: FeedEvent> Stream for Events<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll(context)
    }
}

impl<T> Drop for Events<T> {
    fn drop(&mut self) {
        self.report(&self.feed.leave(self.number));
    }
}
