//! What we want to hear and what to do about it: the deciding half of the subscriber, without a socket or a clock.
//!
//! `super::subscriber` feeds it [`Input`]s with the time they happened, and performs the [`Action`]s it answers with.
//!
//! # How it decides
//! - One SUBSCRIBE or UNSUBSCRIBE is on its way at a time; what is wanted meanwhile goes with the next one. So answers
//!   cannot be mistaken for each other, and a storm of joins needs few commands.
//! - A channel is heard when the newest SUBSCRIBE of it was answered on the connection that is up now. That dies with
//!   the connection and with an UNSUBSCRIBE, which is sent only for a channel that is heard and that nobody wants.
//! - A connection counts as whole when every channel wanted at its start is heard. If anything was lost before that,
//!   [`Action::Resumed`] says so then, once.
//! - A whole connection must bring our own beat back. One that is silent for [`DEAD`] is given up, whatever its socket
//!   says: it may be half open, or lead to a Redis that takes no writes. Only an echo resets the back-off.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::{Incarnation, RoomKey};

use crate::backplane::{LinkState, SubscriptionStatus};

/// Most channels in one command: a chunk must not stand in front of messages for long.
pub(super) const CHUNK: usize = 500;
/// How long a room that nobody wants is still heard, so that a quick return costs nothing.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// Silence after which we no longer trust that we hear everything.
pub(super) const STALE: Duration = Duration::from_secs(3);
/// Silence after which the connection is given up.
pub(super) const DEAD: Duration = Duration::from_secs(5);
/// Shortest pause before a connection is made again.
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause before a connection is made again.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The name of a channel, shared by everything that mentions it.
pub(super) type Channel = Arc<str>;

/// What a channel is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    /// A room.
    Room(RoomKey),
    /// A gateway's own channel.
    Gateway(Incarnation),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    /// One interest in a room more.
    Want(Channel, RoomKey),
    /// One interest in a room less.
    Unwant(Channel),
    /// Our own channel is this one from now on.
    Listen(Channel, Incarnation),
    /// The connection is made.
    Connected,
    /// The command on its way was answered for all its channels.
    Answered,
    /// The connection is gone or could not be made. `dice` is a random number from 0 to 1: it spreads the gateways.
    Lost {
        /// Where between the shortest and the longest pause of this attempt to try again.
        dice: f64,
    },
    /// Our own beat came back over our own channel.
    Echo,
    /// The time of [`Subscriptions::deadline`] has come.
    Time,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Make a connection.
    Connect,
    /// Give the connection up for its silence, and say [`Input::Lost`].
    Abandon,
    /// Send SUBSCRIBE.
    Subscribe(Vec<Channel>),
    /// Send UNSUBSCRIBE.
    Unsubscribe(Vec<Channel>),
    /// The channel is heard: whoever waits for it may go on.
    Heard(Channel),
    /// Something was lost and everything is heard again.
    Resumed,
}

/// What is known of one channel.
#[derive(Debug)]
struct Wish {
    topic: Topic,
    /// How many want it.
    interest: usize,
    /// Since nobody wants it: until when it is heard nevertheless.
    until: Option<Instant>,
    state: Hearing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    No,
    Asked,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected; a connection is to be made then.
    Pause { until: Instant },
    /// A connection is being made.
    Connecting,
    /// Connected; that many channels of `waiting` are left of those that were wanted at the start.
    Restoring { left: usize },
    /// Connected, and heard everything that was wanted at the start.
    Whole {
        /// The last sign that the whole path works.
        proof: Instant,
        /// Whether that is too long ago to trust it.
        stale: bool,
    },
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Subscriptions {
    wishes: HashMap<Channel, Wish>,
    gateway: Option<Channel>,
    /// Channels to ask for, oldest first. Some may have been given up or asked for since.
    waiting: VecDeque<Channel>,
    /// Channels to give up; their wishes are gone already.
    leaving: VecDeque<Channel>,
    /// Channels of the SUBSCRIBE on its way; empty for an UNSUBSCRIBE.
    on_its_way: Option<Vec<Channel>>,
    /// Ends of lingering, in order. Some may have been wanted again since.
    lingering: VecDeque<(Instant, Channel)>,
    phase: Phase,
    /// Connections tried since the last echo.
    attempts: u32,
    /// Whether something that was heard is not heard any more, and nobody was told.
    lost: bool,
    broken_since: Option<Instant>,
    gap: Duration,
    reconnects: u64,
    last_echo: Option<Instant>,
}

impl Subscriptions {
    /// Nothing wanted yet; the first connection is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            wishes: HashMap::new(),
            gateway: None,
            waiting: VecDeque::new(),
            leaving: VecDeque::new(),
            on_its_way: None,
            lingering: VecDeque::new(),
            phase: Phase::Pause { until: now },
            attempts: 0,
            lost: false,
            broken_since: None,
            gap: Duration::ZERO,
            reconnects: 0,
            last_echo: None,
        }
    }

    /// What a channel is about, if we want it or wanted it a moment ago.
    pub(super) fn topic(&self, channel: &str) -> Option<&Topic> {
        self.wishes.get(channel).map(|wish| &wish.topic)
    }

    /// Takes note of what happened at `now` and appends what is to be done, in order.
    pub(super) fn handle(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Want(channel, room) => self.want(channel, Topic::Room(room), actions),
            Input::Unwant(channel) => self.unwant(now, &channel),
            Input::Listen(channel, incarnation) => self.listen(now, channel, incarnation, actions),
            Input::Connected => self.connected(),
            Input::Answered => self.answered(now, actions),
            Input::Lost { dice } => self.lose(now, dice),
            Input::Echo => self.echo(now),
            Input::Time => self.time(now, actions),
        }
        self.proceed(now, actions);
    }

    /// When [`Input::Time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Pause { until } => Some(until),
            Phase::Connecting | Phase::Restoring { .. } => None,
            Phase::Whole { proof, stale } => {
                let patience = if stale { DEAD } else { STALE };
                self.gateway.is_some().then_some(proof + patience)
            }
        };
        let linger = self.lingering.front().map(|(until, _)| *until);
        phase.into_iter().chain(linger).min()
    }

    /// Whether everything wanted is heard, as far as we know.
    pub(super) fn whole(&self) -> bool {
        matches!(self.phase, Phase::Whole { .. })
    }

    /// How things stand.
    pub(super) fn status(&self) -> SubscriptionStatus {
        let link = match self.phase {
            Phase::Pause { .. } => LinkState::Backoff,
            Phase::Connecting | Phase::Restoring { .. } => LinkState::Connecting,
            Phase::Whole { stale: true, .. } => LinkState::Stale,
            Phase::Whole { stale: false, .. } => LinkState::Subscribed,
        };
        SubscriptionStatus {
            link,
            reconnects: self.reconnects,
            past_gaps: self.gap,
            broken_since: self.broken_since,
            last_echo: self.last_echo,
            malformed: 0,
        }
    }

    fn want(&mut self, channel: Channel, topic: Topic, actions: &mut Vec<Action>) {
        if let Some(wish) = self.wishes.get_mut(&channel) {
            wish.interest += 1;
            wish.until = None;
            if wish.state == Hearing::Yes {
                actions.push(Action::Heard(channel));
            }
            return;
        }
        self.wishes.insert(channel.clone(), Wish { topic, interest: 1, until: None, state: Hearing::No });
        self.waiting.push_back(channel);
    }

    fn unwant(&mut self, now: Instant, channel: &Channel) {
        // What is not heard yet has nothing to linger for.
        let heard = self.wishes.get(channel).is_some_and(|wish| wish.state == Hearing::Yes);
        self.give_up(channel, if heard { now + LINGER } else { now });
        self.linger_out(now);
    }

    fn listen(&mut self, now: Instant, channel: Channel, incarnation: Incarnation, actions: &mut Vec<Action>) {
        if self.gateway.as_ref() == Some(&channel) {
            if self.wishes.get(&channel).is_some_and(|wish| wish.state == Hearing::Yes) {
                actions.push(Action::Heard(channel));
            }
            return;
        }
        if let Some(before) = self.gateway.replace(channel.clone()) {
            self.give_up(&before, now);
            self.linger_out(now);
        }
        self.prove(now);
        self.want(channel, Topic::Gateway(incarnation), actions);
    }

    /// Starts the time within which an echo must come.
    fn prove(&mut self, now: Instant) {
        if let Phase::Whole { .. } = self.phase {
            self.phase = Phase::Whole { proof: now, stale: false };
        }
    }

    fn give_up(&mut self, channel: &Channel, until: Instant) {
        let Some(wish) = self.wishes.get_mut(channel) else {
            return;
        };
        wish.interest = wish.interest.saturating_sub(1);
        if wish.interest == 0 && wish.until.is_none() {
            wish.until = Some(until);
            let at = self.lingering.partition_point(|(other, _)| *other <= until);
            self.lingering.insert(at, (until, channel.clone()));
        }
    }

    fn connected(&mut self) {
        // Our own channel first: it proves the rest. Nothing that lingered survived the loss before.
        let own = self.gateway.clone();
        self.waiting = own.iter().cloned().collect();
        self.waiting.extend(self.wishes.keys().filter(|&channel| Some(channel) != own.as_ref()).cloned());
        self.phase = Phase::Restoring { left: self.waiting.len() };
    }

    fn answered(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for channel in self.on_its_way.take().into_iter().flatten() {
            let Some(wish) = self.wishes.get_mut(&channel) else {
                continue;
            };
            wish.state = Hearing::Yes;
            if wish.until.is_some_and(|until| until <= now) {
                self.end(channel);
            } else {
                actions.push(Action::Heard(channel));
            }
        }
    }

    fn lose(&mut self, now: Instant, dice: f64) {
        self.lost |= self.wishes.values().any(|wish| wish.state == Hearing::Yes);
        if let Phase::Whole { .. } = self.phase {
            self.broken_since = Some(now);
        }
        self.wishes.retain(|_, wish| wish.interest > 0);
        for wish in self.wishes.values_mut() {
            wish.state = Hearing::No;
        }
        self.waiting.clear();
        self.leaving.clear();
        self.lingering.clear();
        self.on_its_way = None;
        let longest = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(self.attempts)).clamp(2 * MIN_PAUSE, MAX_PAUSE);
        let pause = MIN_PAUSE + (longest - MIN_PAUSE).mul_f64(dice.clamp(0.0, 1.0));
        self.attempts = self.attempts.saturating_add(1);
        self.phase = Phase::Pause { until: now + pause };
    }

    fn echo(&mut self, now: Instant) {
        self.last_echo = Some(now);
        self.attempts = 0;
        self.prove(now);
    }

    fn time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.linger_out(now);
        match self.phase {
            Phase::Pause { until } if until <= now => {
                self.phase = Phase::Connecting;
                actions.push(Action::Connect);
            }
            Phase::Whole { proof, .. } if self.gateway.is_some() && proof + STALE <= now => {
                self.phase = Phase::Whole { proof, stale: true };
                if proof + DEAD <= now {
                    actions.push(Action::Abandon);
                }
            }
            _ => {}
        }
    }

    /// Ends what has lingered long enough. What is being asked for just then ends with the answer.
    fn linger_out(&mut self, now: Instant) {
        while let Some((until, channel)) = self.lingering.pop_front_if(|(until, _)| *until <= now) {
            if self.wishes.get(&channel).is_some_and(|wish| wish.until == Some(until) && wish.state != Hearing::Asked) {
                self.end(channel);
            }
        }
    }

    fn end(&mut self, channel: Channel) {
        if self.wishes.remove(&channel).is_some_and(|wish| wish.state == Hearing::Yes) {
            self.leaving.push_back(channel);
        }
    }

    /// Sends the next command if none is on its way, and notices when the connection has become whole.
    fn proceed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.on_its_way.is_some() || matches!(self.phase, Phase::Pause { .. } | Phase::Connecting) {
            return;
        }
        if !self.leaving.is_empty() {
            let chunk = self.leaving.len().min(CHUNK);
            actions.push(Action::Unsubscribe(self.leaving.drain(..chunk).collect()));
            self.on_its_way = Some(Vec::new());
            return;
        }
        if let Phase::Restoring { left: 0 } = self.phase {
            self.complete(now, actions);
        }
        let chunk = self.next_chunk();
        if !chunk.is_empty() {
            actions.push(Action::Subscribe(chunk.clone()));
            self.on_its_way = Some(chunk);
        } else if let Phase::Restoring { .. } = self.phase {
            self.complete(now, actions);
        }
    }

    fn next_chunk(&mut self) -> Vec<Channel> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK
            && let Some(channel) = self.waiting.pop_front()
        {
            if let Phase::Restoring { left } = &mut self.phase {
                *left = left.saturating_sub(1);
            }
            if let Some(wish) = self.wishes.get_mut(&channel)
                && wish.state == Hearing::No
            {
                wish.state = Hearing::Asked;
                chunk.push(channel);
            }
        }
        chunk
    }

    fn complete(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Whole { proof: now, stale: false };
        if let Some(since) = self.broken_since.take() {
            self.gap += now.saturating_duration_since(since);
        }
        if std::mem::take(&mut self.lost) {
            self.reconnects += 1;
            actions.push(Action::Resumed);
        }
    }
}

#[cfg(test)]
mod tests;
