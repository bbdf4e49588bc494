//! Retries of idempotent calls to a store.
//!
//! Used by the performing side of sessions and by the expiry of detached ones. An `Unknown` outcome may have been done,
//! so it is retried before a client receives `outcome_unknown`. An `Unavailable` call was not done: a connected client
//! is refused at once and decides for itself. Only idempotent calls may be passed in.

use std::time::{Duration, Instant};

use presence::registry::{ClaimError, RegistryError, ResumeError};

use crate::backplane::PublishError;

/// Time for retries before an outcome counts as unknown.
const RETRY_TIME: Duration = Duration::from_secs(4);
/// Maximum of the first pause between two attempts. It doubles up to [`PAUSE_MAX`].
const FIRST_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Maximum pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The error of a call that can be retried.
pub(crate) trait CallError {
    /// Returns the failure of the call itself; `None` if the store has answered with a refusal.
    fn failure(&self) -> Option<&RegistryError>;
}

impl CallError for RegistryError {
    fn failure(&self) -> Option<&RegistryError> {
        Some(self)
    }
}

impl CallError for ClaimError {
    fn failure(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

impl CallError for ResumeError {
    fn failure(&self) -> Option<&RegistryError> {
        if let Self::Claim(error) = self { error.failure() } else { None }
    }
}

impl CallError for PublishError {
    fn failure(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

/// Retries an idempotent call while its outcome is unknown, for a few seconds.
///
/// # Errors
/// The last outcome.
pub(crate) async fn answered<T, E: CallError, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
    let start = Instant::now();
    for attempt in 1.. {
        match call().await {
            Err(error)
                if matches!(error.failure(), Some(RegistryError::Unknown(_))) && start.elapsed() < RETRY_TIME =>
            {
                pause(attempt).await;
            }
            outcome => return outcome,
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Retries an idempotent call until the store has answered, without a time limit. For clean-up that no client waits for.
///
/// # Errors
/// A refusal that no retry changes.
pub(crate) async fn until_answered<T, E: CallError, F: Future<Output = Result<T, E>>>(
    call: impl Fn() -> F,
) -> Result<T, E> {
    for attempt in 1.. {
        match call().await {
            Err(error)
                if matches!(error.failure(), Some(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) =>
            {
                pause(attempt).await;
            }
            outcome => return outcome,
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Retries a removal until the store has answered. Returns true if this call removed it, or may have: a `false` after an
/// attempt with an unknown outcome counts as true.
///
/// # Errors
/// A refusal that no retry changes.
pub(crate) async fn until_known<E: CallError, F: Future<Output = Result<bool, E>>>(
    call: impl Fn() -> F,
) -> Result<bool, E> {
    let mut is_unsure = false;
    for attempt in 1.. {
        match call().await {
            Err(error)
                if matches!(error.failure(), Some(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) =>
            {
                is_unsure |= matches!(error.failure(), Some(RegistryError::Unknown(_)));
                pause(attempt).await;
            }
            outcome => return outcome.map(|done| done || is_unsure),
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Waits before the next attempt, with full jitter: a thousand sessions that lost one store do not retry together.
pub(crate) async fn pause(attempt: u32) {
    let max = FIRST_PAUSE_MAX.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX);
    tokio::time::sleep(max.mul_f64(rand::random::<f64>())).await;
}
