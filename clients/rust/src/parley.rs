//! The session of an application.

use std::future::Future;
use std::sync::{Arc, Weak};

use serde::de::IgnoredAny;

use crate::cores::DirectCore;
use crate::direct::Direct;
use crate::engine::Engine;
use crate::error::ParleyError;
use crate::events::{Announcement, DirectEvent, RoomsPage, State, User, UserStatus};
use crate::feed::{Feed, FeedEvent, WhenFull};
use crate::handle::{Handle, HandleCommand, SharedView};
use crate::link::{self, LinkOptions, WireFormat};
use crate::room::Room;
use crate::sign_in::{TokenOptions, TokenSource, TokenText};
use crate::storage::{SavedSession, Storage};
use crate::subscription::Events;
use crate::tls;
use crate::wire::{ClientRequest, INBOX, fold};

/// Options of a session.
#[must_use]
pub struct Options {
    nick: String,
    tokens: TokenOptions,
    storage: Option<Box<dyn Storage>>,
    roots: Option<Vec<u8>>,
    format: WireFormat,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("nick", &self.nick).finish_non_exhaustive()
    }
}

impl Options {
    /// Returns options with the nickname to register under.
    pub fn new(nick: impl Into<String>) -> Self {
        Self {
            nick: nick.into(),
            tokens: TokenOptions::default(),
            storage: None,
            roots: None,
            format: WireFormat::Json,
        }
    }

    /// Returns options without a nickname: the token of the user names it.
    pub fn named_by_token() -> Self {
        Self::new("")
    }

    /// Registers with this token of the user. Without [`get_token`](Self::get_token) the session ends when it expires.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens.token = Some(TokenText(token.into()));
        self
    }

    /// Asks this function for tokens of the user: for the first one if there is no [`token`](Self::token), before a
    /// token expires, and after the server has refused one. There is one question at once. `Ok(None)` is a guest. An
    /// error, a panic, or no answer within 10 seconds, is a failed attempt: the question is repeated after the waiting
    /// time between attempts. A token is never stored, logged or part of an error, and neither is the error of the
    /// function.
    pub fn get_token<F, Fut, E>(mut self, get_token: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<String>, E>> + Send + 'static,
    {
        self.tokens.source = Some(TokenSource::new(get_token));
        self
    }

    /// Keeps the resume token and the positions, so that the session continues in the next run.
    pub fn storage(self, storage: impl Storage) -> Self {
        Self { storage: Some(Box::new(storage)), ..self }
    }

    /// Sends and receives MessagePack in place of JSON: fewer bytes, and nothing else changes.
    pub fn msgpack(self) -> Self {
        Self { format: WireFormat::MessagePack, ..self }
    }

    /// Trusts the certificates in this PEM text for `wss:` addresses, in addition to those of the system.
    #[cfg(feature = "tls")]
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { roots: Some(pem.into()), ..self }
    }
}

/// One session under one nickname. It keeps its connection alive, resumes the session after a loss, and delivers every
/// message of a joined room once and in order.
///
/// Clones are the same session. Dropping the last clone, room, conversation and stream abandons the connection: others
/// see the session leave after 5 seconds, and with a storage the next run continues it. [`close`](Self::close) leaves
/// at once.
///
/// Calls need no check of the state: they wait for the connection, and are repeated until they are answered. A call
/// ends early if its future is dropped, or with the session. A dropped call that was sent may take effect.
#[derive(Debug, Clone)]
pub struct Parley {
    handle: Arc<Handle>,
}

impl Parley {
    /// Begins a session, and returns once it is registered. Temporary failures are retried without a time limit: wrap
    /// the call in [`tokio::time::timeout`] to bound it.
    ///
    /// # Errors
    /// Those of [`start`](Self::start), a refusal of the nickname such as `nick_in_use`, or the reason of another final
    /// [`State::Offline`].
    pub async fn connect<U: Into<String>>(
        urls: impl IntoIterator<Item = U>,
        options: Options,
    ) -> Result<Self, ParleyError> {
        let chat = Self::start(urls, options)?;
        let mut states = chat.states();
        while let Some(state) = states.next().await {
            match state {
                State::Online { .. } => return Ok(chat),
                State::Offline { reason, message, will_retry: false, .. } => {
                    return Err(ParleyError::new(reason, message));
                }
                _ => {}
            }
        }
        Err(ParleyError::closed())
    }

    /// Begins a session, and returns at once. `urls`: addresses of gateways (`ws:` or `wss:`); each failure moves on to
    /// the next.
    ///
    /// # Errors
    /// `bad_request`: there is no address, one is not valid, there is neither a nickname nor a token, no tokio runtime
    /// runs here, a root certificate is malformed, or there is none for a `wss:` address.
    pub fn start<U: Into<String>>(urls: impl IntoIterator<Item = U>, options: Options) -> Result<Self, ParleyError> {
        let urls: Vec<String> = urls.into_iter().map(Into::into).collect();
        urls.iter().try_for_each(|url| link::request(url, WireFormat::Json).map(drop))?;
        if urls.is_empty() {
            return Err(ParleyError::new("bad_request", "no address"));
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| ParleyError::new("bad_request", error.to_string()))?;
        let Options { nick, tokens, mut storage, roots, format } = options;
        if nick.is_empty() && tokens.token.is_none() && tokens.source.is_none() {
            return Err(ParleyError::new("bad_request", "a nickname is needed, unless a token names it"));
        }
        let options = LinkOptions { connector: tls::connector(&urls, roots.as_deref())?, format };
        let saved = storage.as_deref_mut().map(load).unwrap_or_default();
        let (engine, handle) = Engine::new((urls, options), (nick, tokens), saved, storage);
        runtime.spawn(engine.run());
        Ok(Self { handle })
    }

    /// Returns the state of the connection.
    #[must_use]
    pub fn state(&self) -> State {
        self.handle.view().state.clone()
    }

    /// Returns the stream of the present and all later states. It ends after the final one.
    #[must_use]
    pub fn states(&self) -> Events<State> {
        let feed = Feed::new(WhenFull::DropOldest);
        let mut view = self.handle.view();
        feed.push(view.state.clone());
        if view.state.is_final() {
            feed.close();
        }
        view.state_feeds.retain(|feed| feed.strong_count() > 0);
        view.state_feeds.push(Arc::downgrade(&feed));
        drop(view);
        Events::open(feed, self.handle.clone(), "")
    }

    /// Returns the nickname of this session, as the server shows it. It is empty until a token has named it.
    #[must_use]
    pub fn nick(&self) -> String {
        self.handle.view().nick.clone()
    }

    /// Returns the joined rooms, sorted by name.
    #[must_use]
    pub fn joined(&self) -> Vec<Room> {
        let cores: Vec<_> = self.handle.view().rooms.values().cloned().collect();
        cores.into_iter().map(|core| Room::new(core, self.handle.clone())).collect()
    }

    /// Returns the stream of the names of all rooms that the session joins from now on, by any clone. It ends with the
    /// session, and keeps the newest 1,000 names.
    #[must_use]
    pub fn joins(&self) -> Events<String> {
        self.newest(|view| &mut view.join_feeds)
    }

    /// Returns the stream of the notices of the application from now on. It ends with the session, and keeps the newest
    /// 1,000.
    #[must_use]
    pub fn announcements(&self) -> Events<Announcement> {
        self.newest(|view| &mut view.announcement_feeds)
    }

    /// Adds a feed that keeps its newest events, and returns its stream.
    fn newest<T: FeedEvent>(&self, feeds: impl FnOnce(&mut SharedView) -> &mut Vec<Weak<Feed<T>>>) -> Events<T> {
        let feed = Feed::new(WhenFull::DropOldest);
        let mut view = self.handle.view();
        if view.state.is_final() {
            feed.close();
        }
        let feeds = feeds(&mut view);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        drop(view);
        Events::open(feed, self.handle.clone(), "")
    }

    /// Joins a room and loads its members. `history`: number of older messages to load into [`Room::recent`]. A room of
    /// an earlier run continues after the last message that was handled in it.
    ///
    /// A dropped `join` that was sent is completed: the room is then among those of [`joined`](Self::joined).
    ///
    /// # Errors
    /// A refusal such as `bad_room`, or the end of the session.
    pub async fn join(&self, room: &str, history: usize) -> Result<Room, ParleyError> {
        let request = ClientRequest::Join { room: room.to_owned(), since: None };
        let key: String = self.handle.call(request).await?;
        let core = self.handle.view().rooms.get(&key).cloned();
        let core = core.ok_or_else(|| ParleyError::new("not_in_room", "the room was left meanwhile"))?;
        let room = Room::new(core, self.handle.clone());
        room.load_recent(history).await?;
        Ok(room)
    }

    /// Returns the conversation with a nickname; the same one for the same name.
    #[must_use]
    pub fn direct(&self, nick: &str) -> Direct {
        let stored_read = self.handle.stored_read(nick);
        let new = || DirectCore::new(nick.to_owned(), stored_read);
        let core = self.handle.view().directs.entry(fold(nick)).or_insert_with(new).clone();
        Direct::new(core, self.handle.clone())
    }

    /// Returns the stream of the direct messages of all senders, until the session ends. It has no messages of this
    /// session. It alone has those of the application, see [`Message::from_api`](crate::Message::from_api). A session
    /// has one such stream; a new one ends the former.
    #[must_use]
    pub fn directs(&self) -> Events<DirectEvent> {
        let feed = self.handle.view().inbox.clone();
        Events::open(feed, self.handle.clone(), INBOX)
    }

    /// Returns the presence of a user.
    ///
    /// # Errors
    /// `no_such_user`, another refusal, or the end of the session.
    pub async fn whois(&self, nick: &str) -> Result<User, ParleyError> {
        self.handle.call(ClientRequest::Whois { nick: nick.to_owned() }).await
    }

    /// Returns a page of the rooms that have members. `limit`: at most 1,000. `cursor`: `next_cursor` of the page
    /// before.
    ///
    /// # Errors
    /// A refusal, or the end of the session.
    pub async fn rooms(&self, limit: u32, cursor: Option<&str>) -> Result<RoomsPage, ParleyError> {
        self.handle.call(ClientRequest::Rooms { limit, cursor: cursor.map(str::to_owned) }).await
    }

    /// Sets the status of this session. `text`: at most 256 bytes.
    ///
    /// # Errors
    /// A refusal, or the end of the session.
    pub async fn status(&self, status: UserStatus, text: &str) -> Result<(), ParleyError> {
        self.change(ClientRequest::Status { status, text: text.to_owned() }).await
    }

    /// Takes another nickname. A nickname that is held for a session that may return is waited for. After a refused
    /// registration the session begins again under this one.
    ///
    /// # Errors
    /// A refusal such as `nick_in_use`, or the end of the session.
    pub async fn rename(&self, nick: &str) -> Result<(), ParleyError> {
        self.change(ClientRequest::Nick { nick: nick.to_owned() }).await
    }

    /// Waits for an answer of the server: it has executed everything that was sent before.
    ///
    /// # Errors
    /// The end of the session.
    pub async fn ping(&self) -> Result<(), ParleyError> {
        self.change(ClientRequest::Ping).await
    }

    /// Ends the wait for the next attempt at once. While the session is online it checks the connection. Call it when
    /// the network is back.
    pub fn retry(&self) {
        self.handle.command(HandleCommand::Wake);
    }

    /// Ends the session: others see it leave at once, and its nickname is free. Pending calls end with `closed`. The
    /// storage keeps the positions for the next run.
    pub async fn close(&self) {
        // The only error is an engine that has ended already.
        let _ = self.change(ClientRequest::Bye).await;
    }

    async fn change(&self, request: ClientRequest) -> Result<(), ParleyError> {
        self.handle.call::<IgnoredAny>(request).await.map(drop)
    }
}

/// Returns the stored session; a new one if the storage fails.
fn load(storage: &mut (dyn Storage + 'static)) -> SavedSession {
    let loaded = storage.load().and_then(|text| match text {
        Some(text) => serde_json::from_str(&text).map_err(Into::into),
        None => Ok(SavedSession::default()),
    });
    loaded.unwrap_or_else(|error| {
        tracing::warn!(%error, "stored session not loaded, starting a new one");
        SavedSession::default()
    })
}
