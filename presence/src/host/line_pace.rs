//! [`LinePace`]: the pace of a log line about refusals, so that a flood of them is one line a minute.

use std::time::{Duration, Instant};

/// Minimum time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Refusals since the last line, and its time.
#[derive(Debug, Default)]
pub struct LinePace {
    refused: u64,
    newest_line: Option<Instant>,
}

impl LinePace {
    /// Counts a refusal. Returns the number of refusals for a line that is due now.
    pub fn record(&mut self, now: Instant) -> Option<u64> {
        self.refused += 1;
        if self.newest_line.is_some_and(|line| now.duration_since(line) < PAUSE) {
            return None;
        }
        self.newest_line = Some(now);
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_has_one_line_a_minute() {
        let (mut pace, start) = (LinePace::default(), Instant::now());
        assert_eq!(pace.record(start), Some(1));
        for second in [0, 1, 59] {
            assert_eq!(pace.record(start + Duration::from_secs(second)), None);
        }
        assert_eq!(pace.record(start + PAUSE), Some(4), "the line counts all refusals since the last one");
        assert_eq!(pace.record(start + PAUSE * 5), Some(1));
    }
}
