//! A person that chats through the client library for Rust, which resumes sessions and repeats requests by itself.
//!
//! For stories. Tasks record what the library delivers, with the time of arrival, and expectations search the records.
//! Tests of precise frames, close codes and refusals use [`WsClient`](super::WsClient).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parley_client::{
    Ack, DirectEvent, Events, History, MembersChange, Message, Options, Parley, ParleyError, Room, RoomEvent, State,
};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::RESPONSE_TIMEOUT;
use super::transcript::{ReceivedItem, Transcript};

/// Everything that the library delivered to a person.
#[derive(Debug)]
struct PersonRecords {
    /// Messages of rooms, and direct ones.
    messages: Transcript<Message>,
    /// Changes of the members, by room.
    changes: Transcript<(String, MembersChange)>,
    /// States of the connection; the first one is that of the registration.
    states: Transcript<State>,
}

/// A session of the client library. Dropping it abandons the connection without a `bye`.
#[derive(Debug)]
pub struct Person {
    chat: Parley,
    /// Rooms by the name that joined them, also after their end.
    rooms: Mutex<BTreeMap<String, Room>>,
    records: Arc<PersonRecords>,
    recorders: Mutex<JoinSet<()>>,
}

impl Person {
    /// Registers a nickname at the first of these gateways. The library moves on to the others by itself.
    ///
    /// # Panics
    /// If the nickname is refused, or not registered in time.
    pub async fn connect(gateways: impl IntoIterator<Item = SocketAddr>, nick: &str) -> Self {
        Self::try_connect(gateways, nick).await.unwrap_or_else(|error| panic!("{nick} was refused: {error}"))
    }

    /// Registers a nickname; may be refused.
    ///
    /// # Errors
    /// The final refusal. The library repeats the request after a temporary one.
    ///
    /// # Panics
    /// If there is no final answer in time.
    pub async fn try_connect(gateways: impl IntoIterator<Item = SocketAddr>, nick: &str) -> Result<Self, ParleyError> {
        let urls = gateways.into_iter().map(|gateway| format!("ws://{gateway}/ws"));
        let connecting = timeout(RESPONSE_TIMEOUT, Parley::connect(urls, Options::new(nick)));
        let chat = connecting.await.unwrap_or_else(|_| panic!("{nick} is not registered in time"))?;
        let records = Arc::new(PersonRecords {
            messages: Transcript::new(),
            changes: Transcript::new(),
            states: Transcript::new(),
        });
        let mut recorders = JoinSet::new();
        recorders.spawn(record_states(chat.states(), records.clone()));
        recorders.spawn(record_directs(chat.directs(), records.clone()));
        Ok(Self { chat, rooms: Mutex::default(), records, recorders: Mutex::new(recorders) })
    }

    /// Returns the session, for requests without a method here.
    #[must_use]
    pub fn chat(&self) -> &Parley {
        &self.chat
    }

    /// Returns the name of the gateway that serves the session.
    ///
    /// # Panics
    /// If the session is not connected.
    #[must_use]
    pub fn node(&self) -> String {
        match self.chat.state() {
            State::Online { node, .. } => node,
            state => panic!("{} is not connected: {state:?}", self.chat.nick()),
        }
    }

    /// Joins a room.
    ///
    /// # Panics
    /// If the join is refused, or not answered in time.
    pub async fn join(&self, name: &str) -> Room {
        let room = self.answer("join", self.chat.join(name, 0)).await;
        let recording = record_room(name.to_owned(), room.events(), self.records.clone());
        lock(&self.recorders).spawn(recording);
        lock(&self.rooms).insert(name.to_owned(), room.clone());
        room
    }

    /// Returns a room that was joined under this name.
    ///
    /// # Panics
    /// If it was never joined.
    #[must_use]
    pub fn room(&self, name: &str) -> Room {
        lock(&self.rooms).get(name).unwrap_or_else(|| panic!("{} never joined {name}", self.chat.nick())).clone()
    }

    /// Sends a message to a room or a nickname, and returns its ack.
    ///
    /// # Panics
    /// If the message is refused, or not stored in time.
    pub async fn sends(&self, to: &str, body: impl Serialize) -> Ack {
        self.answer("send", self.try_send(to, body)).await
    }

    /// Sends a message; may be refused.
    ///
    /// # Errors
    /// The final refusal. The library repeats the request after a temporary one, without a time limit.
    pub async fn try_send(&self, to: &str, body: impl Serialize) -> Result<Ack, ParleyError> {
        match to.starts_with('#') {
            true => self.room(to).send(body).await,
            false => self.chat.direct(to).send(body).await,
        }
    }

    /// Returns the newest 50 messages of a room from the server, oldest first.
    pub async fn history(&self, room: &str) -> Vec<Message> {
        let room = self.room(room);
        self.answer("history", room.history(History::Newest)).await.items
    }

    /// Returns the nicknames in a room, sorted, as the library keeps them.
    #[must_use]
    pub fn members(&self, room: &str) -> Vec<String> {
        self.room(room).members().into_keys().collect()
    }

    /// Ends the session with a `bye`.
    pub async fn bye(&self) {
        let bye = async {
            self.chat.close().await;
            Ok(())
        };
        self.answer("bye", bye).await;
    }

    /// Waits for a message in a room and returns it.
    pub async fn receives(&self, room: &str, from: &str, body: impl Into<Value>) -> Message {
        let body = body.into();
        let is_expected = |message: &Message| message.to == room && message.from == from && message.body == body;
        let what = format!("{body} from {from} in {room}");
        self.found(self.records.messages.take(RESPONSE_TIMEOUT, &what, is_expected).await).value
    }

    /// Waits for a direct message and returns it.
    pub async fn receives_privately(&self, from: &str, body: impl Into<Value>) -> Message {
        self.receives(&self.chat.nick(), from, body).await
    }

    /// Returns all messages that fit, of rooms and direct ones, in the order of their arrival.
    #[must_use]
    pub fn received(&self, fits: impl Fn(&Message) -> bool) -> Vec<Message> {
        self.records.messages.all(fits).into_iter().map(|item| item.value).collect()
    }

    /// Waits until a nickname joins the room.
    pub async fn sees_join(&self, room: &str, nick: &str) {
        let joins = |change: &MembersChange| change.joined.iter().any(|member| member.nick == nick);
        self.sees(RESPONSE_TIMEOUT, room, &format!("join of {nick}"), joins).await;
    }

    /// Waits until a nickname leaves the room for this reason. The item has the time of arrival.
    pub async fn sees_left(
        &self,
        within: Duration,
        room: &str,
        nick: &str,
        reason: &str,
    ) -> ReceivedItem<MembersChange> {
        let leaves = |change: &MembersChange| change.left.contains(&(nick.to_owned(), reason.to_owned()));
        self.sees(within, room, &format!("leave of {nick} ({reason})"), leaves).await
    }

    /// Waits until a nickname of the room changes.
    pub async fn sees_rename(&self, room: &str, from: &str, to: &str) {
        let renames = |change: &MembersChange| change.renamed.contains(&(from.to_owned(), to.to_owned()));
        self.sees(RESPONSE_TIMEOUT, room, &format!("{from} becomes {to}"), renames).await;
    }

    /// Waits for a change of the members of a room, without marking it as used.
    pub async fn sees(
        &self,
        within: Duration,
        room: &str,
        what: &str,
        fits: impl Fn(&MembersChange) -> bool,
    ) -> ReceivedItem<MembersChange> {
        let is_expected = |(name, change): &(String, MembersChange)| name == room && fits(change);
        let ReceivedItem { at, value: (_, value) } =
            self.found(self.records.changes.peek(within, &format!("{what} in {room}"), is_expected).await);
        ReceivedItem { at, value }
    }

    fn changes(&self, room: &str) -> Vec<MembersChange> {
        let changes = self.records.changes.all(|(name, _)| name == room);
        changes.into_iter().map(|item| item.value.1).collect()
    }

    /// Returns all nicknames that joined a room.
    #[must_use]
    pub fn joined(&self, room: &str) -> Vec<String> {
        let joined = self.changes(room).into_iter().flat_map(|change| change.joined);
        joined.map(|member| member.nick).collect()
    }

    /// Returns all nicknames that left a room, with their reasons.
    #[must_use]
    pub fn left(&self, room: &str) -> Vec<(String, String)> {
        self.changes(room).into_iter().flat_map(|change| change.left).collect()
    }

    /// Returns the states of the connection since the registration; none if the first connection still lasts.
    #[must_use]
    pub fn interruptions(&self) -> Vec<State> {
        self.records.states.all(|_| true).into_iter().skip(1).map(|item| item.value).collect()
    }

    /// Waits for the final end of the session and returns its reason.
    pub async fn ends(&self, within: Duration) -> String {
        self.found(self.records.states.ending(within).await).reason
    }

    async fn answer<T>(&self, request: &str, answer: impl Future<Output = Result<T, ParleyError>>) -> T {
        self.answer_within(RESPONSE_TIMEOUT, request, answer).await
    }

    /// Waits for the answer to a request of the library, which repeats the request meanwhile.
    ///
    /// # Panics
    /// If the request is refused, or not answered in time.
    pub async fn answer_within<T>(
        &self,
        within: Duration,
        request: &str,
        answer: impl Future<Output = Result<T, ParleyError>>,
    ) -> T {
        let nick = self.chat.nick();
        let answer = timeout(within, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{nick}: {request} is not answered within {within:?}"));
        answer.unwrap_or_else(|error| panic!("{nick}: {request} was refused: {error}"))
    }

    fn found<T>(&self, found: Result<T, String>) -> T {
        found.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.chat.nick()))
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn record_states(mut states: Events<State>, records: Arc<PersonRecords>) {
    while let Some(state) = states.next().await {
        records.states.push(state.clone());
        if let State::Offline { reason, will_retry: false, .. } = state {
            records.states.end(None, reason);
        }
    }
}

async fn record_directs(mut directs: Events<DirectEvent>, records: Arc<PersonRecords>) {
    while let Some(event) = directs.next().await {
        if let DirectEvent::Message(message) = event {
            records.messages.push(message);
        }
    }
}

async fn record_room(name: String, mut events: Events<RoomEvent>, records: Arc<PersonRecords>) {
    while let Some(event) = events.next().await {
        match event {
            RoomEvent::Message(message) => records.messages.push(message),
            RoomEvent::Members(change) => records.changes.push((name.clone(), change)),
            _ => {}
        }
    }
}
