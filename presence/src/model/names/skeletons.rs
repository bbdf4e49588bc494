//! The skeletons of a nickname: forms that are equal for names that look alike (UTS 39 section 4).
//!
//! Two nicknames are look-alikes if they share one of their skeletons. A nickname has two, because its letters look
//! different in upper and in lower case: a Cyrillic `Т` looks like `T`, but `т` looks like no `t`. This file compares
//! nothing; the registry does.

use std::sync::Arc;

use super::encode;
use super::profile::to_lower_case;

/// The encoded skeletons of one nickname: of its case-mapped form, and of the form that is shown.
///
/// Stored as one text, in which a space separates different skeletons.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NickSkeletons(Arc<str>);

impl NickSkeletons {
    /// Computes the skeletons of a nickname that is shown as `shown`.
    ///
    /// The skeleton of the shown form ignores case, like names do: it is folded, and then mapped again, since folding
    /// makes other characters look alike. So `ТOM` with a Cyrillic `Т` shares it with `tom`.
    pub(super) fn new(shown: &str, mapped: &str) -> Self {
        let of_mapped = skeleton(mapped);
        let of_shown = skeleton(&to_lower_case(&skeleton(shown)));
        let (of_mapped, of_shown) = (encode(&of_mapped), encode(&of_shown));
        if of_mapped == of_shown { Self(of_mapped) } else { Self(format!("{of_mapped} {of_shown}").into()) }
    }

    /// Returns the text that the store keeps.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the skeleton of the case-mapped form.
    #[must_use]
    pub fn mapped(&self) -> &str {
        self.0.split_once(' ').map_or(&*self.0, |(mapped, _)| mapped)
    }

    /// Returns the skeleton of the shown form; often the same.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.0.split_once(' ').map_or(&*self.0, |(_, shown)| shown)
    }

    /// Returns the different skeletons.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ')
    }
}

/// The rule for two nicknames in plain ASCII that look alike, such as `paypal` and `paypaI`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LookalikePolicy {
    /// They conflict, like any other look-alikes.
    #[default]
    AllNames,
    /// They are different names.
    ExceptAscii,
}

impl LookalikePolicy {
    /// Returns true if a name is compared with another one; the arguments are true for a name in ASCII.
    #[must_use]
    pub fn compares(self, is_ascii: bool, is_other_ascii: bool) -> bool {
        self == Self::AllNames || !(is_ascii && is_other_ascii)
    }
}

fn skeleton(text: &str) -> String {
    unicode_security::skeleton(text).collect()
}
