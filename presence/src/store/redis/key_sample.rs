//! [`KeySample`]: the keys of the deployment by kind, with their number and memory, from a sample of the database.
//!
//! SCAN visits keys in the order of their hashes, so its first keys are a random sample. It is bounded in keys and
//! time; if it did not reach all keys, the numbers are estimates. Keys of other programs count as `other`, without
//! memory, because the Redis user may not ask about them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::RedisStore;
use crate::registry::RegistryError;

/// Maximum number of keys of a sample.
const SAMPLE_KEYS_MAX: u64 = 20_000;
/// Maximum duration of a sample.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(2);
/// Number of keys in one step.
const STEP_KEYS: usize = 100;

/// The keys of one kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KindSize {
    /// The part of the key's name behind the partition, such as `log`.
    pub kind: String,
    /// The number of keys.
    pub keys: u64,
    /// Their memory in bytes, as Redis estimates it.
    pub bytes: u64,
}

/// The keys by kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeySample {
    /// The kinds, the one with the most memory first.
    pub kinds: Vec<KindSize>,
    /// The number of keys that were looked at.
    pub sampled: u64,
    /// The number of keys in the database.
    pub total: u64,
    /// True if not all keys were looked at, so the numbers are scaled up.
    pub is_estimate: bool,
}

/// The counts of a sample that is being taken.
#[derive(Debug, Default)]
struct SampleCounts {
    kinds: BTreeMap<String, (u64, u64)>,
    sampled: u64,
}

impl SampleCounts {
    /// Adds a key with its memory. `kind` is `None` for a key of another program.
    fn add(&mut self, kind: Option<&str>, bytes: u64) {
        let count = self.kinds.entry(kind.unwrap_or("other").to_owned()).or_default();
        *count = (count.0 + 1, count.1.saturating_add(bytes));
        self.sampled += 1;
    }

    /// Returns the sample of a database with this number of keys.
    fn finish(self, total: u64, is_complete: bool) -> KeySample {
        let scale = if is_complete || self.sampled == 0 { 1.0 } else { (total as f64 / self.sampled as f64).max(1.0) };
        let scaled = |number: u64| (number as f64 * scale).round() as u64;
        let kind = |(kind, (keys, bytes))| KindSize { kind, keys: scaled(keys), bytes: scaled(bytes) };
        let mut kinds: Vec<KindSize> = self.kinds.into_iter().map(kind).collect();
        kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.bytes), std::cmp::Reverse(kind.keys)));
        KeySample { kinds, sampled: self.sampled, total, is_estimate: !is_complete }
    }
}

impl RedisStore {
    /// Takes a sample, in steps that delay other calls by less than a millisecond.
    ///
    /// # Errors
    /// `Unavailable` without the right to run SCAN, MEMORY USAGE or DBSIZE, else `Unavailable` or `Unknown`.
    pub async fn sample_keys(&self) -> Result<KeySample, RegistryError> {
        let (mut counts, mut cursor, began) = (SampleCounts::default(), 0, Instant::now());
        let mut turns = self.read_turns().reader().await?;
        let is_complete = loop {
            cursor = turns.step(self.sample_step(cursor, &mut counts)).await?;
            if cursor == 0 {
                break true;
            } else if counts.sampled >= SAMPLE_KEYS_MAX || began.elapsed() >= SAMPLE_TIME_MAX {
                break false;
            }
        };
        let mut connection = self.query().await?;
        let total = self.asked("", redis::cmd("DBSIZE").query_async(&mut connection)).await?;
        Ok(counts.finish(total, is_complete))
    }

    /// Counts the keys of one step, and returns the cursor of the next one, or 0.
    async fn sample_step(&self, cursor: u64, counts: &mut SampleCounts) -> Result<u64, RegistryError> {
        let mut connection = self.query().await?;
        let mut scan = redis::cmd("SCAN");
        let scanned = scan.arg(cursor).arg("COUNT").arg(STEP_KEYS).query_async(&mut connection);
        let (next, names): (u64, Vec<Vec<u8>>) = self.asked("", scanned).await?;
        let names: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let (own, foreign): (Vec<&String>, Vec<&String>) =
            names.iter().partition(|name| self.keys().kind_of(name).is_some());
        foreign.iter().for_each(|_| counts.add(None, 0));
        if !own.is_empty() {
            let mut questions = redis::pipe();
            for name in &own {
                questions.cmd("MEMORY").arg("USAGE").arg(name.as_str());
            }
            let sizes: Vec<Option<u64>> = self.asked("", questions.query_async(&mut connection)).await?;
            // A key without memory has expired meanwhile.
            for (name, bytes) in own.iter().zip(sizes).filter_map(|(name, bytes)| Some((name, bytes?))) {
                counts.add(self.keys().kind_of(name), bytes);
            }
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sample: &KeySample) -> Vec<(&str, u64, u64)> {
        sample.kinds.iter().map(|kind| (kind.kind.as_str(), kind.keys, kind.bytes)).collect()
    }

    fn counts() -> SampleCounts {
        let mut counts = SampleCounts::default();
        for (kind, bytes) in [(Some("room"), 100), (Some("log"), 5000), (None, 0), (Some("room"), 150)] {
            counts.add(kind, bytes);
        }
        counts
    }

    #[test]
    fn complete_sample_counts_every_key_once() {
        let sample = counts().finish(4, true);
        assert_eq!(kinds(&sample), [("log", 1, 5000), ("room", 2, 250), ("other", 1, 0)]);
        assert_eq!((sample.sampled, sample.total, sample.is_estimate), (4, 4, false));
        assert!(SampleCounts::default().finish(0, true).kinds.is_empty());
    }

    #[test]
    fn partial_sample_is_scaled_to_all_keys() {
        let sample = counts().finish(400, false);
        assert_eq!(kinds(&sample), [("log", 100, 500_000), ("room", 200, 25_000), ("other", 100, 0)]);
        assert!(sample.is_estimate);
        assert!(SampleCounts::default().finish(9, false).kinds.is_empty(), "nothing can be scaled");
    }
}
