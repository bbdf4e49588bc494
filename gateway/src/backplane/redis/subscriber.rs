//! The task of the subscription: one connection of its own, kept whole for as long as a channel is wanted.
//!
//! [`ChannelSubscriber`] is its handle for [`super::RedisBackplane`]. The task reads the connection, performs the
//! actions of [`super::subscription_machine`] and passes decoded deliveries to the sink in order. It never blocks,
//! never publishes, and ends with its handle. It resubscribes by itself, because redis-rs gives up after a while
//! without reporting the gap.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::{Incarnation, RoomKey};
use presence::registry::RegistryError;
use presence::store::redis::{CallKind, RedisStore, connection_config};
use redis::aio::MultiplexedConnection;
use redis::{ProtocolVersion, RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;

use super::push_feed::{BATCH_MESSAGES_MAX, FeedEnded, PushFeed, PushMessage, ReceivedPushes};
use super::subscription_machine::{
    ChannelName, ChannelTopic, SubscriptionAction, SubscriptionInput, SubscriptionMachine,
};
use crate::backplane::malformed::MalformedCounter;
use crate::backplane::{Delivery, DeliverySink, SubscriptionStatus, envelope};

/// The time limit for the confirmation of a room's subscription.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

type PendingCommand<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A request to the task.
#[derive(Debug)]
enum SubscriberRequest {
    Subscribe(RoomKey, oneshot::Sender<()>),
    Unsubscribe(RoomKey),
    SubscribeOwnChannel(Incarnation, oneshot::Sender<()>),
}

/// The handle on the task. The task ends with it.
#[derive(Debug)]
pub(super) struct ChannelSubscriber {
    // Unbounded, so that a destructor can release an interest; the task takes requests even while Redis is away.
    requests: mpsc::UnboundedSender<SubscriberRequest>,
    status: watch::Receiver<SubscriptionStatus>,
}

impl ChannelSubscriber {
    /// Starts the task. Needs a running tokio runtime.
    pub(super) fn start(redis: &RedisStore, sink: DeliverySink, malformed: Arc<MalformedCounter>) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let machine = SubscriptionMachine::new(Instant::now());
        let (status_sender, status) = watch::channel(machine.status());
        let task = SubscriberTask {
            redis: redis.clone(),
            sink,
            malformed,
            machine,
            connection: SubscriberLink::None,
            waiters: HashMap::new(),
            deliveries: Vec::new(),
            delivered: 0,
            is_broken: false,
            status: status_sender,
        };
        tokio::spawn(task.run(inbox));
        Self { requests, status }
    }

    /// Returns the state of the subscription.
    pub(super) fn status(&self) -> SubscriptionStatus {
        *self.status.borrow()
    }

    /// Subscribes to the channel of this incarnation and waits for the confirmation. A dropped future keeps the request
    /// active.
    pub(super) async fn subscribe_own_channel(&self, incarnation: &Incarnation) {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.requests.send(SubscriberRequest::SubscribeOwnChannel(incarnation.clone(), confirm));
        // An error means that a later call has replaced this one.
        let _ = confirmed.await;
    }

    /// Subscribes to a room and waits for the confirmation. Dropping the future releases the interest.
    pub(super) async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.requests.send(SubscriberRequest::Subscribe(room.clone(), confirm));
        let interest = InterestGuard { requests: &self.requests, room: Some(room) };
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(())) => {
                interest.disarm();
                Ok(())
            }
            Ok(Err(_)) => Err(RegistryError::Unavailable("subscription refused".to_owned())),
            Err(_) => Err(RegistryError::Unavailable("subscription not confirmed in time".to_owned())),
        }
    }

    /// Releases one interest in a room.
    pub(super) fn unsubscribe(&self, room: &RoomKey) {
        let _ = self.requests.send(SubscriberRequest::Unsubscribe(room.clone()));
    }
}

/// An interest that is released on drop unless it was confirmed.
struct InterestGuard<'a> {
    requests: &'a mpsc::UnboundedSender<SubscriberRequest>,
    room: Option<&'a RoomKey>,
}

impl InterestGuard<'_> {
    fn disarm(mut self) {
        self.room = None;
    }
}

impl Drop for InterestGuard<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            let _ = self.requests.send(SubscriberRequest::Unsubscribe(room.clone()));
        }
    }
}

/// The connection of the task, in its states.
enum SubscriberLink {
    None,
    Opening(PendingCommand<(MultiplexedConnection, PushFeed), RedisError>),
    Up { connection: MultiplexedConnection, feed: PushFeed, pending: Option<PendingCommand<(), RegistryError>> },
}

/// An event of the connection.
enum SubscriberEvent {
    Opened(MultiplexedConnection, PushFeed),
    Answered,
    Refused(String),
    Arrived(Vec<PushMessage>),
    Closed(String),
}

impl SubscriberLink {
    /// Waits for the next event; forever while there is no connection. Dropping the future loses nothing.
    async fn next_event(&mut self) -> SubscriberEvent {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                Ok((connection, feed)) => SubscriberEvent::Opened(connection, feed),
                Err(error) => SubscriberEvent::Closed(error.to_string()),
            },
            Self::Up { feed, pending, .. } => tokio::select! {
                answer = answer(pending) => match answer {
                    Ok(()) => SubscriberEvent::Answered,
                    Err(RegistryError::Unavailable(reason)) => SubscriberEvent::Refused(reason),
                    Err(error) => SubscriberEvent::Closed(error.to_string()),
                },
                batch = feed.next() => match batch {
                    Ok(messages) => SubscriberEvent::Arrived(messages),
                    Err(FeedEnded) => SubscriberEvent::Closed("connection closed".to_owned()),
                },
            },
        }
    }

    /// Sends a command; its answer arrives as an event.
    fn send_command(&mut self, redis: &RedisStore, channels: Vec<ChannelName>, subscribe: bool) {
        let Self::Up { connection, pending, .. } = self else {
            return;
        };
        let (redis, mut connection) = (redis.clone(), connection.clone());
        let command = async move {
            let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
            if subscribe { connection.subscribe(names).await } else { connection.unsubscribe(names).await }
        };
        *pending = Some(Box::pin(async move { redis.timed(CallKind::Subscribe, command).await }));
    }
}

async fn answer(pending: &mut Option<PendingCommand<(), RegistryError>>) -> Result<(), RegistryError> {
    let Some(command) = pending else {
        return std::future::pending().await;
    };
    let result = command.await;
    *pending = None;
    result
}

/// Opens a connection with RESP3 and pushes into a feed. Its settings limit connecting and every answer to 2 s each.
async fn connect(redis: RedisStore) -> RedisResult<(MultiplexedConnection, PushFeed)> {
    let settings = redis.client().get_connection_info().redis_settings().clone();
    let settings = settings.set_protocol(ProtocolVersion::RESP3);
    let received = ReceivedPushes::default();
    let config = connection_config().set_push_sender(received.receiver());
    let (connection, driver) = redis.connect_polled(&settings, config).await?;
    Ok((connection, PushFeed::new(received, driver)))
}

struct SubscriberTask {
    redis: RedisStore,
    sink: DeliverySink,
    malformed: Arc<MalformedCounter>,
    machine: SubscriptionMachine,
    connection: SubscriberLink,
    waiters: HashMap<ChannelName, Vec<oneshot::Sender<()>>>,
    /// The decoded batch; empty between two batches.
    deliveries: Vec<Delivery>,
    /// Deliveries since the task last yielded.
    delivered: usize,
    /// True during an outage, which is logged once at its start and once at its end.
    is_broken: bool,
    status: watch::Sender<SubscriptionStatus>,
}

impl SubscriberTask {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<SubscriberRequest>) {
        loop {
            // Other tasks of this thread continue although messages never end.
            if self.delivered >= BATCH_MESSAGES_MAX {
                self.delivered = 0;
                yield_now().await;
            }
            let deadline = self.machine.deadline();
            tokio::select! {
                // The deadline comes last: an echo that waits in the feed is not late.
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                event = self.connection.next_event() => self.handle_event(event),
                () = sleep_until(deadline) => self.reach_deadline(),
            }
            self.publish_status();
        }
    }

    fn handle_request(&mut self, request: SubscriberRequest) {
        let keys = self.redis.keys();
        match request {
            SubscriberRequest::Subscribe(room, confirm) => {
                let channel = ChannelName::from(keys.room(&room).channel().as_str());
                self.waiters.entry(channel.clone()).or_default().push(confirm);
                self.apply(SubscriptionInput::Subscribe(channel, room));
            }
            SubscriberRequest::Unsubscribe(room) => {
                let channel = ChannelName::from(keys.room(&room).channel().as_str());
                self.drop_closed_waiters(&channel);
                self.apply(SubscriptionInput::Unsubscribe(channel));
            }
            SubscriberRequest::SubscribeOwnChannel(incarnation, confirm) => {
                let channel = ChannelName::from(keys.node(&incarnation).channel().as_str());
                self.waiters.entry(channel.clone()).or_default().push(confirm);
                self.apply(SubscriptionInput::SubscribeOwnChannel(channel, incarnation));
            }
        }
    }

    /// Removes the waiters of a channel that no longer wait.
    fn drop_closed_waiters(&mut self, channel: &ChannelName) {
        if let Some(waiters) = self.waiters.get_mut(channel) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                self.waiters.remove(channel);
            }
        }
    }

    fn handle_event(&mut self, event: SubscriberEvent) {
        match event {
            SubscriberEvent::Opened(connection, feed) => {
                self.connection = SubscriberLink::Up { connection, feed, pending: None };
                self.apply(SubscriptionInput::Connected);
            }
            SubscriberEvent::Answered => self.apply(SubscriptionInput::Answered),
            SubscriberEvent::Arrived(messages) => self.deliver(&messages),
            SubscriberEvent::Refused(_) if self.machine.survives_refusal() => self.apply(SubscriptionInput::Refused),
            SubscriberEvent::Refused(reason) | SubscriberEvent::Closed(reason) => self.lose(&reason),
        }
    }

    fn lose(&mut self, reason: &str) {
        if std::mem::replace(&mut self.is_broken, true) {
            tracing::debug!(reason, "subscription still lost");
        } else {
            tracing::warn!(reason, "subscription lost");
        }
        self.connection = SubscriberLink::None;
        self.apply(SubscriptionInput::Lost { jitter: rand::random() });
    }

    fn reach_deadline(&mut self) {
        if self.redis.refuses(CallKind::Beat) {
            self.apply(SubscriptionInput::BeatsRefused);
        }
        self.apply(SubscriptionInput::Deadline);
    }

    fn apply(&mut self, input: SubscriptionInput) {
        let mut actions = Vec::new();
        self.machine.handle(Instant::now(), input, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: SubscriptionAction) {
        match action {
            SubscriptionAction::Connect => {
                self.connection = SubscriberLink::Opening(Box::pin(connect(self.redis.clone())))
            }
            SubscriptionAction::Abandon => self.lose("no echo of the own beat"),
            SubscriptionAction::Subscribe(channels) => self.connection.send_command(&self.redis, channels, true),
            SubscriptionAction::Unsubscribe(channels) => self.connection.send_command(&self.redis, channels, false),
            SubscriptionAction::Confirmed(channel) => {
                for waiter in self.waiters.remove(&channel).into_iter().flatten() {
                    let _ = waiter.send(());
                }
            }
            SubscriptionAction::Refused(channel) => drop(self.waiters.remove(&channel)),
            SubscriptionAction::Restored => self.sink.deliver(Delivery::SubscriptionRestored),
        }
    }

    /// Passes a batch to the sink.
    fn deliver(&mut self, messages: &[PushMessage]) {
        messages.iter().for_each(|message| self.decode(message));
        self.delivered += self.deliveries.len();
        let has_echo = self.deliveries.iter().any(|delivery| matches!(delivery, Delivery::Echo { .. }));
        self.sink.deliver_batch(self.deliveries.drain(..));
        self.deliveries.shrink_to(BATCH_MESSAGES_MAX);
        if has_echo {
            self.apply(SubscriptionInput::Echo);
        }
    }

    fn decode(&mut self, message: &PushMessage) {
        let Ok(channel) = str::from_utf8(&message.channel) else { return };
        let skipped = match self.machine.topic(channel) {
            Some(ChannelTopic::Room(room)) => {
                envelope::read_room(room, &message.text, |delivery| self.deliveries.push(delivery))
            }
            Some(ChannelTopic::Gateway(incarnation)) => {
                let delivery = envelope::read_gateway(incarnation, &message.text);
                let skipped = u64::from(delivery.is_none());
                self.deliveries.extend(delivery);
                skipped
            }
            // A room that was released a moment ago.
            None => 0,
        };
        self.malformed.add(channel, skipped);
    }

    fn publish_status(&mut self) {
        if self.is_broken && self.machine.is_whole() {
            self.is_broken = false;
            tracing::info!("subscription restored");
        }
        let status = SubscriptionStatus { malformed: self.malformed.count(), ..self.machine.status() };
        self.status.send_if_modified(|current| std::mem::replace(current, status) != status);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
