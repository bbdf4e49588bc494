//! How long a connection may be silent, and when to ask for a sign of life. Pure: every `Instant` is passed in.
//!
//! Any frame counts as a sign of life. Somebody who asked for something within [`IDLE_AFTER`] is active and dropped after
//! [`ACTIVE_LIMIT`] of silence, everybody else after [`IDLE_LIMIT`]; a ping goes out at a third of that. A door that
//! cannot ping (text lines: a person with `nc` cannot pong) has no such limit; there TCP itself finds the dead.

use std::time::{Duration, Instant};

use presence::model::codes::CloseCode;

/// Silence that ends an active connection.
pub const ACTIVE_LIMIT: Duration = Duration::from_secs(90);
/// Silence that ends an idle connection.
pub const IDLE_LIMIT: Duration = Duration::from_secs(180);
/// Without a request for so long a connection is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(300);
/// How long a program may take to register.
pub const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// How long a person at a text door may take to register.
pub const REGISTER_LIMIT_LINES: Duration = Duration::from_secs(600);

/// What the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Ask for a sign of life.
    Ping,
    /// End the connection.
    Close(CloseCode),
}

/// The silence of one connection.
#[derive(Debug)]
pub struct Liveness {
    pings: bool,
    registered: bool,
    began: Instant,
    heard: Instant,
    acted: Instant,
    pinged: Instant,
}

impl Liveness {
    /// A connection that began now. `pings` is whether its door can ping.
    #[must_use]
    pub fn new(now: Instant, pings: bool) -> Self {
        Self { pings, registered: false, began: now, heard: now, acted: now, pinged: now }
    }

    /// A frame came, whatever it held.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The client asked for something.
    pub fn acted(&mut self, now: Instant) {
        self.heard = now;
        self.acted = now;
    }

    /// The session has begun.
    pub fn registered(&mut self, now: Instant) {
        self.registered = true;
        self.acted(now);
    }

    /// How often an active client is pinged, in milliseconds.
    #[must_use]
    pub fn heartbeat_ms(&self) -> u64 {
        (ACTIVE_LIMIT / 3).as_secs() * 1000
    }

    /// When [`Liveness::due`] is worth asking next; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.registered {
            return Some(self.began + self.register_limit());
        }
        if !self.pings {
            return None;
        }
        let limit = self.limit();
        Some((self.heard.max(self.pinged) + limit / 3).min(self.heard + limit))
    }

    /// What the clock asks for now. A ping is asked for once per third of the limit.
    pub fn due(&mut self, now: Instant) -> Due {
        if !self.registered {
            let late = now >= self.began + self.register_limit();
            return if late { Due::Close(CloseCode::RegisterTimeout) } else { Due::Nothing };
        }
        if !self.pings {
            return Due::Nothing;
        }
        let limit = self.limit();
        if now >= self.heard + limit {
            return Due::Close(CloseCode::Timeout);
        }
        if now >= self.heard.max(self.pinged) + limit / 3 {
            self.pinged = now;
            return Due::Ping;
        }
        Due::Nothing
    }

    /// Idleness is judged at the last sign of life, so that a limit never shrinks or grows while somebody is silent.
    fn limit(&self) -> Duration {
        let idle = self.heard.saturating_duration_since(self.acted) >= IDLE_AFTER;
        if idle { IDLE_LIMIT } else { ACTIVE_LIMIT }
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

    /// Runs the clock for `seconds` without a sound from the client; answers what was due and when.
    fn silence(liveness: &mut Liveness, from: Instant, seconds: u32) -> Vec<(u32, Due)> {
        let mut seen = Vec::new();
        for second in 1..=seconds {
            match liveness.due(from + SECOND * second) {
                Due::Nothing => {}
                Due::Close(code) => {
                    seen.push((second, Due::Close(code)));
                    return seen;
                }
                Due::Ping => seen.push((second, Due::Ping)),
            }
        }
        seen
    }

    #[test]
    fn an_active_client_is_pinged_at_30_and_60_and_dropped_at_90() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, true);
        liveness.registered(start);
        let expected = vec![(30, Due::Ping), (60, Due::Ping), (90, Due::Close(CloseCode::Timeout))];
        assert_eq!(silence(&mut liveness, start, 1000), expected);
    }

    #[test]
    fn an_idle_client_is_pinged_at_60_and_120_and_dropped_at_180() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, true);
        liveness.registered(start);
        let now = start + IDLE_AFTER;
        liveness.heard(now);
        let expected = vec![(60, Due::Ping), (120, Due::Ping), (180, Due::Close(CloseCode::Timeout))];
        assert_eq!(silence(&mut liveness, now, 1000), expected);
    }

    #[test]
    fn a_pong_is_a_sign_of_life_but_no_activity() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, true);
        liveness.registered(start);
        for step in 1..=20 {
            let now = start + SECOND * 30 * step;
            assert_ne!(liveness.due(now), Due::Close(CloseCode::Timeout), "after {step} pongs");
            liveness.heard(now);
        }
        assert_eq!(liveness.deadline().unwrap(), start + SECOND * 600 + SECOND * 60, "idle by now");
    }

    #[test]
    fn a_door_without_pings_has_no_limit_once_registered() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, false);
        assert_eq!(liveness.due(start + REGISTER_LIMIT_LINES), Due::Close(CloseCode::RegisterTimeout));
        liveness.registered(start);
        assert_eq!(liveness.deadline(), None);
        assert_eq!(liveness.due(start + SECOND * 86_400), Due::Nothing);
    }

    #[test]
    fn the_deadline_is_never_late() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, true);
        liveness.registered(start);
        for _ in 0..3 {
            let deadline = liveness.deadline().unwrap();
            assert_eq!(liveness.due(deadline - Duration::from_millis(1)), Due::Nothing);
            assert_ne!(liveness.due(deadline), Due::Nothing);
        }
    }
}
