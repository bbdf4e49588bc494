//! The silence of a connection: when to ping it and when to close it. Pure: every `Instant` is passed in.
//!
//! Any frame is a sign of life. A client that sent a request within [`IDLE_AFTER`] is active and closed after
//! [`ACTIVE_LIMIT`] of silence, any other after [`IDLE_LIMIT`]; it is pinged at each third of its limit. A dialect
//! without pings has no such limit (a person with `nc` cannot pong): there TCP itself finds dead peers.

use std::time::{Duration, Instant};

use presence::model::codes::CloseCode;

/// Silence that ends an active connection.
pub const ACTIVE_LIMIT: Duration = Duration::from_secs(90);
/// Silence that ends an idle connection.
pub const IDLE_LIMIT: Duration = Duration::from_secs(180);
/// Time without a request after which a connection is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(300);
/// Time for a program to register.
pub const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// Time for a person on a line connection to register.
pub const REGISTER_LIMIT_LINES: Duration = Duration::from_secs(600);

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

/// The silence of one connection.
#[derive(Debug)]
pub struct Liveness {
    pings: bool,
    is_registered: bool,
    opened_at: Instant,
    received_at: Instant,
    /// The last request.
    acted_at: Instant,
    pinged_at: Instant,
}

impl Liveness {
    /// A connection opened now. `pings` is set for dialects with pings.
    #[must_use]
    pub fn new(now: Instant, pings: bool) -> Self {
        Self { pings, is_registered: false, opened_at: now, received_at: now, acted_at: now, pinged_at: now }
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
        (ACTIVE_LIMIT / 3).as_secs() * 1000
    }

    /// Returns the time at which [`Liveness::due`] is to be asked next; `None` for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.is_registered {
            return Some(self.opened_at + self.register_limit());
        }
        if !self.pings {
            return None;
        }
        let limit = self.limit();
        Some((self.received_at.max(self.pinged_at) + limit / 3).min(self.received_at + limit))
    }

    /// Returns the action that is due now. A ping is due once per third of the limit.
    pub fn due(&mut self, now: Instant) -> LivenessAction {
        if !self.is_registered {
            let is_late = now >= self.opened_at + self.register_limit();
            return if is_late { LivenessAction::Close(CloseCode::RegisterTimeout) } else { LivenessAction::Nothing };
        }
        if !self.pings {
            return LivenessAction::Nothing;
        }
        let limit = self.limit();
        if now >= self.received_at + limit {
            return LivenessAction::Close(CloseCode::Timeout);
        }
        if now >= self.received_at.max(self.pinged_at) + limit / 3 {
            self.pinged_at = now;
            return LivenessAction::Ping;
        }
        LivenessAction::Nothing
    }

    /// Idleness is measured at the last frame, so that a limit never changes during a silence.
    fn limit(&self) -> Duration {
        let is_idle = self.received_at.saturating_duration_since(self.acted_at) >= IDLE_AFTER;
        if is_idle { IDLE_LIMIT } else { ACTIVE_LIMIT }
    }

    fn register_limit(&self) -> Duration {
        if self.pings { REGISTER_LIMIT } else { REGISTER_LIMIT_LINES }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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
        let mut liveness = Liveness::new(start, true);
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
        let mut liveness = Liveness::new(start, true);
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
        let mut liveness = Liveness::new(start, true);
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
        let mut liveness = Liveness::new(start, false);
        assert_eq!(liveness.due(start + REGISTER_LIMIT_LINES), LivenessAction::Close(CloseCode::RegisterTimeout));
        liveness.registered(start);
        assert_eq!(liveness.deadline(), None);
        assert_eq!(liveness.due(start + SECOND * 86_400), LivenessAction::Nothing);
    }

    #[test]
    fn deadline_is_never_after_the_due_action() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, true);
        liveness.registered(start);
        for _ in 0..3 {
            let deadline = liveness.deadline().unwrap();
            assert_eq!(liveness.due(deadline - Duration::from_millis(1)), LivenessAction::Nothing);
            assert_ne!(liveness.due(deadline), LivenessAction::Nothing);
        }
    }
}
