//! A joined room.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::cores::{RoomCore, lock};
use crate::error::ParleyError;
use crate::events::{Ack, History, Member, Message, MessagePage, RoomEvent};
use crate::handle::{Handle, HandleCommand};
use crate::machine::message_of;
use crate::subscription::Events;
use crate::wire::{ClientRequest, HistoryFrame};

/// Number of messages in a page of history.
const HISTORY_PAGE: u32 = 50;
/// Maximum of it.
const HISTORY_PAGE_MAX: u32 = 200;

/// A joined room. Clones are the same room.
#[derive(Debug, Clone)]
pub struct Room {
    core: Arc<RoomCore>,
    handle: Arc<Handle>,
}

impl Room {
    pub(crate) fn new(core: Arc<RoomCore>, handle: Arc<Handle>) -> Self {
        Self { core, handle }
    }

    /// Returns the name with its `#`, as the server shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Sends a message: any JSON value. Returns once it is stored.
    ///
    /// The send has a key and is repeated over lost connections and temporary refusals, until it is answered or the
    /// future is dropped. A dropped send may have been stored. Messages to one target are stored in the order in which
    /// their futures are first polled.
    ///
    /// # Errors
    /// A refusal, or the end of the session. `outcome_unknown`: the message may have been stored, but the session of
    /// the first attempt is lost, or no answer came in four minutes. `bad_request`: the body has no JSON.
    pub async fn send(&self, body: impl Serialize) -> Result<Ack, ParleyError> {
        let key = self.handle.new_key();
        self.send_once(body, key).await
    }

    /// Sends a message under an idempotency key of 1 to 64 bytes. The session stores it once, also if another run of
    /// the program repeats it within five minutes. In other respects it is like [`send`](Self::send).
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub async fn send_once(&self, body: impl Serialize, key: impl Into<String>) -> Result<Ack, ParleyError> {
        send(&self.handle, &self.core.name, body, key.into()).await
    }

    /// Reports typing to the other members. It does nothing while the connection is lost. Call it as often as you like:
    /// the server forwards one report in 3 seconds.
    pub fn typing(&self) {
        typing(&self.handle, &self.core.name);
    }

    /// Returns the stream of all events: those since the `join`, or since the last event that a stream has taken. A
    /// room has one stream; a new one ends the former. It ends after the last event when the room is left or the
    /// session ends.
    ///
    /// While 1,000 events wait, the room pauses. It continues without a loss once they are taken.
    #[must_use]
    pub fn events(&self) -> Events<RoomEvent> {
        Events::open(self.core.feed.clone(), self.handle.clone(), &self.core.key)
    }

    /// Returns the stream of the messages. It is that of [`events`](Self::events) without other events and without
    /// [`repeated`](Message::repeated) messages.
    #[must_use]
    pub fn messages(&self) -> RoomMessages {
        RoomMessages { events: self.events() }
    }

    /// Returns the messages from before the first event, oldest first: as many as `join` asked for.
    #[must_use]
    pub fn recent(&self) -> Vec<Message> {
        lock(&self.core.view).recent.clone()
    }

    /// Returns the members by nickname.
    #[must_use]
    pub fn members(&self) -> BTreeMap<String, Member> {
        lock(&self.core.view).members.clone()
    }

    /// Returns the seq of the last received message.
    #[must_use]
    pub fn seq(&self) -> u64 {
        lock(&self.core.view).mark.seq
    }

    /// Returns the number of received messages of others after the read mark, at most 1,000.
    #[must_use]
    pub fn unread(&self) -> usize {
        lock(&self.core.view).mark.unread()
    }

    /// Returns the read mark: messages above this seq are unread.
    #[must_use]
    pub fn read_seq(&self) -> u64 {
        lock(&self.core.view).mark.read_seq
    }

    /// Marks all received messages as read. The mark is kept in the storage.
    pub fn read(&self) {
        self.read_up_to(u64::MAX);
    }

    /// Marks messages up to `seq` as read.
    pub fn read_up_to(&self, seq: u64) {
        let mut view = lock(&self.core.view);
        if view.mark.read(seq) {
            let read_seq = view.mark.read_seq;
            drop(view);
            self.handle.store_read(&self.core.name, read_seq);
        }
    }

    /// Returns up to 50 messages of the room, oldest first.
    ///
    /// # Errors
    /// A refusal, such as `not_in_room`, or the end of the session.
    pub async fn history(&self, part: History) -> Result<MessagePage, ParleyError> {
        self.page(part, HISTORY_PAGE).await
    }

    async fn page(&self, part: History, limit: u32) -> Result<MessagePage, ParleyError> {
        let (before, after) = match part {
            History::Newest => (None, None),
            History::Before(seq) => (Some(seq), None),
            History::After(seq) => (None, Some(seq)),
        };
        let request = ClientRequest::History { to: self.core.name.clone(), limit, before, after };
        let frame: HistoryFrame = self.handle.call(request).await?;
        let nick = self.handle.view().nick.clone();
        let items = frame.items.into_iter().map(|item| {
            let own = item.is_under(&nick);
            message_of(item, own, false)
        });
        Ok(MessagePage { items: items.collect(), more: frame.more })
    }

    /// Loads messages from before the first event, unless they are loaded.
    pub(crate) async fn load_recent(&self, count: usize) -> Result<(), ParleyError> {
        let (mut before, is_loaded) = {
            let view = lock(&self.core.view);
            (view.start.saturating_add(1), !view.recent.is_empty())
        };
        let (mut recent, mut more) = (Vec::new(), !is_loaded);
        while more && recent.len() < count {
            let missing = u32::try_from(count - recent.len()).unwrap_or(u32::MAX);
            let page = self.page(History::Before(before), missing.min(HISTORY_PAGE_MAX)).await?;
            let first = page.items.first().and_then(|message| message.seq);
            more = page.more && first.is_some();
            before = first.unwrap_or(before);
            recent.splice(0..0, page.items);
        }
        if !is_loaded {
            let mut view = lock(&self.core.view);
            // A rewind may have come meanwhile.
            recent.retain(|message: &Message| message.seq <= Some(view.start));
            view.recent = recent;
        }
        Ok(())
    }

    /// Leaves the room. Dropping the future ends only the waiting, if the request was sent.
    ///
    /// # Errors
    /// The end of the session.
    pub async fn leave(&self) -> Result<(), ParleyError> {
        let request = ClientRequest::Leave { room: self.core.name.clone() };
        self.handle.call::<serde::de::IgnoredAny>(request).await.map(drop)
    }
}

/// Sends a message to a room or a nickname.
pub(crate) async fn send(handle: &Handle, to: &str, body: impl Serialize, key: String) -> Result<Ack, ParleyError> {
    let body = serde_json::to_value(body).map_err(|error| ParleyError::new("bad_request", error.to_string()))?;
    handle.call(ClientRequest::Send { to: to.to_owned(), body, key }).await
}

/// Reports typing to a room or a nickname.
pub(crate) fn typing(handle: &Handle, to: &str) {
    handle.command(HandleCommand::Notify(ClientRequest::Typing { to: to.to_owned() }));
}

/// The messages of a room, without the repeated ones.
#[derive(Debug)]
pub struct RoomMessages {
    events: Events<RoomEvent>,
}

impl RoomMessages {
    /// Waits for the next message; `None` after the last one. A message counts as handled when the next one is
    /// requested. Cancelling loses none.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match self.events.next().await? {
                RoomEvent::Message(message) if !message.repeated => return Some(message),
                _ => {}
            }
        }
    }
}
