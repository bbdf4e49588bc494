//! Failpoints: each one disables a safety mechanism of a debug build, so a fault test can prove that it detects the
//! loss.
//!
//! The environment variable `PARLEY_SABOTAGE` selects one [`Failpoint`] and is read once. Call sites ask [`takes`];
//! scripts pass through [`script`]. Invariant: in a release build no failpoint exists and every check is a constant.

use std::borrow::Cow;

/// A mechanism that can be disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// The check of lease and claim before every write, and the notice to a gateway that lost its lease.
    Fence,
    /// The refusal of a nick that another session holds.
    Claim,
    /// The idempotency key: a repeated message gets the first answer again.
    Dedupe,
    /// The refill of messages that did not arrive, from their stream.
    Refill,
    /// The order of a join: messages published during it are delivered after the earlier ones.
    HoldBack,
    /// The timeout of the failure detector: one missing beat does not declare a gateway dead.
    Patience,
    /// The delay before other members see that a connection was lost.
    Stillness,
    /// The republish ring: acknowledged messages are kept until Redis cannot lose them, and published again after a
    /// loss.
    Republish,
}

/// Returns true if this mechanism is disabled.
#[must_use]
#[cfg(debug_assertions)]
pub fn takes(failpoint: Failpoint) -> bool {
    debug::taken() == Some(failpoint)
}

/// Returns true if this mechanism is disabled.
#[must_use]
#[cfg(not(debug_assertions))]
pub const fn takes(_: Failpoint) -> bool {
    false
}

/// Returns the script without the disabled mechanism.
#[must_use]
pub fn script(text: &str) -> Cow<'_, str> {
    #[cfg(debug_assertions)]
    if let Some(taken) = debug::taken() {
        return debug::cut(text, taken).into();
    }
    text.into()
}

#[cfg(debug_assertions)]
mod debug {
    use std::sync::LazyLock;

    use super::Failpoint::{self, Claim, Dedupe, Fence, HoldBack, Patience, Refill, Republish, Stillness};

    const NAMES: [(&str, Failpoint); 8] = [
        ("fence", Fence),
        ("claim", Claim),
        ("dedupe", Dedupe),
        ("refill", Refill),
        ("hold_back", HoldBack),
        ("patience", Patience),
        ("stillness", Stillness),
        ("repair", Republish),
    ];

    /// Script text of each failpoint, and its replacement.
    const CUTS: [(Failpoint, &str, &str); 5] = [
        (Fence, "if not serves(", "if false and not serves("),
        (Fence, "string.sub(member, 1, #token + 1) ~= token .. ' '", "false"),
        (Fence, "redis.call('HGET', sender, 'owner') ~= token", "false"),
        (Claim, "local left = kept(nick, is_own)", "local left = nil"),
        (Dedupe, "if not answer then", "if true then"),
    ];

    pub(super) fn taken() -> Option<Failpoint> {
        static TAKEN: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
            let name = std::env::var("PARLEY_SABOTAGE").ok()?;
            tracing::warn!(mechanism = name, "failpoint enabled");
            NAMES.iter().find_map(|(known, failpoint)| (*known == name).then_some(*failpoint))
        });
        *TAKEN
    }

    pub(super) fn cut(text: &str, taken: Failpoint) -> String {
        let cuts = CUTS.iter().filter(|(failpoint, ..)| *failpoint == taken);
        cuts.fold(text.to_owned(), |text, (_, original, replacement)| text.replace(original, replacement))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn failpoint_changes_only_its_own_scripts() {
            let claim = "local left = kept(nick, is_own)\nif left then";
            assert_eq!(cut(claim, Claim), "local left = nil\nif left then");
            assert_eq!(cut(claim, Dedupe), claim);
            assert_eq!(cut(claim, Refill), claim);
        }
    }
}
