//! Takes one mechanism out of a debug build, so that the fault bench can show that it would notice.
//!
//! `PARLEY_SABOTAGE` names the mechanism; it is read once. Asked by the few places that a mechanism stands or falls with,
//! and by those who assemble scripts. A release build knows nothing of it: every answer is a constant there.

use std::borrow::Cow;

/// What can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A write asks whether the lease behind it still serves and the claim is still the last one; a gateway that lost its
    /// lease hears of it.
    Fence,
    /// Who asks for a nick that somebody has is refused.
    Claim,
    /// A message with a known key is answered as the first one was.
    Dedupe,
    /// What did not arrive is read from the log.
    Refill,
    /// Who is on the way into a log gets what is said meanwhile after what was said before.
    HoldBack,
    /// A gateway counts as dead only when its beat has stood still for a while.
    Patience,
    /// Others are not shown at once that a connection was lost.
    Stillness,
    /// A gateway keeps what it has acked until Redis cannot lose it any more, and puts back what it has lost.
    Republish,
}

/// Whether that mechanism is taken out.
#[must_use]
#[cfg(debug_assertions)]
pub fn takes(mechanism: Mechanism) -> bool {
    debug::taken() == Some(mechanism)
}

/// Whether that mechanism is taken out.
#[must_use]
#[cfg(not(debug_assertions))]
pub const fn takes(_: Mechanism) -> bool {
    false
}

/// A script without what is taken out.
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

    use super::Mechanism::{self, Claim, Dedupe, Fence, HoldBack, Patience, Refill, Republish, Stillness};

    const NAMES: [(&str, Mechanism); 8] = [
        ("fence", Fence),
        ("claim", Claim),
        ("dedupe", Dedupe),
        ("refill", Refill),
        ("hold_back", HoldBack),
        ("patience", Patience),
        ("stillness", Stillness),
        ("repair", Republish),
    ];

    /// What a script says, and what it says instead.
    const CUTS: [(Mechanism, &str, &str); 5] = [
        (Fence, "if not serves(", "if false and not serves("),
        (Fence, "string.sub(member, 1, #token + 1) ~= token .. ' '", "false"),
        (Fence, "redis.call('HGET', sender, 'owner') ~= token", "false"),
        (Claim, "local left = kept(nick, is_own)", "local left = nil"),
        (Dedupe, "if not answer then", "if true then"),
    ];

    pub(super) fn taken() -> Option<Mechanism> {
        static TAKEN: LazyLock<Option<Mechanism>> = LazyLock::new(|| {
            let name = std::env::var("PARLEY_SABOTAGE").ok()?;
            tracing::warn!(mechanism = name, "sabotaged on purpose");
            NAMES.iter().find_map(|(known, mechanism)| (*known == name).then_some(*mechanism))
        });
        *TAKEN
    }

    pub(super) fn cut(text: &str, taken: Mechanism) -> String {
        let cuts = CUTS.iter().filter(|(mechanism, ..)| *mechanism == taken);
        cuts.fold(text.to_owned(), |text, (_, said, instead)| text.replace(said, instead))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_the_scripts_that_hold_a_mechanism_are_cut() {
            let claim = "local left = kept(nick, is_own)\nif left then";
            assert_eq!(cut(claim, Claim), "local left = nil\nif left then");
            assert_eq!(cut(claim, Dedupe), claim);
            assert_eq!(cut(claim, Refill), claim);
        }
    }
}
