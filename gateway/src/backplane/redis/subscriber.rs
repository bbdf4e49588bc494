//! The task that owns our subscription: one connection apart from all others, kept whole for as long as anybody wants it.
//!
//! [`super::RedisBackplane`] tells it what to hear; it performs what [`super::subscription`] decides, and hands what
//! arrives to the sink, decoded, in order. redis-rs's own re-subscription is not used: it gives up after a while and
//! nobody learns what was missed. Never blocks, never publishes. Ends with its [`ChannelSubscriber`].

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::{Incarnation, RoomKey};
use presence::registry::RegistryError;
use presence::store::redis::{RedisStore, connection_config};
use redis::aio::MultiplexedConnection;
use redis::{Client, ProtocolVersion, RedisResult};
use tokio::sync::{mpsc, oneshot, watch};

use super::feed::{Ended, Feed, Message, feed};
use super::subscription::{Action, Channel, Input, Subscriptions, Topic};
use crate::backplane::malformed::Malformed;
use crate::backplane::{Delivery, DeliverySink, SubscriptionStatus, envelope};

/// How long a room's subscription may take to be confirmed.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

type Work<T> = Pin<Box<dyn Future<Output = RedisResult<T>> + Send>>;

/// What the task is told.
#[derive(Debug)]
enum Wish {
    Want(RoomKey, oneshot::Sender<()>),
    Unwant(RoomKey),
    Listen(Incarnation, oneshot::Sender<()>),
}

/// The handle on the task. The task ends with it.
#[derive(Debug)]
pub(super) struct ChannelSubscriber {
    // Unbounded, so that an interest can be withdrawn from a destructor; the task takes wishes whatever Redis does.
    wishes: mpsc::UnboundedSender<Wish>,
    status: watch::Receiver<SubscriptionStatus>,
}

impl ChannelSubscriber {
    /// Starts the task. Needs a running tokio runtime.
    pub(super) fn start(redis: &RedisStore, sink: DeliverySink, malformed: Arc<Malformed>) -> Self {
        let (wishes, inbox) = mpsc::unbounded_channel();
        let decisions = Subscriptions::new(Instant::now());
        let (publisher, status) = watch::channel(decisions.status());
        let task = Task {
            redis: redis.clone(),
            sink,
            malformed,
            decisions,
            connection: Connection::None,
            waiters: HashMap::new(),
            broken: false,
            status: publisher,
        };
        tokio::spawn(task.run(inbox));
        Self { wishes, status }
    }

    /// How the connection is doing.
    pub(super) fn status(&self) -> SubscriptionStatus {
        *self.status.borrow()
    }

    /// See [`crate::backplane::Backplane::listen_as`].
    pub(super) async fn listen_as(&self, incarnation: &Incarnation) {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.wishes.send(Wish::Listen(incarnation.clone(), confirm));
        // An error says that a later call has taken this one's place.
        let _ = confirmed.await;
    }

    /// See [`crate::backplane::Backplane::subscribe`]. Dropping the future withdraws the wish.
    pub(super) async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.wishes.send(Wish::Want(room.clone(), confirm));
        let interest = Interest { wishes: &self.wishes, room: Some(room) };
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(())) => {
                interest.keep();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                Err(RegistryError::Unavailable("the subscription was not confirmed in time".to_owned()))
            }
        }
    }

    /// See [`crate::backplane::Backplane::unsubscribe`].
    pub(super) fn unsubscribe(&self, room: &RoomKey) {
        let _ = self.wishes.send(Wish::Unwant(room.clone()));
    }
}

/// An interest that is withdrawn unless it was confirmed.
struct Interest<'a> {
    wishes: &'a mpsc::UnboundedSender<Wish>,
    room: Option<&'a RoomKey>,
}

impl Interest<'_> {
    fn keep(mut self) {
        self.room = None;
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            let _ = self.wishes.send(Wish::Unwant(room.clone()));
        }
    }
}

/// The connection as the task holds it.
enum Connection {
    None,
    Making(Work<(MultiplexedConnection, Feed)>),
    Up { connection: MultiplexedConnection, feed: Feed, asking: Option<Work<()>> },
}

/// What a connection can have to say.
enum News {
    Made(MultiplexedConnection, Feed),
    Answered,
    Arrived(Vec<Message>),
    Gone(String),
}

impl Connection {
    /// Waits for what comes next; for ever while there is no connection. Dropping the future loses nothing.
    async fn news(&mut self) -> News {
        match self {
            Self::None => std::future::pending().await,
            Self::Making(making) => match making.await {
                Ok((connection, feed)) => News::Made(connection, feed),
                Err(error) => News::Gone(error.to_string()),
            },
            Self::Up { feed, asking, .. } => tokio::select! {
                answer = answer(asking) => match answer {
                    Ok(()) => News::Answered,
                    Err(error) => News::Gone(error.to_string()),
                },
                round = feed.next() => match round {
                    Ok(messages) => News::Arrived(messages),
                    Err(Ended) => News::Gone("closed, or more arrived than was delivered".to_owned()),
                },
            },
        }
    }

    /// Sends a command; its answer comes as news.
    fn ask(&mut self, channels: Vec<Channel>, subscribe: bool) {
        let Self::Up { connection, asking, .. } = self else {
            return;
        };
        let mut connection = connection.clone();
        *asking = Some(Box::pin(async move {
            let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
            if subscribe { connection.subscribe(names).await } else { connection.unsubscribe(names).await }
        }));
    }
}

async fn answer(asking: &mut Option<Work<()>>) -> RedisResult<()> {
    let Some(work) = asking else {
        return std::future::pending().await;
    };
    let result = work.await;
    *asking = None;
    result
}

/// A connection of our own: RESP3, pushes into a feed. The settings bound connecting and every answer to 2 s each.
async fn connect(client: Client) -> RedisResult<(MultiplexedConnection, Feed)> {
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.set_redis_settings(settings))?;
    let (push, feed) = feed();
    let config = connection_config().set_push_sender(push);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok((connection, feed))
}

struct Task {
    redis: RedisStore,
    sink: DeliverySink,
    malformed: Arc<Malformed>,
    decisions: Subscriptions,
    connection: Connection,
    waiters: HashMap<Channel, Vec<oneshot::Sender<()>>>,
    /// An outage is logged once, at its beginning and at its end.
    broken: bool,
    status: watch::Sender<SubscriptionStatus>,
}

impl Task {
    async fn run(mut self, mut wishes: mpsc::UnboundedReceiver<Wish>) {
        loop {
            let deadline = self.decisions.deadline();
            tokio::select! {
                // Time comes last: an echo that waits in the feed is not late.
                biased;
                wish = wishes.recv() => match wish {
                    Some(wish) => self.wish(wish),
                    None => return,
                },
                news = self.connection.news() => self.news(news),
                () = until(deadline) => self.input(Input::Time),
            }
            self.report();
        }
    }

    fn wish(&mut self, wish: Wish) {
        let keys = self.redis.keys();
        match wish {
            Wish::Want(room, confirm) => {
                let channel = Channel::from(keys.room(&room).channel().as_str());
                self.waiters.entry(channel.clone()).or_default().push(confirm);
                self.input(Input::Want(channel, room));
            }
            Wish::Unwant(room) => {
                let channel = Channel::from(keys.room(&room).channel().as_str());
                self.forget_waiters(&channel);
                self.input(Input::Unwant(channel));
            }
            Wish::Listen(incarnation, confirm) => {
                let channel = Channel::from(keys.node(&incarnation).channel().as_str());
                self.waiters.entry(channel.clone()).or_default().push(confirm);
                self.input(Input::Listen(channel, incarnation));
            }
        }
    }

    /// Drops the waiters of a channel that no longer wait.
    fn forget_waiters(&mut self, channel: &Channel) {
        if let Some(waiters) = self.waiters.get_mut(channel) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                self.waiters.remove(channel);
            }
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Made(connection, feed) => {
                self.connection = Connection::Up { connection, feed, asking: None };
                self.input(Input::Connected);
            }
            News::Answered => self.input(Input::Answered),
            News::Arrived(messages) => {
                for message in messages {
                    self.deliver(&message);
                }
            }
            News::Gone(reason) => self.lose(&reason),
        }
    }

    fn lose(&mut self, reason: &str) {
        if std::mem::replace(&mut self.broken, true) {
            tracing::debug!(reason, "still no subscription");
        } else {
            tracing::warn!(reason, "lost the subscription");
        }
        self.connection = Connection::None;
        self.input(Input::Lost { dice: rand::random() });
    }

    fn input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.decisions.handle(Instant::now(), input, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect => self.connection = Connection::Making(Box::pin(connect(self.redis.client().clone()))),
            Action::Abandon => self.lose("our own beat does not come back"),
            Action::Subscribe(channels) => self.connection.ask(channels, true),
            Action::Unsubscribe(channels) => self.connection.ask(channels, false),
            Action::Heard(channel) => {
                for waiter in self.waiters.remove(&channel).into_iter().flatten() {
                    let _ = waiter.send(());
                }
            }
            Action::Resumed => (self.sink)(Delivery::Resumed),
        }
    }

    fn deliver(&mut self, message: &Message) {
        let Ok(channel) = str::from_utf8(&message.channel) else {
            return;
        };
        match self.decisions.topic(channel) {
            Some(Topic::Room(room)) => {
                let skipped = envelope::read_room(room, &message.text, |delivery| (self.sink)(delivery));
                self.malformed.note(channel, skipped);
            }
            Some(Topic::Gateway(incarnation)) => {
                let Some(delivery) = envelope::read_gateway(incarnation, &message.text) else {
                    self.malformed.note(channel, 1);
                    return;
                };
                let echo = matches!(delivery, Delivery::Echo { .. });
                (self.sink)(delivery);
                if echo {
                    self.input(Input::Echo);
                }
            }
            // A room that has just been given up.
            None => {}
        }
    }

    fn report(&mut self) {
        if self.broken && self.decisions.whole() {
            self.broken = false;
            tracing::info!("the subscription is whole again");
        }
        let status = SubscriptionStatus { malformed: self.malformed.count(), ..self.decisions.status() };
        self.status.send_if_modified(|shown| std::mem::replace(shown, status) != status);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
