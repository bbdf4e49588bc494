//! Failpoints: each one disables a safety mechanism of a debug build, so a test can show that a
//! checker detects the missing mechanism.
//!
//! The environment variable `PARLEY_FAILPOINT` selects one [`Failpoint`] and is read once. Call sites use
//! [`is_disabled`]; scripts pass through [`script`]. Invariant: in a release build no failpoint exists and every check
//! is a constant.

use std::borrow::Cow;

/// A mechanism that can be disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// The check of lease and claim before every write, and the notice to a gateway that lost its lease.
    Fence,
    /// The refusal of a nick that another session holds.
    Claim,
    /// The idempotency key, and the search for a repeated message: it gets the first answer again.
    Dedupe,
    /// The refill of messages that did not arrive, from their stream.
    Refill,
    /// The order of a join: messages published during it are delivered after the earlier ones.
    JoinOrder,
    /// The timeout of the failure detector: one missing beat does not declare a gateway dead.
    DetectionTime,
    /// The delay before other members see that a connection was lost.
    LeaveDelay,
    /// The republish ring: acknowledged messages are kept until Redis cannot lose them, and published again after a
    /// loss.
    Republish,
    /// The retry of a webhook: events that the receiver has not taken are sent again.
    WebhookRetry,
}

/// Returns true if this mechanism is disabled.
#[must_use]
#[cfg(debug_assertions)]
pub fn is_disabled(failpoint: Failpoint) -> bool {
    debug::selected() == Some(failpoint)
}

/// Returns true if this mechanism is disabled.
#[must_use]
#[cfg(not(debug_assertions))]
pub const fn is_disabled(_: Failpoint) -> bool {
    false
}

/// Returns the script without the disabled mechanism.
#[must_use]
pub fn script(text: &str) -> Cow<'_, str> {
    #[cfg(debug_assertions)]
    if let Some(selected) = debug::selected() {
        return debug::cut(text, selected).into();
    }
    text.into()
}

#[cfg(debug_assertions)]
mod debug {
    use std::sync::LazyLock;

    use super::Failpoint::{
        self, Claim, Dedupe, DetectionTime, Fence, JoinOrder, LeaveDelay, Refill, Republish, WebhookRetry,
    };

    const NAMES: [(&str, Failpoint); 9] = [
        ("fence", Fence),
        ("claim", Claim),
        ("dedupe", Dedupe),
        ("refill", Refill),
        ("join_order", JoinOrder),
        ("detection_time", DetectionTime),
        ("leave_delay", LeaveDelay),
        ("republish", Republish),
        ("webhook_retry", WebhookRetry),
    ];

    /// Script text of each failpoint, and its replacement.
    const CUTS: [(Failpoint, &str, &str); 7] = [
        (Fence, "if not serves(", "if false and not serves("),
        (Fence, "if not writer_serves(", "if false and not writer_serves("),
        (Fence, "if not is_member and not is_republish then", "if false then"),
        (Fence, "owner_of(sender) ~= token", "false"),
        (Claim, "local left = hold_by_other(fields, is_own)", "local left = nil"),
        (Dedupe, "if not answer then", "if true then"),
        (Dedupe, "local found = repeats and repeats.ids[id]", "local found = nil"),
    ];

    pub(super) fn selected() -> Option<Failpoint> {
        static SELECTED: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
            let name = std::env::var("PARLEY_FAILPOINT").ok()?;
            tracing::warn!(mechanism = name, "failpoint enabled");
            NAMES.iter().find_map(|(known, failpoint)| (*known == name).then_some(*failpoint))
        });
        *SELECTED
    }

    pub(super) fn cut(text: &str, selected: Failpoint) -> String {
        let cuts = CUTS.iter().filter(|(failpoint, ..)| *failpoint == selected);
        cuts.fold(text.to_owned(), |text, (_, original, replacement)| text.replace(original, replacement))
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use std::fs;
        use std::path::Path;

        use super::*;

        fn scripts(folder: &Path, found: &mut String) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    scripts(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "lua") {
                    found.push_str(&fs::read_to_string(path).unwrap());
                }
            }
        }

        #[test]
        fn every_cut_occurs_in_a_script() {
            let (root, mut text) = (Path::new(env!("CARGO_MANIFEST_DIR")), String::new());
            scripts(&root.join("src"), &mut text);
            scripts(&root.join("../gateway/src"), &mut text);
            for (failpoint, original, _) in CUTS {
                assert!(text.contains(original), "{failpoint:?}: {original}");
            }
        }

        #[test]
        fn failpoint_changes_only_its_own_scripts() {
            let (_, claim, replacement) = CUTS.into_iter().find(|(failpoint, ..)| *failpoint == Claim).unwrap();
            assert_eq!(cut(claim, Claim), replacement);
            assert_eq!(cut(claim, Dedupe), claim);
            assert_eq!(cut(claim, Refill), claim);
        }
    }
}
