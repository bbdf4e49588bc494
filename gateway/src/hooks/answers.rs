//! [`RememberedAnswers`]: answers of the application, each for as long as it is valid.
//!
//! Pure: the time is passed in. Invariant: at most twice [`ANSWERS_MAX`] answers of at most [`KEY_BYTES_MAX`] bytes and
//! a reason each. When the newer half is full it becomes the older one, which is dropped: no search, no timer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::verdict::HookVerdict;

/// Maximum number of answers in each half.
const ANSWERS_MAX: usize = 4096;
/// Maximum size of a question whose answer is remembered, in bytes.
const KEY_BYTES_MAX: usize = 2048;

/// A verdict, and the end of its validity.
#[derive(Debug)]
struct RememberedAnswer {
    verdict: HookVerdict,
    until: Instant,
}

/// The remembered answers of a gateway, by question.
#[derive(Debug, Default)]
pub(super) struct RememberedAnswers {
    newer: HashMap<Box<[u8]>, RememberedAnswer>,
    older: HashMap<Box<[u8]>, RememberedAnswer>,
}

impl RememberedAnswers {
    /// Returns the answer to a question that is still valid.
    pub(super) fn get(&self, now: Instant, question: &[u8]) -> Option<HookVerdict> {
        let known = self.newer.get(question).or_else(|| self.older.get(question))?;
        (now < known.until).then(|| known.verdict.clone())
    }

    /// Remembers the answer to a question for a time.
    pub(super) fn insert(&mut self, now: Instant, question: Box<[u8]>, verdict: HookVerdict, valid_for: Duration) {
        if valid_for.is_zero() || question.len() > KEY_BYTES_MAX {
            return;
        }
        if self.newer.len() >= ANSWERS_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(question, RememberedAnswer { verdict, until: now + valid_for });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn question(number: usize) -> Box<[u8]> {
        number.to_string().into_bytes().into()
    }

    #[test]
    fn answer_is_known_only_while_valid() {
        let (mut answers, now) = (RememberedAnswers::default(), Instant::now());
        answers.insert(now, question(1), HookVerdict::Allowed, 2 * SECOND);
        answers.insert(now, question(2), HookVerdict::Allowed, Duration::ZERO);
        answers.insert(now, vec![0; KEY_BYTES_MAX + 1].into(), HookVerdict::Allowed, SECOND);
        assert_eq!(answers.get(now + SECOND, &question(1)), Some(HookVerdict::Allowed));
        assert_eq!(answers.get(now + 2 * SECOND, &question(1)), None);
        assert_eq!(answers.newer.len(), 1);
        let refused = HookVerdict::Refused(None);
        answers.insert(now + 3 * SECOND, question(1), refused.clone(), SECOND);
        assert_eq!(answers.get(now + 3 * SECOND, &question(1)), Some(refused), "the newest answer counts");
    }

    #[test]
    fn number_of_answers_is_bounded() {
        let (mut answers, now) = (RememberedAnswers::default(), Instant::now());
        for number in 0..5 * ANSWERS_MAX {
            answers.insert(now, question(number), HookVerdict::Allowed, SECOND);
            assert!(answers.newer.len() + answers.older.len() <= 2 * ANSWERS_MAX);
        }
        assert_eq!(answers.get(now, &question(5 * ANSWERS_MAX - 1)), Some(HookVerdict::Allowed));
        assert_eq!(answers.get(now, &question(0)), None);
    }
}
