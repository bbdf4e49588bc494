//! The side of the application: commands to the engine, and the state that it publishes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::cores::{DirectCore, RoomCore, lock};
use crate::error::ParleyError;
use crate::events::{Announcement, DirectEvent, State};
use crate::feed::{Feed, WhenFull};
use crate::machine::CallId;
use crate::wire::{ClientRequest, fold};

/// A command of the application to the engine.
#[derive(Debug)]
pub(crate) enum HandleCommand {
    Call(CallId, ClientRequest, oneshot::Sender<Result<Value, ParleyError>>),
    Abort(CallId),
    Notify(ClientRequest),
    /// An event was handled, or a read mark moved.
    Handled,
    /// A paused feed of this stream can take events again.
    Relieved(String),
    Wake,
}

/// The common part of all values that keep a session alive.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<HandleCommand>,
    shared: Arc<Mutex<SharedView>>,
    calls: AtomicU64,
    /// Keys must differ among the runs of one session.
    key_prefix: u64,
}

/// The published state of a session.
#[derive(Debug)]
pub(crate) struct SharedView {
    pub(crate) state: State,
    pub(crate) nick: String,
    /// Joined rooms by key, and rooms that ended with the session, whose events may still be taken.
    pub(crate) rooms: BTreeMap<String, Arc<RoomCore>>,
    pub(crate) ended_rooms: BTreeMap<String, Arc<RoomCore>>,
    pub(crate) directs: BTreeMap<String, Arc<DirectCore>>,
    /// Direct messages of all senders.
    pub(crate) inbox: Arc<Feed<DirectEvent>>,
    pub(crate) state_feeds: Vec<Weak<Feed<State>>>,
    /// Streams of the names of joined rooms.
    pub(crate) join_feeds: Vec<Weak<Feed<String>>>,
    pub(crate) announcement_feeds: Vec<Weak<Feed<Announcement>>>,
    /// Read marks by the key of the conversation.
    pub(crate) read: BTreeMap<String, u64>,
}

impl SharedView {
    pub(crate) fn new(nick: String, read: BTreeMap<String, u64>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            state: State::Connecting,
            nick,
            rooms: BTreeMap::new(),
            ended_rooms: BTreeMap::new(),
            directs: BTreeMap::new(),
            inbox: Feed::new(WhenFull::PauseIfOpen),
            state_feeds: Vec::new(),
            join_feeds: Vec::new(),
            announcement_feeds: Vec::new(),
            read,
        }))
    }
}

impl Handle {
    pub(crate) fn new(commands: mpsc::UnboundedSender<HandleCommand>, shared: Arc<Mutex<SharedView>>) -> Arc<Self> {
        Arc::new(Self { commands, shared, calls: AtomicU64::new(0), key_prefix: rand::random() })
    }

    /// Locks the published state.
    pub(crate) fn view(&self) -> MutexGuard<'_, SharedView> {
        lock(&self.shared)
    }

    /// Sends a command. After the end of the engine it has no effect.
    pub(crate) fn command(&self, command: HandleCommand) {
        let _ = self.commands.send(command);
    }

    /// Returns a new idempotency key.
    pub(crate) fn new_key(&self) -> String {
        format!("{:016x}-{}", self.key_prefix, self.next_id())
    }

    fn next_id(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a request and waits for its reply. Dropping the future aborts the call.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: ClientRequest) -> Result<T, ParleyError> {
        let (answer, mut answered) = oneshot::channel();
        let id = self.next_id();
        self.command(HandleCommand::Call(id, request, answer));
        let mut abort = AbortOnDrop { handle: self, id: Some(id) };
        let outcome = (&mut answered).await;
        abort.id = None;
        let reply = outcome.unwrap_or_else(|_| Err(ParleyError::closed()))?;
        serde_json::from_value(reply).map_err(|error| ParleyError::new("internal", format!("malformed reply: {error}")))
    }

    /// Begins a request whose outcome is of no interest.
    pub(crate) fn post(&self, request: ClientRequest) {
        self.command(HandleCommand::Call(self.next_id(), request, oneshot::channel().0));
    }

    /// Returns the stored read mark of a conversation.
    pub(crate) fn stored_read(&self, target: &str) -> Option<u64> {
        self.view().read.get(&fold(target)).copied()
    }

    /// Stores a read mark.
    pub(crate) fn store_read(&self, target: &str, seq: u64) {
        self.view().read.insert(fold(target), seq);
        self.command(HandleCommand::Handled);
    }
}

/// Aborts a call that nothing awaits any more.
struct AbortOnDrop<'a> {
    handle: &'a Handle,
    id: Option<CallId>,
}

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.handle.command(HandleCommand::Abort(id));
        }
    }
}
