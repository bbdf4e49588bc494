//! [`ReadTurns`]: the turns in which listings, lookups and history read the store.
//!
//! A step reads at most 100 rows of Redis, or a page of memory or of history. One step is under way in this process,
//! and the store then rests for as long as the step took, so these reads use at most half of it and delay any other
//! call by one step only. A few readers take turns; the others wait to begin, in their order and for a limited time, so
//! that a reader that began also ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep_until, timeout};

use crate::registry::RegistryError;

/// Maximum number of rows in one step, which keeps it under about a millisecond.
pub(crate) const STEP_ROWS_MAX: usize = 100;
/// Maximum number of readers that take turns.
const READERS_MAX: usize = 4;
/// Maximum wait of a reader for its begin, and for each of its turns.
const WAIT_MAX: Duration = Duration::from_millis(1500);
/// Duration of a step after which the store counts as not answering.
const STEP_TIME_MAX: Duration = Duration::from_millis(500);
/// Maximum pause after a step.
const REST_MAX: Duration = Duration::from_millis(20);

/// The turns of one process. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub struct ReadTurns(Arc<TurnState>);

#[derive(Debug)]
struct TurnState {
    readers: Semaphore,
    /// The end of the rest after the last step; locked during a step.
    rested: tokio::sync::Mutex<Option<Instant>>,
    /// The beginning of the step under way.
    began: Mutex<Option<Instant>>,
}

impl ReadTurns {
    /// Begins a reader as soon as it may take turns.
    ///
    /// # Errors
    /// As for [`TurnReader::step`].
    pub async fn reader(&self) -> Result<TurnReader<'_>, RegistryError> {
        let Ok(Ok(place)) = timeout(WAIT_MAX, self.0.readers.acquire()).await else { return Err(self.0.refusal()) };
        Ok(TurnReader { turns: &self.0, _place: place })
    }
}

impl Default for TurnState {
    fn default() -> Self {
        Self { readers: Semaphore::new(READERS_MAX), rested: tokio::sync::Mutex::default(), began: Mutex::default() }
    }
}

/// A reader of several steps.
#[derive(Debug)]
pub struct TurnReader<'a> {
    turns: &'a TurnState,
    _place: SemaphorePermit<'a>,
}

impl TurnReader<'_> {
    /// Runs one step in its turn.
    ///
    /// # Errors
    /// `Overloaded` if other readers are ahead for too long, `Unavailable` if their step gets no answer, or the error
    /// of the step.
    pub async fn step<T>(&self, step: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let turn = timeout(WAIT_MAX, async {
            let rested = self.turns.rested.lock().await;
            if let Some(end) = *rested {
                sleep_until(end.into()).await;
            }
            rested
        });
        let Ok(mut rested) = turn.await else { return Err(self.turns.refusal()) };
        let began = Instant::now();
        let under_way = StepUnderWay::begin(self.turns, began);
        let outcome = step.await;
        drop(under_way);
        let took = began.elapsed();
        *rested = Some(began + took + took.min(REST_MAX));
        outcome
    }
}

impl TurnState {
    fn refusal(&self) -> RegistryError {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.is_some_and(|began| began.elapsed() > STEP_TIME_MAX) {
            RegistryError::Unavailable("an earlier read is not answered".to_owned())
        } else {
            RegistryError::Overloaded
        }
    }

    fn set_began(&self, began: Option<Instant>) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}

/// Marks the step under way, also if its future is dropped.
struct StepUnderWay<'a>(&'a TurnState);

impl<'a> StepUnderWay<'a> {
    fn begin(turns: &'a TurnState, began: Instant) -> Self {
        turns.set_began(Some(began));
        Self(turns)
    }
}

impl Drop for StepUnderWay<'_> {
    fn drop(&mut self) {
        self.0.set_began(None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn steps_of_many_readers_never_overlap() {
        let (turns, under_way) = (ReadTurns::default(), AtomicUsize::new(0));
        let read = async || {
            let reader = turns.reader().await.unwrap();
            for _ in 0..3 {
                let step = async {
                    assert_eq!(under_way.fetch_add(1, Ordering::Relaxed), 0);
                    tokio::task::yield_now().await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                };
                reader.step(step).await.unwrap();
            }
        };
        futures_util::future::join_all((0..8).map(|_| read())).await;
    }

    #[tokio::test]
    async fn hanging_step_makes_others_unavailable() {
        let turns = ReadTurns::default();
        let (first, second) = (turns.reader().await.unwrap(), turns.reader().await.unwrap());
        let hanging = first.step(std::future::pending::<Result<(), RegistryError>>());
        let refused = tokio::select! {
            biased;
            _ = hanging => unreachable!("it hangs"),
            refused = second.step(async { Ok(()) }) => refused.unwrap_err(),
        };
        assert!(matches!(refused, RegistryError::Unavailable(_)), "{refused}");
        // The dropped step leaves its turn to others.
        turns.reader().await.unwrap().step(async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn readers_that_began_end_under_overload() {
        let turns = ReadTurns::default();
        // Ten steps of 10 ms and a rest as long: a fifth of a second each, and 64 of them have 1.5 s.
        let read = async || {
            let reader = turns.reader().await?;
            for _ in 0..10 {
                let step = async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(())
                };
                reader.step(step).await?;
            }
            Ok(())
        };
        let outcomes = futures_util::future::join_all((0..64).map(|_| read())).await;
        let ended = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!((4..64).contains(&ended), "{ended}");
        assert_eq!(outcomes.last(), Some(&Err(RegistryError::Overloaded)));
        assert!(turns.reader().await.is_ok(), "the places are free again");
    }
}
