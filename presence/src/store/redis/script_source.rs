//! The sources of the scripts, so that a refusal within a script is shown with the line that met it.
//!
//! Redis answers with the script's hash and a number. A script builds keys itself, and an operator who has nothing but
//! the log finds such a key only in that line. Sources are kept for the life of the process: one for each script.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use redis::Script;

type SourcesByHash = HashMap<String, String>;

static SOURCES: LazyLock<Mutex<SourcesByHash>> = LazyLock::new(Mutex::default);

/// Prepares a script and keeps its source.
#[must_use]
pub fn script(source: &str) -> Script {
    let script = Script::new(source);
    sources().insert(script.get_hash().to_owned(), source.to_owned());
    script
}

fn sources() -> MutexGuard<'static, SourcesByHash> {
    // No code panics while it holds the lock.
    SOURCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces hash and number in an answer of Redis by the line of the script. Other answers stay as they are.
pub(super) fn with_line(answer: &str) -> String {
    place(answer).map_or_else(|| answer.to_owned(), |(before, line)| format!("{before}at {line}"))
}

/// Returns the beginning of the answer, and the line that its end names.
fn place(answer: &str) -> Option<(&str, String)> {
    let (before, place) = answer.split_once("script: ")?;
    let (hash, number) = place.split_once(", on @user_script:")?;
    let digits = number.split(|char: char| !char.is_ascii_digit()).next()?;
    let sources = sources();
    let line = sources.get(hash)?.lines().nth(digits.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some((before, line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_shows_the_line_of_its_script() {
        let script = script("#!lua\nlocal beaten = base .. 'beaten'\n  redis.call('HSET', base .. 'beaten', 1, 2)\n");
        let answer = |number| format!("WRONGTYPE wrong kind script: {}, on @user_script:{number}.", script.get_hash());
        assert_eq!(with_line(&answer(3)), "WRONGTYPE wrong kind at redis.call('HSET', base .. 'beaten', 1, 2)");
        for other in [answer(9), answer(0), "OOM".to_owned(), "ERR script: abc, on @user_script:1.".to_owned()] {
            assert_eq!(with_line(&other), other);
        }
    }
}
