//! [`ReadTurns`]: the turns in which listings and lookups read the store, and history too if it is in memory.
//!
//! A listing reads in steps of at most 100 rows, or of a page in memory. One step is under way in this process, and the
//! store then rests for as long as the step took, so listings use at most half of it and delay any other call by one
//! step only. A few readers take turns; the others wait to begin, in their order and for a limited time. A reader that
//! began may take as long as it makes progress, so no work is wasted.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep_until, timeout, timeout_at};

use crate::registry::RegistryError;
use crate::store::AnswerClock;

/// Maximum number of rows in one step, which keeps it under about a millisecond.
pub(crate) const STEP_ROWS_MAX: usize = 100;
/// Maximum number of readers that take turns: twice the share of one client of the API.
const READERS_MAX: usize = 8;
/// Maximum wait of a reader for its begin.
const BEGIN_MAX: Duration = Duration::from_secs(1);
/// Maximum wait of a reader for each of its turns.
const TURN_MAX: Duration = Duration::from_millis(1500);
/// Maximum time of a reader from its begin to its first answer, and from each answer to the next.
const PROGRESS_MAX: Duration = Duration::from_secs(2);
/// Maximum pause after a step.
const REST_MAX: Duration = Duration::from_millis(20);

/// The turns of one process. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub struct ReadTurns(Arc<TurnState>);

#[derive(Debug)]
struct TurnState {
    answers: AnswerClock,
    readers: Semaphore,
    /// The end of the rest after the last step; locked during a step.
    rested: tokio::sync::Mutex<Option<Instant>>,
}

impl ReadTurns {
    /// Creates the turns of a store with these answers.
    pub(crate) fn new(answers: AnswerClock) -> Self {
        Self(Arc::new(TurnState {
            answers,
            readers: Semaphore::new(READERS_MAX),
            rested: tokio::sync::Mutex::default(),
        }))
    }

    /// Begins a reader as soon as it may take turns.
    ///
    /// # Errors
    /// As for [`TurnReader::step`].
    pub async fn reader(&self) -> Result<TurnReader<'_>, RegistryError> {
        let Ok(Ok(place)) = timeout(BEGIN_MAX, self.0.readers.acquire()).await else { return Err(self.0.refusal()) };
        Ok(TurnReader { turns: &self.0, progressed: Instant::now(), _place: place })
    }
}

/// A reader of several steps.
#[derive(Debug)]
pub struct TurnReader<'a> {
    turns: &'a TurnState,
    /// The time of its newest answer, or of its begin.
    progressed: Instant,
    _place: SemaphorePermit<'a>,
}

impl TurnReader<'_> {
    /// Runs one step in its turn.
    ///
    /// # Errors
    /// `Overloaded` if this process is too busy, `Unavailable` if the store answers no call, or the error of the step.
    pub async fn step<T>(&mut self, step: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let mut turn = pin!(self.turns.run(step));
        let Ok(outcome) = timeout_at((self.progressed + PROGRESS_MAX).into(), turn.as_mut()).await else {
            return Err(self.turns.refusal());
        };
        self.progressed = Instant::now();
        outcome
    }
}

impl TurnState {
    /// Waits for the turn and runs the step.
    async fn run<T>(&self, step: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let turn = timeout(TURN_MAX, async {
            let rested = self.rested.lock().await;
            if let Some(end) = *rested {
                sleep_until(end.into()).await;
            }
            rested
        });
        let Ok(mut rested) = turn.await else { return Err(self.refusal()) };
        let began = Instant::now();
        let outcome = step.await;
        let took = began.elapsed();
        *rested = Some(began + took + took.min(REST_MAX));
        outcome
    }

    fn refusal(&self) -> RegistryError {
        if self.answers.is_answering() {
            RegistryError::Overloaded
        } else {
            RegistryError::Unavailable("a read is not answered".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn steps_of_many_readers_never_overlap() {
        let (turns, under_way) = (ReadTurns::new(AnswerClock::silent()), AtomicUsize::new(0));
        let read = async || {
            let mut reader = turns.reader().await.unwrap();
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
        let turns = ReadTurns::new(AnswerClock::silent());
        let (mut first, mut second) = (turns.reader().await.unwrap(), turns.reader().await.unwrap());
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
    async fn slow_step_of_answering_store_means_overload() {
        let answers = AnswerClock::silent();
        let turns = ReadTurns::new(answers.clone());
        let mut reader = turns.reader().await.unwrap();
        // The step gets no answer, other calls do.
        let others = async {
            loop {
                answers.record();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            outcome = reader.step(std::future::pending::<Result<(), RegistryError>>()) => {
                assert_eq!(outcome, Err(RegistryError::Overloaded));
            }
            () = others => unreachable!("it has no end"),
        }
    }

    #[tokio::test]
    async fn readers_that_began_end_under_overload() {
        let turns = ReadTurns::new(AnswerClock::always_answering());
        // Ten steps of 10 ms and a rest as long: a fifth of a second each, and 64 of them have a second to begin.
        let read = async || {
            let mut reader = turns.reader().await?;
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
