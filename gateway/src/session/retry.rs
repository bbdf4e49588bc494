//! Repeating idempotent calls whose answer was lost. Used by the driver only.
//!
//! An `Unknown` outcome may have been done, so giving up on it too early tells a client less than could be known; an
//! `Unavailable` one was not done, so a live client hears of it at once and decides for itself.

use std::time::{Duration, Instant};

use presence::registry::{ClaimError, RegistryError, ResumeError};

use crate::backplane::PublishError;

/// For how long a call is made again before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(4);
/// The first pause between two attempts, at most; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(4);

/// How a call failed, as far as repeating it goes.
pub(crate) trait Failure {
    /// The failure of the call itself; `None` when the store has answered with a plain no.
    fn call(&self) -> Option<&RegistryError>;
}

impl Failure for RegistryError {
    fn call(&self) -> Option<&RegistryError> {
        Some(self)
    }
}

impl Failure for ClaimError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

impl Failure for ResumeError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Claim(error) = self { error.call() } else { None }
    }
}

impl Failure for PublishError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

/// Makes an idempotent call again while its outcome is unknown, for a few seconds.
///
/// # Errors
/// The last outcome.
pub(crate) async fn answered<T, E: Failure, F: Future<Output = Result<T, E>>>(call: impl Fn() -> F) -> Result<T, E> {
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

/// Makes an idempotent call until the store has answered, however long that takes. For tidying up, where nobody waits.
///
/// # Errors
/// A refusal that no repetition changes.
pub(crate) async fn until_answered<T, E: Failure, F: Future<Output = Result<T, E>>>(
    call: impl Fn() -> F,
) -> Result<T, E> {
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

/// Takes something away until the store has answered, and says whether it is gone by our hand. A plain no after an
/// attempt whose answer was lost counts as a yes: that attempt may have been the one.
///
/// # Errors
/// A refusal that no repetition changes.
pub(crate) async fn until_known<E: Failure, F: Future<Output = Result<bool, E>>>(
    call: impl Fn() -> F,
) -> Result<bool, E> {
    let mut doubted = false;
    for attempt in 1.. {
        match call().await {
            Err(error) if matches!(error.call(), Some(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                doubted |= matches!(error.call(), Some(RegistryError::Unknown(_)));
                pause(attempt).await;
            }
            outcome => return outcome.map(|done| done || doubted),
        }
    }
    unreachable!("the attempts are not counted out")
}

/// Full jitter, so that a thousand sessions that lost the same store do not come back as one.
pub(crate) async fn pause(attempt: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(MAX_PAUSE);
    tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
}
