//! [`Reloader`]: loads the settings again on SIGHUP, applies the reloadable ones and logs those that need a restart.
//!
//! [`crate::host::program`] calls it for both programs. Invariant: settings with any error change nothing. It counts
//! its outcomes and exports the fingerprint of the settings in effect. It does not listen for signals.

use prometheus::{IntGauge, IntGaugeVec, Registry};

use crate::host::metrics::{Label, Labelled, gauge, info};
use crate::host::settings::{Change, Key, Settings, SettingsError, Sources};

/// Outcome of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The settings are valid: the reloadable ones are in effect.
    Applied,
    /// The settings are invalid: nothing has changed.
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

/// The settings in effect, and the sources of newer ones.
#[derive(Debug)]
pub struct Reloader {
    keys: &'static [Key],
    sources: Sources,
    in_effect: Settings,
    numbers: ReloadMetrics,
}

#[derive(Debug)]
struct ReloadMetrics {
    reloads: Labelled<Outcome, prometheus::IntCounter>,
    pending: IntGauge,
    info: IntGaugeVec,
}

impl Reloader {
    /// Registers its metrics on `metrics`. It does nothing until [`Reloader::reload`] is called.
    #[must_use]
    pub fn new(keys: &'static [Key], sources: Sources, in_effect: Settings, metrics: &Registry) -> Self {
        let numbers = ReloadMetrics {
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

    /// Loads the settings again, and passes them to `apply` if they are valid. `validate` builds the program's
    /// settings; `apply` cannot fail and uses only [`live`](Key::live) keys. Logs the outcome.
    pub fn reload<C>(
        &mut self,
        validate: impl Fn(&Settings) -> Result<C, SettingsError>,
        apply: impl FnOnce(&C),
    ) -> Outcome {
        let outcome = match Settings::read(self.keys, &self.sources, validate) {
            Ok((new, config)) => {
                apply(&config);
                self.put_in_effect(&new);
                Outcome::Applied
            }
            Err(reason) => {
                tracing::warn!(%reason, "settings not reloaded, nothing changed");
                Outcome::Rejected
            }
        };
        self.numbers.reloads[outcome].inc();
        outcome
    }

    fn put_in_effect(&mut self, new: &Settings) {
        let (live, waiting): (Vec<Change>, Vec<Change>) =
            self.in_effect.changes(new).into_iter().partition(|change| change.key.live);
        let was = self.in_effect.fingerprint();
        self.in_effect.apply(new, &live);
        let is = self.in_effect.fingerprint();
        self.numbers.pending.set(waiting.len() as i64);
        // The new one is set first: a scrape between the two steps sees both rather than none.
        self.numbers.info.with_label_values(&[&is]).set(1);
        if was != is {
            let _ = self.numbers.info.remove_label_values(&[&was]);
        }
        tracing::info!(changed = list(&live), hash = is, "settings reloaded");
        if !waiting.is_empty() {
            tracing::warn!(waiting = list(&waiting), "changed settings need a restart");
        }
    }
}

fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
