//! [`ReadTurns`]: the turns in which listings and lookups read the store.
//!
//! A listing reads in steps of at most 100 rows. One step is under way in this process, and the store then rests for as
//! long as the step took, so listings use at most half of it and delay any other call by one step only. Readers wait in
//! the order of their steps and for a limited time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout_at};

use crate::registry::RegistryError;

/// Maximum number of rows in one step, which keeps it under about a millisecond.
pub(super) const STEP_ROWS_MAX: usize = 100;
/// Maximum wait for turns of one reader, all of its steps together.
const WAIT_MAX: Duration = Duration::from_millis(1500);
/// Duration of a step after which the store counts as not answering.
const STEP_TIME_MAX: Duration = Duration::from_millis(500);
/// Maximum pause after a step.
const REST_MAX: Duration = Duration::from_millis(20);

/// The turns of one process. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::registry) struct ReadTurns(Arc<TurnState>);

#[derive(Debug, Default)]
struct TurnState {
    /// The end of the rest after the last step; locked during a step.
    rested: tokio::sync::Mutex<Option<Instant>>,
    /// The beginning of the step under way.
    began: Mutex<Option<Instant>>,
}

impl ReadTurns {
    /// Begins a reader, whose wait is limited from now on.
    pub(super) fn reader(&self) -> TurnReader<'_> {
        TurnReader { turns: &self.0, deadline: Instant::now() + WAIT_MAX }
    }
}

/// A reader of several steps.
#[derive(Debug)]
pub(super) struct TurnReader<'a> {
    turns: &'a TurnState,
    deadline: Instant,
}

impl TurnReader<'_> {
    /// Runs one step in its turn.
    ///
    /// # Errors
    /// `Overloaded` if other readers are ahead for too long, `Unavailable` if their step gets no answer, or the error
    /// of the step.
    pub(super) async fn step<T>(
        &self,
        step: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let turn = timeout_at(self.deadline.into(), async {
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
            let reader = turns.reader();
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
        let (first, second) = (turns.reader(), turns.reader());
        let hanging = first.step(std::future::pending::<Result<(), RegistryError>>());
        let refused = tokio::select! {
            biased;
            _ = hanging => unreachable!("it hangs"),
            refused = second.step(async { Ok(()) }) => refused.unwrap_err(),
        };
        assert!(matches!(refused, RegistryError::Unavailable(_)), "{refused}");
        // The dropped step leaves its turn to others.
        turns.reader().step(async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn reader_behind_a_busy_queue_is_overloaded() {
        let turns = ReadTurns::default();
        let busy = async {
            let step = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            };
            turns.reader().step(step).await
        };
        let queue = futures_util::future::join_all((0..64).map(|_| async {
            turns
                .reader()
                .step(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(())
                })
                .await
        }));
        busy.await.unwrap();
        let outcomes = queue.await;
        assert!(outcomes.iter().any(Result::is_ok));
        assert_eq!(outcomes.last(), Some(&Err(RegistryError::Overloaded)));
    }
}
