//! The arm between the nodes of one process: the same contract over [`presence::store::memory::Store`].
//!
//! It serves the embedded default, one gateway alone, and tests that run several nodes on one store.
//! [`MemoryBackplane`] is the arm. No connection can break here, so a subscription is always whole and
//! [`Delivery::SubscriptionRestored`] is never sent. A publish is complete when its call returns: there is no queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::keys::Keys;
use presence::model::stream::{PageLimit, StreamEnd};
use presence::model::{Incarnation, Nick, NickKey, RoomKey, RoomName, SessionId};
use presence::registry::RegistryError;
use presence::store::memory::{Append, AppendError, Appended, ChannelListener, Store, StoredEntry, StoredPage};

use super::malformed::MalformedCounter;
use crate::message::{ChatMessage, Target};

use super::contract::{BackplaneContract, LINGER};
use super::key_shares::{KeyAdmission, KeyShares};
use super::{
    Delivery, DeliverySink, HistoryPage, LinkState, PublishAttempt, PublishError, PublishRequest, Published, Range,
    ReplayPage, StreamId, SubscriptionStatus, envelope,
};

/// The Memory arm. Cheap to clone; the subscription ends with the last clone.
#[derive(Clone)]
pub struct MemoryBackplane {
    node: Arc<MemoryNode>,
}

/// One node's side of the store.
struct MemoryNode {
    store: Store,
    keys: Keys,
    sink: DeliverySink,
    receive_record: Arc<ReceiveRecord>,
    subscriptions: Mutex<LocalSubscriptions>,
    key_shares: KeyShares,
}

/// Values that the listeners record.
#[derive(Debug, Default)]
struct ReceiveRecord {
    malformed: MalformedCounter,
    last_echo: Mutex<Option<Instant>>,
}

/// The subscriptions of this node.
#[derive(Default)]
struct LocalSubscriptions {
    gateway: Option<(Incarnation, presence::store::memory::ListenerGuard)>,
    rooms: HashMap<RoomKey, RoomInterest>,
}

struct RoomInterest {
    count: usize,
    /// The end of its lingering, once the count is 0.
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
        let node = MemoryNode {
            store,
            keys: Keys::new("parley"),
            sink,
            receive_record: Arc::default(),
            subscriptions: Mutex::default(),
            key_shares: KeyShares::default(),
        };
        Self { node: Arc::new(node) }
    }
}

impl BackplaneContract for MemoryBackplane {
    fn subscription(&self) -> SubscriptionStatus {
        SubscriptionStatus {
            link: LinkState::Subscribed,
            reconnects: 0,
            last_echo: *lock(&self.node.receive_record.last_echo),
            malformed: self.node.receive_record.malformed.count(),
            past_gaps: Duration::ZERO,
            broken_since: None,
        }
    }

    async fn subscribe_own_channel(&self, incarnation: &Incarnation) {
        let mut subscriptions = self.node.subscriptions();
        if subscriptions.gateway.as_ref().is_none_or(|(current, _)| current != incarnation) {
            subscriptions.gateway = Some((incarnation.clone(), self.node.subscribe_gateway(incarnation.clone())));
        }
    }

    async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        let mut subscriptions = self.node.subscriptions();
        subscriptions.end_expired();
        let interest = subscriptions.rooms.entry(room.clone()).or_insert_with(|| RoomInterest {
            count: 0,
            until: None,
            _subscription: self.node.subscribe_room(room.clone()),
        });
        interest.count += 1;
        interest.until = None;
        Ok(())
    }

    fn unsubscribe(&self, room: &RoomKey) {
        let mut subscriptions = self.node.subscriptions();
        subscriptions.end_expired();
        if let Some(interest) = subscriptions.rooms.get_mut(room) {
            interest.count = interest.count.saturating_sub(1);
            if interest.count == 0 {
                interest.until = Some(Instant::now() + LINGER);
            }
        }
    }

    /// No answer is lost here, so a repeat needs no search: the store remembers all ids.
    async fn publish(
        &self,
        room: &RoomName,
        request: &PublishRequest,
        _: PublishAttempt<'_>,
    ) -> Result<Published, PublishError> {
        let keys = self.node.key_shares.admit(request, Instant::now());
        let payload = envelope::payload(room.as_str(), request);
        let outcome = published(self.node.store.append(room, append(request, keys, &payload)));
        self.node.key_shares.conclude(request, keys, outcome)
    }

    async fn direct(&self, to: &NickKey, request: &PublishRequest) -> Result<Published, PublishError> {
        let keys = self.node.key_shares.admit(request, Instant::now());
        let payload = envelope::payload(to.as_str(), request);
        let outcome = match self.node.store.append_direct(to, append(request, keys, &payload)) {
            // A direct message has no room: a sender that does not own its nick has lost it with its lease.
            Err(AppendError::NotInRoom) => Err(RegistryError::Fenced.into()),
            outcome => published(outcome),
        };
        self.node.key_shares.conclude(request, keys, outcome)
    }

    async fn typing(
        &self,
        to: &Target,
        from: &Nick,
        session: &SessionId,
        moderates: bool,
    ) -> Result<(), RegistryError> {
        let MemoryNode { store, keys, .. } = &*self.node;
        let (channel, session) = match to {
            Target::Room(room) if !store.may_send(room.key(), from.key(), moderates) => return Ok(()),
            Target::Room(room) => (String::from(keys.room(room.key()).channel()), session.clone()),
            Target::Nick(nick) => match store.whereabouts(nick.key()) {
                Some(owner) => (keys.node(&owner.incarnation).channel().into(), owner.session),
                None => return Ok(()),
            },
        };
        store.publish(&channel, &envelope::typing(&session, from.as_str()));
        Ok(())
    }

    async fn history(&self, room: &RoomKey, range: Range, limit: PageLimit) -> Result<HistoryPage, RegistryError> {
        let (seqs, newest) = match range {
            Range::Newest => (1..=u64::MAX, true),
            Range::Before(seq) => (1..=seq.saturating_sub(1), true),
            Range::After(seq) => (seq.saturating_add(1)..=u64::MAX, false),
        };
        let store = &self.node.store;
        let read = async {
            let StoredPage { entries, has_more } = store.page(&StreamId::Room(room.clone()), seqs, limit, newest);
            Ok(HistoryPage { messages: entries.iter().filter_map(message).collect(), more: has_more })
        };
        store.read_turns().reader().await?.step(read).await
    }

    async fn read_after(&self, stream: &StreamId, after: u64, limit: PageLimit) -> Result<ReplayPage, RegistryError> {
        let end = self.end(stream)?;
        let StoredPage { entries, has_more } =
            self.node.store.page(stream, after.saturating_add(1)..=end.seq, limit, false);
        let through = entries.last().filter(|_| has_more).map_or(end.seq.max(after), |last| last.seq);
        Ok(ReplayPage { end, messages: entries.iter().filter_map(message).collect(), through })
    }

    async fn read_ends(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        streams.iter().map(|stream| Ok((stream.clone(), self.end(stream)?))).collect()
    }

    fn note_beat(&self, _: &Incarnation, _: u64, _: Instant, _: Instant) {}

    fn has_all_acknowledged(&self, _: u64) -> bool {
        true
    }

    fn unsafe_bytes(&self) -> usize {
        0
    }

    fn is_crowded(&self, _: &Target) -> bool {
        false
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

impl MemoryNode {
    fn subscriptions(&self) -> MutexGuard<'_, LocalSubscriptions> {
        lock(&self.subscriptions)
    }

    fn subscribe_room(&self, room: RoomKey) -> presence::store::memory::ListenerGuard {
        let channel = self.keys.room(&room).channel();
        let (sink, receive_record, source) = (self.sink.clone(), self.receive_record.clone(), channel.clone());
        let listener: ChannelListener = Arc::new(move |text| {
            let skipped = envelope::read_room(&room, text, |delivery| sink.deliver(delivery));
            receive_record.malformed.add(&source, skipped);
        });
        self.store.listen(&channel, listener)
    }

    fn subscribe_gateway(&self, incarnation: Incarnation) -> presence::store::memory::ListenerGuard {
        let channel = self.keys.node(&incarnation).channel();
        let (sink, receive_record, source) = (self.sink.clone(), self.receive_record.clone(), channel.clone());
        let listener: ChannelListener = Arc::new(move |text| {
            let Some(delivery) = envelope::read_gateway(&incarnation, text) else {
                receive_record.malformed.add(&source, 1);
                return;
            };
            if matches!(delivery, Delivery::Echo { .. }) {
                *lock(&receive_record.last_echo) = Some(Instant::now());
            }
            sink.deliver(delivery);
        });
        self.store.listen(&channel, listener)
    }
}

impl LocalSubscriptions {
    /// Ends subscriptions that have lingered long enough. Any later call may do it, because nothing waits for it.
    fn end_expired(&mut self) {
        let now = Instant::now();
        self.rooms.retain(|_, interest| interest.until.is_none_or(|until| until > now));
    }
}

fn message(entry: &StoredEntry) -> Option<ChatMessage> {
    envelope::message(entry.payload.as_bytes(), entry.seq, entry.time)
}

fn append<'a>(request: &'a PublishRequest, keys: KeyAdmission, payload: &'a str) -> Append<'a> {
    Append {
        from: request.from.key(),
        owner: &request.owner,
        moderates: request.moderates,
        key: request.key.as_deref(),
        adds_key: keys.adds_keys(),
        msg_id: &request.msg_id,
        payload,
    }
}

fn published(outcome: Result<Appended, AppendError>) -> Result<Published, PublishError> {
    match outcome {
        Ok(Appended { msg_id, seq, time, duplicate, online }) => Ok(Published { msg_id, seq, time, duplicate, online }),
        Err(AppendError::Fenced) => Err(RegistryError::Fenced.into()),
        Err(AppendError::NotInRoom) => Err(PublishError::NotInRoom),
        Err(AppendError::NotAllowed) => Err(PublishError::NotAllowed),
        Err(AppendError::SlowMode { retry_after }) => Err(PublishError::SlowMode { retry_after }),
        Err(AppendError::NoSuchUser) => Err(PublishError::NoSuchUser),
        Err(AppendError::Muted { retry_after }) => Err(PublishError::Muted { retry_after }),
        Err(AppendError::Exhausted { retry_after }) => Err(PublishError::KeysExhausted { retry_after }),
    }
}

/// A panic while one of these locks is held leaves the guarded value consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
