//! The deciding half of the subscriber: the wanted channels and their states, without a socket or a clock.
//!
//! `super::subscriber` passes it [`SubscriptionInput`]s with their times and performs the [`SubscriptionAction`]s that
//! [`SubscriptionMachine`] returns. Messages themselves never pass through it.
//!
//! # Rules
//! - One SUBSCRIBE or UNSUBSCRIBE is pending at a time; requests made meanwhile go with the next one. So every answer
//!   belongs to one command, and a storm of joins needs few commands.
//! - A channel is confirmed once its newest SUBSCRIBE was answered on the present connection. A loss of the connection
//!   or an UNSUBSCRIBE ends that. UNSUBSCRIBE is sent only for a confirmed channel without any interest.
//! - A refused SUBSCRIBE of rooms ends the interest in them. The rest of a whole connection stays as it is.
//! - A connection is whole once every channel that was wanted at its start is confirmed. If a confirmed channel was
//!   lost before, [`SubscriptionAction::Restored`] reports it then, once.
//! - A whole connection must bring echoes of the own beat. Without one for [`DEAD_AFTER`] it is abandoned, even if its
//!   socket is open: it may be half open. While Redis refuses the beats, no echo is due.
//! - Only an echo resets the back-off.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::{Incarnation, RoomKey};

use crate::backplane::contract::LINGER;
use crate::backplane::{LinkState, SubscriptionStatus};

/// Maximum number of channels in one command, few enough to delay no message for long.
pub(super) const COMMAND_CHANNELS_MAX: usize = 500;
/// The time without an echo after which the subscription is no longer trusted.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(3);
/// The time without an echo after which the connection is abandoned.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);
/// The shortest pause before a reconnect.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a reconnect.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The name of a channel, shared by all its uses.
pub(super) type ChannelName = Arc<str>;

/// The subject of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChannelTopic {
    /// A room's channel.
    Room(RoomKey),
    /// A gateway's own channel.
    Gateway(Incarnation),
}

/// An event for the machine.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SubscriptionInput {
    /// An additional interest in a room.
    Subscribe(ChannelName, RoomKey),
    /// The release of one interest in a room.
    Unsubscribe(ChannelName),
    /// A new channel of this gateway, which replaces the former one.
    SubscribeOwnChannel(ChannelName, Incarnation),
    /// The connection is established.
    Connected,
    /// The pending command was answered for all its channels.
    Answered,
    /// The pending SUBSCRIBE was refused for all its channels, as [`SubscriptionMachine::survives_refusal`] allows.
    Refused,
    /// The connection was lost or could not be established.
    Lost {
        /// A random number from 0 to 1: the pause's place between shortest and longest. It spreads the gateways.
        jitter: f64,
    },
    /// An echo of the own beat arrived.
    Echo,
    /// Redis refuses the own beats, so no echo is due.
    BeatsRefused,
    /// The time of [`SubscriptionMachine::deadline`] is reached.
    Deadline,
}

/// A command to the task.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SubscriptionAction {
    /// Open a connection.
    Connect,
    /// Close the silent connection and report [`SubscriptionInput::Lost`].
    Abandon,
    /// Send SUBSCRIBE.
    Subscribe(Vec<ChannelName>),
    /// Send UNSUBSCRIBE.
    Unsubscribe(Vec<ChannelName>),
    /// The channel is confirmed: its waiters can be answered.
    Confirmed(ChannelName),
    /// The channel is refused: its waiters get an error.
    Refused(ChannelName),
    /// The subscription is whole again after a loss.
    Restored,
}

/// The state of one wanted or lingering channel.
#[derive(Debug)]
struct ChannelRecord {
    topic: ChannelTopic,
    /// The number of interests.
    interest: usize,
    /// The end of its lingering, once there is no interest.
    until: Option<Instant>,
    state: ConfirmState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConfirmState {
    Unsent,
    Pending,
    Confirmed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkPhase {
    /// Not connected until the next attempt at that time.
    Pause { until: Instant },
    /// A connection is being opened.
    Connecting,
    /// Connected; `left` is the number of channels in `unsent` that were wanted at the start.
    Restoring { left: usize },
    /// Connected, and every channel that was wanted at the start is confirmed.
    Whole {
        /// The time of the newest echo, or of the start of waiting for one.
        proven_at: Instant,
        /// True if that was too long ago.
        stale: bool,
    },
}

/// The state of the subscription.
#[derive(Debug)]
pub(super) struct SubscriptionMachine {
    channels: HashMap<ChannelName, ChannelRecord>,
    gateway: Option<ChannelName>,
    /// Channels to subscribe, oldest first. Some may have been released or subscribed since.
    unsent: VecDeque<ChannelName>,
    /// Channels to unsubscribe; their records are already removed.
    leaving: VecDeque<ChannelName>,
    /// The channels of the pending SUBSCRIBE; empty for an UNSUBSCRIBE.
    pending_command: Option<Vec<ChannelName>>,
    /// Ends of lingering, in order. Some channels may be wanted again since.
    lingering: VecDeque<(Instant, ChannelName)>,
    phase: LinkPhase,
    /// Connection attempts since the last echo.
    failed_attempts: u32,
    /// True if a confirmed channel was lost and [`SubscriptionAction::Restored`] is not yet reported.
    lost: bool,
    broken_since: Option<Instant>,
    past_gaps: Duration,
    reconnects: u64,
    last_echo: Option<Instant>,
}

impl SubscriptionMachine {
    /// Starts without channels; the first connection is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            channels: HashMap::new(),
            gateway: None,
            unsent: VecDeque::new(),
            leaving: VecDeque::new(),
            pending_command: None,
            lingering: VecDeque::new(),
            phase: LinkPhase::Pause { until: now },
            failed_attempts: 0,
            lost: false,
            broken_since: None,
            past_gaps: Duration::ZERO,
            reconnects: 0,
            last_echo: None,
        }
    }

    /// Returns the subject of a channel that is wanted or lingers.
    pub(super) fn topic(&self, channel: &str) -> Option<&ChannelTopic> {
        self.channels.get(channel).map(|record| &record.topic)
    }

    /// Applies an input of the time `now` and appends the resulting actions, in order.
    pub(super) fn handle(&mut self, now: Instant, input: SubscriptionInput, actions: &mut Vec<SubscriptionAction>) {
        match input {
            SubscriptionInput::Subscribe(channel, room) => self.subscribe(channel, ChannelTopic::Room(room), actions),
            SubscriptionInput::Unsubscribe(channel) => self.unsubscribe(now, &channel),
            SubscriptionInput::SubscribeOwnChannel(channel, incarnation) => {
                self.subscribe_own_channel(now, channel, incarnation, actions)
            }
            SubscriptionInput::Connected => self.start_restoring(),
            SubscriptionInput::Answered => self.confirm_pending(now, actions),
            SubscriptionInput::Refused => self.refuse_pending(actions),
            SubscriptionInput::Lost { jitter } => self.lose(now, jitter),
            SubscriptionInput::Echo => self.note_echo(now),
            SubscriptionInput::BeatsRefused => self.restart_echo_timer(now),
            SubscriptionInput::Deadline => self.reach_deadline(now, actions),
        }
        self.proceed(now, actions);
    }

    /// Returns the time at which [`SubscriptionInput::Deadline`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            LinkPhase::Pause { until } => Some(until),
            LinkPhase::Connecting | LinkPhase::Restoring { .. } => None,
            LinkPhase::Whole { proven_at, stale } => {
                let limit = if stale { DEAD_AFTER } else { STALE_AFTER };
                self.gateway.is_some().then_some(proven_at + limit)
            }
        };
        let linger = self.lingering.front().map(|(until, _)| *until);
        phase.into_iter().chain(linger).min()
    }

    /// Returns true if the present connection is whole.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.phase, LinkPhase::Whole { .. })
    }

    /// Returns true if a refusal of the pending command concerns new rooms only. Any other refusal needs a new attempt.
    pub(super) fn survives_refusal(&self) -> bool {
        let is_of_new_rooms = |channels: &Vec<ChannelName>| {
            !channels.is_empty() && channels.iter().all(|channel| Some(channel) != self.gateway.as_ref())
        };
        self.is_whole() && self.pending_command.as_ref().is_some_and(is_of_new_rooms)
    }

    /// Returns the state for readiness and metrics.
    pub(super) fn status(&self) -> SubscriptionStatus {
        let link = match self.phase {
            LinkPhase::Pause { .. } => LinkState::Backoff,
            LinkPhase::Connecting | LinkPhase::Restoring { .. } => LinkState::Connecting,
            LinkPhase::Whole { stale: true, .. } => LinkState::Stale,
            LinkPhase::Whole { stale: false, .. } => LinkState::Subscribed,
        };
        SubscriptionStatus {
            link,
            reconnects: self.reconnects,
            past_gaps: self.past_gaps,
            broken_since: self.broken_since,
            last_echo: self.last_echo,
            malformed: 0,
        }
    }

    fn subscribe(&mut self, channel: ChannelName, topic: ChannelTopic, actions: &mut Vec<SubscriptionAction>) {
        if let Some(record) = self.channels.get_mut(&channel) {
            record.interest += 1;
            record.until = None;
            if record.state == ConfirmState::Confirmed {
                actions.push(SubscriptionAction::Confirmed(channel));
            }
            return;
        }
        self.channels
            .insert(channel.clone(), ChannelRecord { topic, interest: 1, until: None, state: ConfirmState::Unsent });
        self.unsent.push_back(channel);
    }

    fn unsubscribe(&mut self, now: Instant, channel: &ChannelName) {
        // Lingering saves a new SUBSCRIBE only for a confirmed channel.
        let is_confirmed = self.channels.get(channel).is_some_and(|record| record.state == ConfirmState::Confirmed);
        self.release(channel, if is_confirmed { now + LINGER } else { now });
        self.end_lingering(now);
    }

    fn subscribe_own_channel(
        &mut self,
        now: Instant,
        channel: ChannelName,
        incarnation: Incarnation,
        actions: &mut Vec<SubscriptionAction>,
    ) {
        if self.gateway.as_ref() == Some(&channel) {
            if self.channels.get(&channel).is_some_and(|record| record.state == ConfirmState::Confirmed) {
                actions.push(SubscriptionAction::Confirmed(channel));
            }
            return;
        }
        if let Some(former) = self.gateway.replace(channel.clone()) {
            self.release(&former, now);
            self.end_lingering(now);
        }
        self.restart_echo_timer(now);
        self.subscribe(channel, ChannelTopic::Gateway(incarnation), actions);
    }

    /// Starts the time within which an echo must arrive.
    fn restart_echo_timer(&mut self, now: Instant) {
        if let LinkPhase::Whole { .. } = self.phase {
            self.phase = LinkPhase::Whole { proven_at: now, stale: false };
        }
    }

    fn release(&mut self, channel: &ChannelName, until: Instant) {
        let Some(record) = self.channels.get_mut(channel) else {
            return;
        };
        record.interest = record.interest.saturating_sub(1);
        if record.interest == 0 && record.until.is_none() {
            record.until = Some(until);
            let at = self.lingering.partition_point(|(other, _)| *other <= until);
            self.lingering.insert(at, (until, channel.clone()));
        }
    }

    fn start_restoring(&mut self) {
        // The gateway's own channel goes first: its echoes prove the rest. No lingering channel survived the loss.
        let own = self.gateway.clone();
        self.unsent = own.iter().cloned().collect();
        self.unsent.extend(self.channels.keys().filter(|&channel| Some(channel) != own.as_ref()).cloned());
        self.phase = LinkPhase::Restoring { left: self.unsent.len() };
    }

    fn confirm_pending(&mut self, now: Instant, actions: &mut Vec<SubscriptionAction>) {
        for channel in self.pending_command.take().into_iter().flatten() {
            let Some(record) = self.channels.get_mut(&channel) else {
                continue;
            };
            record.state = ConfirmState::Confirmed;
            if record.until.is_some_and(|until| until <= now) {
                self.end(channel);
            } else {
                actions.push(SubscriptionAction::Confirmed(channel));
            }
        }
    }

    /// Removes the channels of the pending command: every interest in them waits for this answer.
    fn refuse_pending(&mut self, actions: &mut Vec<SubscriptionAction>) {
        for channel in self.pending_command.take().into_iter().flatten() {
            self.channels.remove(&channel);
            actions.push(SubscriptionAction::Refused(channel));
        }
    }

    fn lose(&mut self, now: Instant, jitter: f64) {
        self.lost |= self.channels.values().any(|record| record.state == ConfirmState::Confirmed);
        if let LinkPhase::Whole { .. } = self.phase {
            self.broken_since = Some(now);
        }
        self.channels.retain(|_, record| record.interest > 0);
        for record in self.channels.values_mut() {
            record.state = ConfirmState::Unsent;
        }
        self.unsent.clear();
        self.leaving.clear();
        self.lingering.clear();
        self.pending_command = None;
        let longest =
            PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.failed_attempts)).clamp(2 * PAUSE_MIN, PAUSE_MAX);
        let pause = PAUSE_MIN + (longest - PAUSE_MIN).mul_f64(jitter.clamp(0.0, 1.0));
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        self.phase = LinkPhase::Pause { until: now + pause };
    }

    fn note_echo(&mut self, now: Instant) {
        self.last_echo = Some(now);
        self.failed_attempts = 0;
        self.restart_echo_timer(now);
    }

    fn reach_deadline(&mut self, now: Instant, actions: &mut Vec<SubscriptionAction>) {
        self.end_lingering(now);
        match self.phase {
            LinkPhase::Pause { until } if until <= now => {
                self.phase = LinkPhase::Connecting;
                actions.push(SubscriptionAction::Connect);
            }
            LinkPhase::Whole { proven_at, .. } if self.gateway.is_some() && proven_at + STALE_AFTER <= now => {
                self.phase = LinkPhase::Whole { proven_at, stale: true };
                if proven_at + DEAD_AFTER <= now {
                    actions.push(SubscriptionAction::Abandon);
                }
            }
            _ => {}
        }
    }

    /// Ends channels that have lingered long enough. A channel with a pending SUBSCRIBE ends with the answer.
    fn end_lingering(&mut self, now: Instant) {
        while let Some((until, channel)) = self.lingering.pop_front_if(|(until, _)| *until <= now) {
            if self
                .channels
                .get(&channel)
                .is_some_and(|record| record.until == Some(until) && record.state != ConfirmState::Pending)
            {
                self.end(channel);
            }
        }
    }

    fn end(&mut self, channel: ChannelName) {
        if self.channels.remove(&channel).is_some_and(|record| record.state == ConfirmState::Confirmed) {
            self.leaving.push_back(channel);
        }
    }

    /// Sends the next command if none is pending, and completes a connection that has become whole.
    fn proceed(&mut self, now: Instant, actions: &mut Vec<SubscriptionAction>) {
        if self.pending_command.is_some() || matches!(self.phase, LinkPhase::Pause { .. } | LinkPhase::Connecting) {
            return;
        }
        if !self.leaving.is_empty() {
            let batch = self.leaving.len().min(COMMAND_CHANNELS_MAX);
            actions.push(SubscriptionAction::Unsubscribe(self.leaving.drain(..batch).collect()));
            self.pending_command = Some(Vec::new());
            return;
        }
        if let LinkPhase::Restoring { left: 0 } = self.phase {
            self.complete(now, actions);
        }
        let batch = self.next_batch();
        if !batch.is_empty() {
            actions.push(SubscriptionAction::Subscribe(batch.clone()));
            self.pending_command = Some(batch);
        } else if let LinkPhase::Restoring { .. } = self.phase {
            self.complete(now, actions);
        }
    }

    fn next_batch(&mut self) -> Vec<ChannelName> {
        let mut batch = Vec::new();
        while batch.len() < COMMAND_CHANNELS_MAX
            && let Some(channel) = self.unsent.pop_front()
        {
            if let LinkPhase::Restoring { left } = &mut self.phase {
                *left = left.saturating_sub(1);
            }
            if let Some(record) = self.channels.get_mut(&channel)
                && record.state == ConfirmState::Unsent
            {
                record.state = ConfirmState::Pending;
                batch.push(channel);
            }
        }
        batch
    }

    fn complete(&mut self, now: Instant, actions: &mut Vec<SubscriptionAction>) {
        self.phase = LinkPhase::Whole { proven_at: now, stale: false };
        if let Some(since) = self.broken_since.take() {
            self.past_gaps += now.saturating_duration_since(since);
        }
        if std::mem::take(&mut self.lost) {
            self.reconnects += 1;
            actions.push(SubscriptionAction::Restored);
        }
    }
}

#[cfg(test)]
mod tests;
