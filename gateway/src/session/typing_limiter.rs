//! The rate limit of typing notices: one for each target every few seconds, however often the client sends them.
//!
//! Part of the session state, asked before a notice is passed on. Bounded: beyond a number of targets further notices
//! are dropped, which loses nothing of lasting value. Pure: every `Instant` is passed in.

use std::time::{Duration, Instant};

use crate::message::Target;

/// The shortest time between two notices to one target.
const PAUSE: Duration = Duration::from_secs(3);
/// Maximum number of targets within that time.
const TARGETS_MAX: usize = 16;

/// The limit of one session. Boxed: most clients announce nothing.
#[derive(Debug, Default)]
pub(super) struct TypingLimiter(Option<Box<RecentNotices>>);

/// The targets of recent notices, and when each was notified.
#[derive(Debug, Default)]
struct RecentNotices(Vec<(Target, Instant)>);

impl TypingLimiter {
    /// Returns true, and counts a notice, if one may be passed on to the target now.
    pub(super) fn admit(&mut self, now: Instant, to: &Target) -> bool {
        let notices = &mut self.0.get_or_insert_default().0;
        notices.retain(|(_, notified)| now.saturating_duration_since(*notified) < PAUSE);
        if notices.len() >= TARGETS_MAX || notices.iter().any(|(target, _)| target == to) {
            return false;
        }
        notices.push((to.clone(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::model::RoomName;

    use super::*;

    fn room(number: usize) -> Target {
        Target::Room(RoomName::parse(&format!("#room{number}")).unwrap())
    }

    #[test]
    fn limiter_admits_each_target_once_per_pause() {
        let (mut limiter, start) = (TypingLimiter::default(), Instant::now());
        assert!(limiter.admit(start, &room(0)));
        assert!(!limiter.admit(start + PAUSE / 2, &room(0)), "the target was notified during the pause");
        assert!(limiter.admit(start + PAUSE / 2, &room(1)), "another target has its own pause");
        assert!(limiter.admit(start + PAUSE, &room(0)), "the pause is over");
        for number in 2..TARGETS_MAX {
            assert!(limiter.admit(start + PAUSE, &room(number)));
        }
        assert!(!limiter.admit(start + PAUSE, &room(TARGETS_MAX)), "one target more than the maximum");
        assert!(limiter.admit(start + PAUSE * 2, &room(TARGETS_MAX)));
        assert_eq!(limiter.0.unwrap().0.len(), 1);
    }
}
