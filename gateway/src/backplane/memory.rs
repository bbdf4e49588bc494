//! The arm between the nodes of one process: the same contract over [`presence::store::memory::Store`].
//!
//! Serves the embedded default, where one gateway runs alone, and tests that run several nodes on one store. Nothing is
//! ever lost here and no connection breaks, so a subscription is always whole and nothing is ever resumed. A publish is
//! done when its call returns: nothing waits, so there is no queue to batch or to bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::keys::Keys;
use presence::model::stream::StreamEnd;
use presence::model::{Incarnation, Nick, NickKey, RoomKey, RoomName, SessionId};
use presence::registry::RegistryError;
use presence::store::memory::{Append, AppendError, Appended, ChannelListener, Store, StoredEntry};

use super::malformed::Malformed;
use crate::message::Target;

use super::contract::BackplaneContract;
use super::{
    Delivery, DeliverySink, HistoryPage, LinkState, PublishError, PublishRequest, Published, Range, ReplayPage,
    StreamId, SubscriptionStatus, envelope,
};

/// How long a room that nobody wants is still heard, so that a quick return costs nothing.
const LINGER: Duration = Duration::from_secs(30);

/// The Memory arm. Cheap to clone; the subscription ends with the last clone.
#[derive(Clone)]
pub struct MemoryBackplane {
    node: Arc<Node>,
}

/// One node's side of the store.
struct Node {
    store: Store,
    keys: Keys,
    sink: DeliverySink,
    heard: Arc<Heard>,
    listening: Mutex<Listening>,
}

/// What listeners note down.
#[derive(Debug, Default)]
struct Heard {
    malformed: Malformed,
    last_echo: Mutex<Option<Instant>>,
}

/// What this node listens to.
#[derive(Default)]
struct Listening {
    gateway: Option<(Incarnation, presence::store::memory::ListenerGuard)>,
    rooms: HashMap<RoomKey, Interest>,
}

struct Interest {
    count: usize,
    /// Since nobody wants it: until when it is heard nevertheless.
    until: Option<Instant>,
    _subscription: presence::store::memory::ListenerGuard,
}

impl std::fmt::Debug for MemoryBackplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackplane").field("store", &self.node.store).finish_non_exhaustive()
    }
}

impl MemoryBackplane {
    /// Joins a node to the store; its deliveries go to `sink`, which is called under the store's lock.
    #[must_use]
    pub fn start(store: Store, sink: DeliverySink) -> Self {
        let node = Node { store, keys: Keys::new("parley"), sink, heard: Arc::default(), listening: Mutex::default() };
        Self { node: Arc::new(node) }
    }
}

impl BackplaneContract for MemoryBackplane {
    fn subscription(&self) -> SubscriptionStatus {
        SubscriptionStatus {
            link: LinkState::Subscribed,
            reconnects: 0,
            last_echo: *lock(&self.node.heard.last_echo),
            malformed: self.node.heard.malformed.count(),
            past_gaps: Duration::ZERO,
            broken_since: None,
        }
    }

    async fn listen_as(&self, incarnation: &Incarnation) {
        let mut listening = self.node.listening();
        if listening.gateway.as_ref().is_none_or(|(present, _)| present != incarnation) {
            listening.gateway = Some((incarnation.clone(), self.node.hear_gateway(incarnation.clone())));
        }
    }

    async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        let mut listening = self.node.listening();
        listening.end_lingering();
        let interest = listening.rooms.entry(room.clone()).or_insert_with(|| Interest {
            count: 0,
            until: None,
            _subscription: self.node.hear_room(room.clone()),
        });
        interest.count += 1;
        interest.until = None;
        Ok(())
    }

    fn unsubscribe(&self, room: &RoomKey) {
        let mut listening = self.node.listening();
        listening.end_lingering();
        if let Some(interest) = listening.rooms.get_mut(room) {
            interest.count = interest.count.saturating_sub(1);
            if interest.count == 0 {
                interest.until = Some(Instant::now() + LINGER);
            }
        }
    }

    async fn publish(&self, room: &RoomName, request: &PublishRequest) -> Result<Published, PublishError> {
        let payload = envelope::payload(room.as_str(), request);
        published(self.node.store.append(room, append(request, &payload)))
    }

    async fn direct(&self, to: &NickKey, request: &PublishRequest) -> Result<Published, PublishError> {
        let payload = envelope::payload(to.as_str(), request);
        match self.node.store.append_direct(to, append(request, &payload)) {
            // There is no room: who does not own the nick they speak under has lost it with their lease.
            Err(AppendError::NotInRoom) => Err(RegistryError::Fenced.into()),
            answer => published(answer),
        }
    }

    async fn typing(&self, to: &Target, from: &Nick, session: &SessionId) -> Result<(), RegistryError> {
        let Node { store, keys, .. } = &*self.node;
        let (channel, session) = match to {
            Target::Room(room) => (String::from(keys.room(room.key()).channel()), session.clone()),
            Target::Nick(nick) => match store.whereabouts(nick.key()) {
                Some(owner) => (keys.node(&owner.incarnation).channel().into(), owner.session),
                None => return Ok(()),
            },
        };
        store.publish(&channel, &envelope::typing(&session, from.as_str()));
        Ok(())
    }

    async fn history(&self, room: &RoomKey, range: Range, limit: usize) -> Result<HistoryPage, RegistryError> {
        let (from, to, newest) = match range {
            Range::Newest => (1, u64::MAX, true),
            Range::Before(seq) => (1, seq.saturating_sub(1), true),
            Range::After(seq) => (seq.saturating_add(1), u64::MAX, false),
        };
        // One more than asked for tells whether there is more.
        let entries = self.node.store.entries(&StreamId::Room(room.clone()), from, to, limit.saturating_add(1), newest);
        let more = entries.len() > limit;
        let surplus = if more && newest { 1 } else { 0 };
        let messages = entries
            .iter()
            .skip(surplus)
            .take(limit)
            .filter_map(|entry| envelope::message(entry.payload.as_bytes(), entry.seq, entry.time))
            .collect();
        Ok(HistoryPage { messages, more })
    }

    async fn read_after(&self, stream: &StreamId, after: u64, limit: usize) -> Result<ReplayPage, RegistryError> {
        let head = self.end(stream)?;
        let entries = self.node.store.entries(stream, after.saturating_add(1), head.top, limit, false);
        let through = entries.last().filter(|_| entries.len() == limit).map_or(head.top.max(after), |last| last.seq);
        let read = |entry: &StoredEntry| envelope::message(entry.payload.as_bytes(), entry.seq, entry.time);
        Ok(ReplayPage { head, messages: entries.iter().filter_map(read).collect(), through })
    }

    async fn read_ends(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        streams.iter().map(|stream| Ok((stream.clone(), self.end(stream)?))).collect()
    }

    fn note_beat(&self, _: &Incarnation, _: u64, _: Instant, _: Instant) {}

    fn is_complete(&self, _: u64) -> bool {
        true
    }

    fn unsafe_bytes(&self) -> usize {
        0
    }

    async fn republish(&self, _: impl FnMut(u64)) {
        std::future::pending().await
    }

    async fn wait_safe(&self) {}
}

impl MemoryBackplane {
    /// Nothing is lost here: a missing room has just been left by its last member.
    fn end(&self, stream: &StreamId) -> Result<StreamEnd, RegistryError> {
        self.node.store.end(stream).ok_or_else(|| RegistryError::Unavailable("no such room".to_owned()))
    }
}

impl Node {
    fn listening(&self) -> MutexGuard<'_, Listening> {
        lock(&self.listening)
    }

    fn hear_room(&self, room: RoomKey) -> presence::store::memory::ListenerGuard {
        let channel = self.keys.room(&room).channel();
        let (sink, heard, place) = (self.sink.clone(), self.heard.clone(), channel.clone());
        let listener: ChannelListener = Arc::new(move |text| {
            let skipped = envelope::read_room(&room, text, |delivery| sink(delivery));
            heard.malformed.note(&place, skipped);
        });
        self.store.listen(&channel, listener)
    }

    fn hear_gateway(&self, incarnation: Incarnation) -> presence::store::memory::ListenerGuard {
        let channel = self.keys.node(&incarnation).channel();
        let (sink, heard, place) = (self.sink.clone(), self.heard.clone(), channel.clone());
        let listener: ChannelListener = Arc::new(move |text| {
            let Some(delivery) = envelope::read_gateway(&incarnation, text) else {
                heard.malformed.note(&place, 1);
                return;
            };
            if matches!(delivery, Delivery::Echo { .. }) {
                *lock(&heard.last_echo) = Some(Instant::now());
            }
            sink(delivery);
        });
        self.store.listen(&channel, listener)
    }
}

impl Listening {
    /// Ends what has lingered long enough. Nothing waits for that, so it happens when somebody comes by.
    fn end_lingering(&mut self) {
        let now = Instant::now();
        self.rooms.retain(|_, interest| interest.until.is_none_or(|until| until > now));
    }
}

fn append<'a>(request: &'a PublishRequest, payload: &'a str) -> Append<'a> {
    Append {
        from: request.from.key(),
        owner: &request.owner,
        key: request.key.as_deref(),
        msg_id: &request.msg_id,
        payload,
    }
}

fn published(answer: Result<Appended, AppendError>) -> Result<Published, PublishError> {
    match answer {
        Ok(Appended { msg_id, seq, time, duplicate, online }) => Ok(Published { msg_id, seq, time, duplicate, online }),
        Err(AppendError::Fenced) => Err(RegistryError::Fenced.into()),
        Err(AppendError::NotInRoom) => Err(PublishError::NotInRoom),
        Err(AppendError::NoSuchUser) => Err(PublishError::NoSuchUser),
        Err(AppendError::Overloaded) => Err(PublishError::Overloaded),
    }
}

/// A panic while one of these locks is held leaves what it guards as whole as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
