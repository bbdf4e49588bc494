//! The stderr of a program, kept in memory: one JSON object per line, checked after the test.
//!
//! A WARN or ERROR that the test did not allow fails it. A line that is not JSON also fails it, such as a panic message
//! or a debug print.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Lines that a program has written. Cheap to clone: clones share the lines.
#[derive(Debug, Clone, Default)]
pub struct ProgramLog(Arc<Mutex<Vec<String>>>);

impl ProgramLog {
    /// Appends a line.
    pub fn push(&self, line: String) {
        self.lock().push(line);
    }

    /// Returns all lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Returns the newest lines as text.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lock();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Returns true if a line contains the text.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        self.lock().iter().any(|line| line.contains(text))
    }

    /// Returns the lines with WARN, ERROR or no JSON that contain none of the `allowed` texts.
    #[must_use]
    pub fn problems(&self, allowed: &[String]) -> Vec<String> {
        let is_allowed = |line: &&String| allowed.iter().any(|text| line.contains(text.as_str()));
        self.lock().iter().filter(|line| is_problem(line)).filter(|line| !is_allowed(line)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_problem(line: &str) -> bool {
    let level = serde_json::from_str::<Value>(line).ok().and_then(|json| Some(json.get("level")?.as_str()?.to_owned()));
    !matches!(level.as_deref(), Some("INFO" | "DEBUG" | "TRACE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_reports_problems_that_are_not_allowed() {
        let log = ProgramLog::default();
        for line in [
            r#"{"level":"INFO","fields":{"message":"ready"}}"#,
            r#"{"level":"WARN","fields":{"message":"redis is away"}}"#,
            r#"{"level":"ERROR","fields":{"message":"lost"}}"#,
            "thread 'main' panicked at src/main.rs:1:1:",
        ] {
            log.push(line.to_owned());
        }
        assert_eq!(log.problems(&[]).len(), 3);
        assert_eq!(log.problems(&["redis is away".to_owned(), "panicked".to_owned()]).len(), 1);
    }
}
