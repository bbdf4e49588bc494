//! What becomes of SIGHUP: the settings are read again, what may change does, the rest is named.
//!
//! Called by [`crate::host::program`] for both programs. A new file that is wrong in any way changes nothing at all. Counts what
//! it did and tells by a fingerprint which settings are in effect. Knows nothing of signals and of what a server does with
//! its settings.

use prometheus::{IntGauge, IntGaugeVec, Registry};

use crate::host::metrics::{Label, Labelled, gauge, info};
use crate::host::settings::{Change, Key, Settings, SettingsError, Sources};

/// What came of reading the settings again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are good: what may change has changed.
    Applied,
    /// They are wrong: nothing has changed.
    Rejected,
}

impl Label for Outcome {
    const ROWS: &'static [Self] = &[Self::Applied, Self::Rejected];

    fn value(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// The settings in effect, and where newer ones are read.
#[derive(Debug)]
pub struct Reloader {
    keys: &'static [Key],
    sources: Sources,
    in_effect: Settings,
    numbers: Numbers,
}

#[derive(Debug)]
struct Numbers {
    reloads: Labelled<Outcome, prometheus::IntCounter>,
    pending: IntGauge,
    info: IntGaugeVec,
}

impl Reloader {
    /// Watches nothing by itself; its numbers are on `metrics`.
    #[must_use]
    pub fn new(keys: &'static [Key], sources: Sources, in_effect: Settings, metrics: &Registry) -> Self {
        let numbers = Numbers {
            reloads: Labelled::counters(
                metrics,
                "parley_config_reloads_total",
                "Reloads of the settings, by outcome.",
                "outcome",
            ),
            pending: gauge(metrics, "parley_config_restart_pending", "Changed settings that wait for a restart."),
            info: info(
                metrics,
                "parley_config_info",
                "Always 1; the fingerprint of the settings is in the label.",
                "hash",
            ),
        };
        numbers.info.with_label_values(&[&in_effect.fingerprint()]).set(1);
        Self { keys, sources, in_effect, numbers }
    }

    /// Reads the settings again and hands them to `apply` when they are good. `validate` makes a program's settings of
    /// them; `apply` cannot fail, and uses of them only what is [`live`](Key::live). Logs what came of it.
    pub fn reload<C>(
        &mut self,
        validate: impl FnOnce(&Settings) -> Result<C, SettingsError>,
        apply: impl FnOnce(&C),
    ) -> Outcome {
        let read = Settings::load(self.keys, &self.sources).and_then(|new| Ok((validate(&new)?, new)));
        let outcome = match read {
            Ok((config, new)) => {
                apply(&config);
                self.take_over(&new);
                Outcome::Applied
            }
            Err(reason) => {
                tracing::warn!(%reason, "settings not reloaded, nothing has changed");
                Outcome::Rejected
            }
        };
        self.numbers.reloads[outcome].inc();
        outcome
    }

    fn take_over(&mut self, new: &Settings) {
        let (live, waiting): (Vec<Change>, Vec<Change>) =
            self.in_effect.changes(new).into_iter().partition(|change| change.key.live);
        let was = self.in_effect.fingerprint();
        self.in_effect.take_over(new, &live);
        let is = self.in_effect.fingerprint();
        self.numbers.pending.set(waiting.len() as i64);
        // The new one first: a scrape between the two sees both rather than none.
        self.numbers.info.with_label_values(&[&is]).set(1);
        if was != is {
            let _ = self.numbers.info.remove_label_values(&[&was]);
        }
        tracing::info!(changed = list(&live), hash = is, "settings reloaded");
        if !waiting.is_empty() {
            tracing::warn!(waiting = list(&waiting), "settings that need a restart");
        }
    }
}

fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
