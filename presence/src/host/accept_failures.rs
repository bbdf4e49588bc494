//! [`AcceptFailures`]: the failed accepts of one listener, logged at their begin and end and followed by a pause.
//!
//! An accept usually fails because file descriptors are short, until other connections close. Invariant: failures less
//! than `QUIET_TIME` apart are one episode. Accepts nothing itself.

use std::io;
use std::time::{Duration, Instant};

/// Time without a failure that ends an episode.
const QUIET_TIME: Duration = Duration::from_secs(10);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// The failed accepts of a listener.
#[derive(Debug)]
pub struct AcceptFailures {
    /// The name of the port in the log.
    port: &'static str,
    newest: Option<Instant>,
}

impl AcceptFailures {
    /// A listener without failures.
    #[must_use]
    pub fn new(port: &'static str) -> Self {
        Self { port, newest: None }
    }

    /// Records an accepted connection.
    pub fn record_accepted(&mut self) {
        if self.ends(Instant::now()) {
            tracing::info!(port = self.port, "accepting connections again");
        }
    }

    /// Records a failure and waits, so that a lasting one takes no processor time. Cancel-safe.
    pub async fn record_failed(&mut self, error: &io::Error) {
        if is_of_connection(error) {
            return;
        }
        if self.begins(Instant::now()) {
            tracing::warn!(port = self.port, %error, "cannot accept connections");
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn begins(&mut self, now: Instant) -> bool {
        self.newest.replace(now).is_none_or(|newest| now.saturating_duration_since(newest) > QUIET_TIME)
    }

    fn ends(&mut self, now: Instant) -> bool {
        self.newest.take_if(|newest| now.saturating_duration_since(*newest) > QUIET_TIME).is_some()
    }
}

/// Returns true if accept failed only for the connection that it was about to return.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_between_accepts_are_one_episode() {
        let (mut failures, start) = (AcceptFailures::new("api"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!failures.ends(at(0)), "nothing has failed");
        assert!(failures.begins(at(0)));
        assert!(!failures.ends(at(1)), "an accept between failures");
        assert!(!failures.begins(at(2)));
        assert!(failures.ends(at(13)));
        assert!(!failures.ends(at(14)), "the end is one line");
        assert!(failures.begins(at(15)), "a new episode");
    }

    #[test]
    fn lost_connection_is_no_failed_listener() {
        assert!(is_of_connection(&io::ErrorKind::ConnectionAborted.into()));
        assert!(!is_of_connection(&io::Error::from_raw_os_error(24)), "no descriptors");
    }
}
