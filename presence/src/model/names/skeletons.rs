//! The skeletons of a nickname: forms that are equal for names that look alike (UTS 39 section 4).
//!
//! Two nicknames are look-alikes if they share one of their skeletons. A nickname has two, because its letters look
//! different in upper and in lower case: a Cyrillic `Т` looks like `T`, but `т` looks like no `t`. This file compares
//! nothing; the registry does.

use std::sync::Arc;

use unicode_normalization::char::canonical_combining_class;

use super::encode;
use super::profile::{is_mark, to_lower_case};

/// Combining dot above.
const DOT_ABOVE: char = '\u{307}';
/// Canonical combining class of marks above a letter.
const ABOVE: u8 = 230;
/// The letters of names with a dot of their own (Soft_Dotted in PropList.txt) that a skeleton contains. It has `i` and
/// `j`, with or without a mark, for the others.
const SOFT_DOTTED: [char; 5] = ['i', 'j', '\u{29D}', '\u{1D96}', '\u{1DF1A}'];

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

/// Returns the skeleton of UTS 39, without hidden marks. A letter with a dot of its own looks the same with another one
/// (After_Soft_Dotted in SpecialCasing.txt), so `İzmir`, in lower case an `i` and U+0307, equals `izmir`. The same mark
/// twice is drawn in one place (UTS 39 section 5.4).
fn skeleton(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || PLAIN_SIGNS.contains(&byte)) {
        return plain_skeleton(text);
    }
    unicode_skeleton(text)
}

/// Signs that are their own skeleton.
const PLAIN_SIGNS: &[u8] = b"-_.:/+";

/// [`unicode_skeleton`] for ASCII letters, digits and [`PLAIN_SIGNS`], of which most names consist.
fn plain_skeleton(text: &str) -> String {
    let mut skeleton = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '0' => skeleton.push('O'),
            '1' | 'I' => skeleton.push('l'),
            'm' => skeleton.push_str("rn"),
            char => skeleton.push(char),
        }
    }
    skeleton
}

fn unicode_skeleton(text: &str) -> String {
    let (mut has_dot, mut previous) = (false, None);
    let is_visible = |c: &char| {
        let is_repeated = previous.replace(*c) == Some(*c) && is_mark(*c);
        let is_hidden = is_repeated || has_dot && *c == DOT_ABOVE;
        // Marks elsewhere on the letter leave its dot alone; one above takes its place.
        match canonical_combining_class(*c) {
            0 => has_dot = SOFT_DOTTED.contains(c),
            ABOVE => has_dot = false,
            _ => {}
        }
        !is_hidden
    };
    unicode_security::skeleton(text).filter(is_visible).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_characters_have_their_unicode_skeletons() {
        for char in ('a'..='z').chain('A'..='Z').chain('0'..='9').chain(PLAIN_SIGNS.iter().copied().map(char::from)) {
            let text = String::from(char);
            assert_eq!(plain_skeleton(&text), unicode_skeleton(&text));
        }
    }

    proptest! {
        #[test]
        fn plain_names_have_their_unicode_skeletons(text in "[A-Za-z0-9_.:/+-]{0,24}") {
            prop_assert_eq!(plain_skeleton(&text), unicode_skeleton(&text));
        }
    }
}
