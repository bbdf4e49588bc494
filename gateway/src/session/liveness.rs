//! The silence of a connection: when to ping it and when to close it. Pure: every `Instant` is passed in.
//!
//! Any frame is a sign of life. A client that sent a request within [`IDLE_AFTER`] is active and closed after
//! [`ACTIVE_LIMIT`] of silence, any other after [`IDLE_LIMIT`]; it is pinged at each third of its limit, and in
//! any case once in [`HeartbeatPolicy::sign_within`], for proxies between. A dialect without pings has no such limit (a
//! person with `nc` cannot pong): there TCP itself finds dead peers.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use presence::model::codes::CloseCode;

/// Silence that ends an active connection.
pub const ACTIVE_LIMIT: Duration = Duration::from_secs(90);
/// Silence that ends an idle connection.
pub const IDLE_LIMIT: Duration = Duration::from_secs(180);
/// Time without a request after which a connection is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(300);
/// Time for a client to register.
pub const REGISTER_LIMIT: Duration = Duration::from_secs(30);

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessAction {
    /// None yet.
    Nothing,
    /// Ping the client.
    Ping,
    /// End the connection.
    Close(CloseCode),
}

/// The heartbeat of one connection, by its dialect and the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatPolicy {
    /// True for dialects with pings.
    pub pings: bool,
    /// The maximum time between two signs of life to a client with pings, and the silence before a sign to any other.
    pub sign_within: Option<Duration>,
}

/// The silence of one connection.
#[derive(Debug)]
pub struct Liveness {
    pings: bool,
    is_registered: bool,
    /// Compact: every connection has one.
    sign_within_ms: Option<NonZeroU32>,
    opened_at: Instant,
    received_at: Instant,
    /// The last request.
    acted_at: Instant,
    pinged_at: Instant,
}

impl Liveness {
    /// A connection opened now.
    #[must_use]
    pub fn new(now: Instant, policy: HeartbeatPolicy) -> Self {
        let [opened_at, received_at, acted_at, pinged_at] = [now; 4];
        let mut liveness = Self {
            pings: false,
            is_registered: false,
            sign_within_ms: None,
            opened_at,
            received_at,
            acted_at,
            pinged_at,
        };
        liveness.set_policy(policy);
        liveness
    }

    /// Sets the policy from now on.
    pub fn set_policy(&mut self, HeartbeatPolicy { pings, sign_within }: HeartbeatPolicy) {
        let millis = |within: Duration| NonZeroU32::new(u32::try_from(within.as_millis()).unwrap_or(u32::MAX));
        self.pings = pings;
        self.sign_within_ms = sign_within.and_then(millis);
    }

    fn sign_within(&self) -> Option<Duration> {
        self.sign_within_ms.map(|millis| Duration::from_millis(millis.get().into()))
    }

    /// Returns the time since the connection was opened.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }

    /// Returns true if the client was pinged and has not answered yet.
    #[must_use]
    pub fn is_pinged(&self) -> bool {
        self.received_at < self.pinged_at
    }

    /// Notes a frame, whatever it holds.
    pub fn received(&mut self, now: Instant) {
        self.received_at = now;
    }

    /// Notes a request.
    pub fn acted(&mut self, now: Instant) {
        self.received_at = now;
        self.acted_at = now;
    }

    /// Notes that the session has begun.
    pub fn registered(&mut self, now: Instant) {
        self.is_registered = true;
        self.acted(now);
    }

    /// Returns the interval of pings to an active client, in milliseconds.
    #[must_use]
    pub fn heartbeat_ms(&self) -> u64 {
        let interval = ACTIVE_LIMIT / 3;
        self.sign_within().map_or(interval, |within| within.min(interval)).as_secs() * 1000
    }

    /// Returns the time at which [`Liveness::due`] is to be asked next; `None` for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.closed_at().map(|(at, _)| at), self.sign_at()].into_iter().flatten().min()
    }

    /// Returns the action that is due now. A ping is due once in each of its intervals.
    pub fn due(&mut self, now: Instant) -> LivenessAction {
        if let Some((at, code)) = self.closed_at()
            && now >= at
        {
            return LivenessAction::Close(code);
        }
        if self.sign_at().is_some_and(|at| now >= at) {
            self.pinged_at = now;
            return LivenessAction::Ping;
        }
        LivenessAction::Nothing
    }

    /// Returns the time at which silence ends the connection.
    fn closed_at(&self) -> Option<(Instant, CloseCode)> {
        if !self.is_registered {
            return Some((self.opened_at + REGISTER_LIMIT, CloseCode::RegisterTimeout));
        }
        self.pings.then(|| (self.received_at + self.limit(), CloseCode::Timeout))
    }

    /// Returns the time of the next sign of life to the client.
    fn sign_at(&self) -> Option<Instant> {
        let silent_since = self.received_at.max(self.pinged_at);
        if !self.pings {
            return self.sign_within().map(|within| silent_since + within);
        }
        // Some proxies count each direction apart, so input does not delay this one.
        let for_proxies = self.sign_within().map(|within| self.pinged_at + within);
        let for_client = self.is_registered.then(|| silent_since + self.limit() / 3);
        [for_proxies, for_client].into_iter().flatten().min()
    }

    /// Idleness is measured at the last frame, so that a limit never changes during a silence.
    fn limit(&self) -> Duration {
        let is_idle = self.received_at.saturating_duration_since(self.acted_at) >= IDLE_AFTER;
        if is_idle { IDLE_LIMIT } else { ACTIVE_LIMIT }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PINGS: HeartbeatPolicy = HeartbeatPolicy { pings: true, sign_within: None };
    const LINES: HeartbeatPolicy = HeartbeatPolicy { pings: false, sign_within: None };

    /// Runs the clock for `seconds` of silence; returns each action that was due, with its second.
    fn silence(liveness: &mut Liveness, from: Instant, seconds: u32) -> Vec<(u32, LivenessAction)> {
        let mut actions = Vec::new();
        for second in 1..=seconds {
            match liveness.due(from + SECOND * second) {
                LivenessAction::Nothing => {}
                LivenessAction::Close(code) => {
                    actions.push((second, LivenessAction::Close(code)));
                    return actions;
                }
                LivenessAction::Ping => actions.push((second, LivenessAction::Ping)),
            }
        }
        actions
    }

    #[test]
    fn active_client_is_pinged_and_closed_on_time() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, PINGS);
        liveness.registered(start);
        let expected = vec![
            (30, LivenessAction::Ping),
            (60, LivenessAction::Ping),
            (90, LivenessAction::Close(CloseCode::Timeout)),
        ];
        assert_eq!(silence(&mut liveness, start, 1000), expected);
    }

    #[test]
    fn idle_client_is_pinged_and_closed_on_time() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, PINGS);
        liveness.registered(start);
        let now = start + IDLE_AFTER;
        liveness.received(now);
        let expected = vec![
            (60, LivenessAction::Ping),
            (120, LivenessAction::Ping),
            (180, LivenessAction::Close(CloseCode::Timeout)),
        ];
        assert_eq!(silence(&mut liveness, now, 1000), expected);
    }

    #[test]
    fn pong_keeps_a_client_alive_but_not_active() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, PINGS);
        liveness.registered(start);
        for step in 1..=20 {
            let now = start + SECOND * 30 * step;
            assert_ne!(liveness.due(now), LivenessAction::Close(CloseCode::Timeout), "closed after {step} pongs");
            liveness.received(now);
        }
        assert_eq!(liveness.deadline().unwrap(), start + SECOND * 600 + SECOND * 60, "the client is idle");
    }

    #[test]
    fn dialect_without_pings_has_no_limit_once_registered() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, LINES);
        assert_eq!(liveness.due(start + REGISTER_LIMIT), LivenessAction::Close(CloseCode::RegisterTimeout));
        liveness.registered(start);
        assert_eq!(liveness.deadline(), None);
        assert_eq!(liveness.due(start + SECOND * 86_400), LivenessAction::Nothing);
    }

    #[test]
    fn deadline_is_never_after_the_due_action() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, PINGS);
        liveness.registered(start);
        for _ in 0..3 {
            let deadline = liveness.deadline().unwrap();
            assert_eq!(liveness.due(deadline - Duration::from_millis(1)), LivenessAction::Nothing);
            assert_ne!(liveness.due(deadline), LivenessAction::Nothing);
        }
    }

    #[test]
    fn idle_client_is_pinged_within_the_proxy_interval() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, HeartbeatPolicy { sign_within: Some(SECOND * 45), ..PINGS });
        liveness.registered(start);
        let (mut last_sign, mut longest) = (start, Duration::ZERO);
        for second in 1..=7200 {
            let now = start + SECOND * second;
            match liveness.due(now) {
                LivenessAction::Ping => {
                    longest = longest.max(now - last_sign);
                    last_sign = now;
                    liveness.received(now);
                }
                action => assert_eq!(action, LivenessAction::Nothing, "second {second}"),
            }
        }
        assert_eq!(longest, SECOND * 45, "an idle client is pinged no more often than proxies need");
        assert_eq!(liveness.heartbeat_ms(), 30_000);
    }

    #[test]
    fn input_does_not_delay_the_frame_for_proxies() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, HeartbeatPolicy { sign_within: Some(SECOND * 45), ..PINGS });
        liveness.registered(start);
        for second in 1..45 {
            liveness.received(start + SECOND * second);
            assert_eq!(liveness.due(start + SECOND * second), LivenessAction::Nothing);
        }
        assert_eq!(liveness.due(start + SECOND * 45), LivenessAction::Ping);
    }

    #[test]
    fn proxy_interval_keeps_the_limits_of_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, HeartbeatPolicy { sign_within: Some(SECOND), ..PINGS });
        let unregistered = silence(&mut liveness, start, 1000);
        assert_eq!(unregistered.last(), Some(&(30, LivenessAction::Close(CloseCode::RegisterTimeout))));
        assert_eq!(unregistered.len(), 30, "one ping a second before the close");
        liveness.registered(start);
        assert_eq!(silence(&mut liveness, start, 1000).last(), Some(&(90, LivenessAction::Close(CloseCode::Timeout))));
        assert_eq!(liveness.heartbeat_ms(), 1000);
    }

    #[test]
    fn quiet_line_client_receives_a_sign_if_set() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, HeartbeatPolicy { sign_within: Some(SECOND * 50), ..LINES });
        liveness.registered(start);
        let signs = silence(&mut liveness, start, 120);
        assert_eq!(signs, [(50, LivenessAction::Ping), (100, LivenessAction::Ping)]);
        liveness.acted(start + SECOND * 120);
        assert_eq!(liveness.deadline(), Some(start + SECOND * 170));
    }
}
