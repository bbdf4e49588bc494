//! [`TokenExpiry`]: the time at which the token of a session's user expires. Pure: every `Instant` is passed in.
//!
//! The client receives a notice [`NOTICE`] before. It then refreshes, or its connection is closed. A guest has none.

use std::time::{Duration, Instant};

/// Time from the notice to the expiry.
pub const NOTICE: Duration = Duration::from_secs(30);
/// The largest number that every JSON reader holds exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryAction {
    /// None yet.
    Nothing,
    /// Send the notice with the time that is left.
    Announce(Duration),
    /// End the connection.
    Close,
}

/// The expiry of a token.
#[derive(Debug)]
pub struct TokenExpiry {
    at: Instant,
    is_announced: bool,
}

impl TokenExpiry {
    /// A token that is valid for this time; `None` if that is longer than clocks can count.
    #[must_use]
    pub fn new(now: Instant, lifetime: Duration) -> Option<Self> {
        now.checked_add(lifetime).map(|at| Self { at, is_announced: false })
    }

    /// Returns the time at which [`TokenExpiry::due`] is to be asked next.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        if self.is_announced { self.at } else { self.at.checked_sub(NOTICE).unwrap_or(self.at) }
    }

    /// Returns the action that is due now. The notice is due once.
    pub fn due(&mut self, now: Instant) -> ExpiryAction {
        if now >= self.at {
            return ExpiryAction::Close;
        }
        if self.is_announced || now < self.deadline() {
            return ExpiryAction::Nothing;
        }
        self.is_announced = true;
        ExpiryAction::Announce(self.at - now)
    }
}

/// Returns a lifetime as clients see it.
#[must_use]
pub fn lifetime_ms(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(NUMBER_MAX).min(NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn expiry_is_announced_once_then_closes() {
        let start = Instant::now();
        let mut expiry = TokenExpiry::new(start, SECOND * 100).unwrap();
        assert_eq!(expiry.deadline(), start + SECOND * 70);
        assert_eq!(expiry.due(start + SECOND * 69), ExpiryAction::Nothing);
        assert_eq!(expiry.due(start + SECOND * 70), ExpiryAction::Announce(NOTICE));
        assert_eq!(expiry.deadline(), start + SECOND * 100);
        assert_eq!(expiry.due(start + SECOND * 99), ExpiryAction::Nothing);
        assert_eq!(expiry.due(start + SECOND * 100), ExpiryAction::Close);
    }

    #[test]
    fn short_token_is_announced_at_once() {
        let start = Instant::now();
        let mut expiry = TokenExpiry::new(start, SECOND * 10).unwrap();
        assert!(expiry.deadline() <= start);
        assert_eq!(expiry.due(start), ExpiryAction::Announce(SECOND * 10));
        let mut expired = TokenExpiry::new(start, Duration::ZERO).unwrap();
        assert_eq!(expired.due(start), ExpiryAction::Close);
    }

    #[test]
    fn endless_token_has_no_expiry() {
        assert!(TokenExpiry::new(Instant::now(), Duration::from_secs(u64::MAX)).is_none());
        assert_eq!(lifetime_ms(Duration::from_secs(u64::MAX)), NUMBER_MAX);
        assert_eq!(lifetime_ms(Duration::from_millis(1500)), 1500);
    }
}
