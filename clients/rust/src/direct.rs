//! A direct conversation with one nickname.

use std::sync::Arc;

use serde::Serialize;

use crate::cores::{DirectCore, lock};
use crate::error::ParleyError;
use crate::events::{Ack, DirectEvent};
use crate::handle::Handle;
use crate::room::{send, typing};
use crate::subscription::Events;
use crate::wire::{ClientRequest, INBOX};

/// A direct conversation with one nickname. Clones are the same conversation.
#[derive(Debug, Clone)]
pub struct Direct {
    core: Arc<DirectCore>,
    handle: Arc<Handle>,
}

impl Direct {
    pub(crate) fn new(core: Arc<DirectCore>, handle: Arc<Handle>) -> Self {
        Self { core, handle }
    }

    /// Returns the nickname of the other side.
    #[must_use]
    pub fn nick(&self) -> &str {
        &self.core.nick
    }

    /// Sends a message, as [`Room::send`](crate::Room::send) does. [`Ack::delivered`] tells if the receiver is
    /// connected; otherwise the message waits in its inbox.
    ///
    /// # Errors
    /// Those of [`Room::send`](crate::Room::send), and `no_such_user`.
    pub async fn send(&self, body: impl Serialize) -> Result<Ack, ParleyError> {
        let key = self.handle.new_key();
        self.send_once(body, key).await
    }

    /// Sends a message under an idempotency key, as [`Room::send_once`](crate::Room::send_once) does.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub async fn send_once(&self, body: impl Serialize, key: impl Into<String>) -> Result<Ack, ParleyError> {
        send(&self.handle, &self.core.nick, body, key.into()).await
    }

    /// Reports typing to the other side. It does nothing while the connection is lost.
    pub fn typing(&self) {
        typing(&self.handle, &self.core.nick);
    }

    /// Returns the stream of the messages of both sides since the first call of
    /// [`Parley::direct`](crate::Parley::direct). A new stream ends the former. While no stream is open, the
    /// conversation keeps the newest 1,000 events.
    #[must_use]
    pub fn events(&self) -> Events<DirectEvent> {
        Events::open(self.core.feed.clone(), self.handle.clone(), INBOX)
    }

    /// Returns the number of received messages after the read mark, at most 1,000.
    #[must_use]
    pub fn unread(&self) -> usize {
        lock(&self.core.mark).unread()
    }

    /// Returns the read mark: messages above this position in the inbox are unread.
    #[must_use]
    pub fn read_seq(&self) -> u64 {
        lock(&self.core.mark).read_seq
    }

    /// Marks all received messages as read, here and on the server.
    pub fn read(&self) {
        self.read_up_to(u64::MAX);
    }

    /// Marks messages up to `seq` as read.
    pub fn read_up_to(&self, seq: u64) {
        let mut mark = lock(&self.core.mark);
        if mark.read(seq) {
            let seq = mark.read_seq;
            drop(mark);
            self.handle.store_read(&self.core.nick, seq);
            self.handle.post(ClientRequest::Read { to: INBOX.to_owned(), seq });
        }
    }
}
