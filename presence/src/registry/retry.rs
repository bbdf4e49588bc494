//! Retries of idempotent calls to the store.
//!
//! [`answered`] serves a waiting client and gives up after a few seconds; [`until_answered`] and [`until_known`] clean
//! up and never give up. A call with an `Unknown` outcome may have been done, so it is repeated. One with an
//! `Unavailable` outcome was not done, so a waiting client gets the refusal at once.

use std::time::{Duration, Instant};

use crate::registry::{ClaimError, RegistryError, ResumeError};

/// Time for repeating a call before its outcome counts as unknown.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Upper bound of the first pause between two attempts; it doubles up to [`PAUSE_MAX`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// An error that may hold the failure of a call to the store.
pub trait CallFailure {
    /// Returns the failure of the call itself; `None` if the store answered with a refusal.
    fn call(&self) -> Option<&RegistryError>;
}

impl CallFailure for RegistryError {
    fn call(&self) -> Option<&RegistryError> {
        Some(self)
    }
}

impl CallFailure for ClaimError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

impl CallFailure for ResumeError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Claim(error) = self { error.call() } else { None }
    }
}

/// Repeats an idempotent call for a few seconds while its outcome is unknown.
///
/// # Errors
/// The last outcome.
pub async fn answered<T, E: CallFailure, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
    let start = Instant::now();
    for attempt in 1.. {
        match call().await {
            Err(error) if matches!(error.call(), Some(RegistryError::Unknown(_))) && start.elapsed() < PATIENCE => {
                pause(attempt).await;
            }
            outcome => return outcome,
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Repeats an idempotent call until the store has answered, for as long as that takes. For clean-up without a waiting
/// client.
///
/// # Errors
/// A refusal that no repetition changes.
pub async fn until_answered<T, E: CallFailure, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
    for attempt in 1.. {
        match call().await {
            Err(error) if matches!(error.call(), Some(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                pause(attempt).await;
            }
            outcome => return outcome,
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Repeats a removal until the store has answered. Returns true if this call has removed the record. A `false` after an
/// attempt with an unknown outcome counts as `true`, since that attempt may have removed it.
///
/// # Errors
/// A refusal that no repetition changes.
pub async fn until_known<E: CallFailure, F: Future<Output = Result<bool, E>>>(call: impl Fn() -> F) -> Result<bool, E> {
    let mut is_doubtful = false;
    for attempt in 1.. {
        match call().await {
            Err(error) if matches!(error.call(), Some(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                is_doubtful |= matches!(error.call(), Some(RegistryError::Unknown(_)));
                pause(attempt).await;
            }
            outcome => return outcome.map(|done| done || is_doubtful),
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Sleeps before the next attempt, with full jitter, so that a thousand sessions do not retry in the same moment.
pub async fn pause(attempt: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX);
    tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
}
