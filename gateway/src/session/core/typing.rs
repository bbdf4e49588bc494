//! How often others are told that somebody is writing: once in a while per target, however often the client says so.
//!
//! Kept by the core, which asks it before it has the word passed on. Bounded: whoever writes to very many at once is not
//! passed on to all of them, and nothing is lost by that.

use std::time::{Duration, Instant};

use crate::message::Target;

/// Who was told is not told again before this time.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// Most targets that are told within that time.
const MOST: usize = 16;

/// Who was told lately, and when.
#[derive(Debug, Default)]
pub(super) struct Typing(Vec<(Target, Instant)>);

impl Typing {
    /// Whether the target knows already, or cannot be told now. If not, it is being told.
    pub(super) fn is_told(&mut self, now: Instant, to: &Target) -> bool {
        self.0.retain(|(_, told)| now.saturating_duration_since(*told) < AGAIN_AFTER);
        if self.0.len() >= MOST || self.0.iter().any(|(told, _)| told == to) {
            return true;
        }
        self.0.push((to.clone(), now));
        false
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
    fn each_target_is_told_once_in_a_while_and_not_too_many_at_once() {
        let (mut typing, start) = (Typing::default(), Instant::now());
        assert!(!typing.is_told(start, &room(0)));
        assert!(typing.is_told(start + AGAIN_AFTER / 2, &room(0)), "it knows");
        assert!(!typing.is_told(start + AGAIN_AFTER / 2, &room(1)), "another does not");
        assert!(!typing.is_told(start + AGAIN_AFTER, &room(0)), "it may have forgotten");
        for number in 2..MOST {
            assert!(!typing.is_told(start + AGAIN_AFTER, &room(number)));
        }
        assert!(typing.is_told(start + AGAIN_AFTER, &room(MOST)), "one too many");
        assert!(!typing.is_told(start + AGAIN_AFTER * 2, &room(MOST)));
        assert_eq!(typing.0.len(), 1);
    }
}
