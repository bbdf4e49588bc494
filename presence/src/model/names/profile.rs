//! The PRECIS profile of names (RFC 8265 section 3.3) with the characters of newer Unicode versions.
//!
//! The tables of the profile end with Unicode 6.3. For a newer letter, mark or digit it judges a stand-in: an older
//! character of the same kind. Keys of names in older characters never change. Knows neither nicknames nor rooms.

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::Rules;
use precis_profiles::precis_core::{DerivedPropertyValue, Error, IdentifierClass, StringClass};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::NameError;

/// A set of ASCII signs: one bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignSet(u128);

impl SignSet {
    /// Returns the set of these signs.
    pub(super) const fn of(signs: &[u8]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < signs.len() {
            assert!(signs[at].is_ascii());
            set |= 1 << signs[at];
            at += 1;
        }
        Self(set)
    }

    const fn contains(self, c: char) -> bool {
        c.is_ascii() && self.0 >> c as u32 & 1 == 1
    }
}

/// The rule for signs with a meaning in a protocol: commands, IRC, masks, links, keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignRule {
    /// Signs that a name does not contain.
    pub(super) forbidden: SignSet,
    /// Signs that a name contains only after its first character.
    pub(super) not_first: SignSet,
}

impl SignRule {
    /// Checks a name of narrow characters.
    fn check(self, narrow: &str) -> Result<(), NameError> {
        if let Some(sign) = narrow.chars().find(|c| self.forbidden.contains(*c)) {
            return Err(NameError::Forbidden(sign));
        }
        match narrow.chars().next().filter(|c| self.not_first.contains(*c)) {
            Some(sign) => Err(NameError::Leading(sign)),
            None => Ok(()),
        }
    }
}

/// Zero width non-joiner and joiner. They are allowed where a script needs them (RFC 5892 appendices A.1 and A.2), and
/// are left out of keys, because two names must not differ by invisible characters.
const JOINERS: [char; 2] = ['\u{200C}', '\u{200D}'];

/// Maximum number of combining marks in a row (UTS 39 section 5.4).
const MARKS_MAX: usize = 4;

/// Stand-ins for newer characters, by their behaviour in the bidi rule and in the joiner rules.
const LETTER: char = 'a';
const RTL_LETTER: char = 'א';
const RTL_JOINING_LETTER: char = 'ب';
const MARK: char = '\u{5B0}';
const VIRAMA: char = '\u{94D}';

/// Returns the case-mapped form of a name.
///
/// # Errors
/// [`NameError`] for the first broken rule.
pub(super) fn case_map(text: &str, signs: SignRule) -> Result<String, NameError> {
    if text.is_ascii() { case_map_ascii(text, signs) } else { case_map_unicode(text, signs) }
}

/// [`case_map_unicode`] for ASCII, of which the profile allows the printable characters. Every message has such a name.
fn case_map_ascii(text: &str, signs: SignRule) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(forbidden) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(NameError::Forbidden(forbidden));
    }
    signs.check(text)?;
    Ok(text.to_ascii_lowercase())
}

fn case_map_unicode(text: &str, signs: SignRule) -> Result<String, NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    let profile = UsernameCaseMapped::new();
    // The profile refuses white space, controls, bidi controls, default-ignorables and unassigned code points. It also
    // refuses symbols (including emoji), compatibility forms other than wide and narrow ones, and violations of the
    // bidi rule of RFC 5893.
    let folded: String = text.chars().map(fold).collect();
    let narrow = profile.width_mapping_rule(folded).map_err(|error| refusal(text, &error))?;
    if narrow.starts_with(is_mark) {
        return Err(NameError::LeadingMark(first));
    }
    let judged: String = narrow.chars().map(stand_in).collect();
    IdentifierClass::default().allows(judged).map_err(|error| refusal(&narrow, &error))?;
    // Checked after the width mapping, which makes wide signs the usual ones (U+FF03 becomes '#').
    signs.check(&narrow)?;
    let lower = profile.case_mapping_rule(narrow).map_err(|error| refusal(text, &error))?;
    let visible: String = lower.chars().filter(|c| !JOINERS.contains(c)).collect();
    let mapped = profile.normalization_rule(visible).map_err(|error| refusal(text, &error))?;
    let judged: String = mapped.chars().map(stand_in).collect();
    profile.directionality_rule(judged).map_err(|_| NameError::MixedDirection)?;
    if has_too_many_marks(&mapped) { Err(NameError::TooManyMarks) } else { Ok(mapped.chars().map(fold).collect()) }
}

/// Returns a text in lower case, as the profile and [`fold`] map case.
pub(super) fn to_lower_case(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(fold).flat_map(char::to_lowercase).map(fold).collect()
}

/// Folds the letters that the profile maps wrongly, as Unicode case folding does. Final sigma becomes sigma, so `ΝΊΚΟΣ`
/// equals `νίκος`. Cherokee becomes upper case, because its lower case is newer than the profile. Newer forms of seven
/// Cyrillic letters, which have an old capital, become the usual small letter.
fn fold(c: char) -> char {
    match c {
        'ς' => 'σ',
        '\u{13F8}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => c.to_uppercase().next().unwrap_or(c),
        '\u{1C80}'..='\u{1C88}' => c.to_uppercase().flat_map(char::to_lowercase).next().unwrap_or(c),
        _ => c,
    }
}

/// Returns true for a mark, which belongs to the letter before it.
pub(super) fn is_mark(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Mark
}

fn has_too_many_marks(text: &str) -> bool {
    let mut marks = 0;
    text.nfd().any(|c| {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        marks > MARKS_MAX
    })
}

/// Returns the character that the profile judges in place of a newer one; any other character as it is.
///
/// By RFC 8264 section 9 a newer character is valid if it is a letter, mark or decimal digit (section 9.1) that its
/// compatibility mapping does not change (section 9.17) and that is not ignorable (section 9.13).
fn stand_in(c: char) -> char {
    use GeneralCategory::{
        DecimalNumber, LowercaseLetter, ModifierLetter, NonspacingMark, OtherLetter, SpacingMark, UppercaseLetter,
    };
    let is_newer = IdentifierClass::default().get_value_from_char(c) == DerivedPropertyValue::Unassigned;
    if !is_newer || !c.nfkc().eq([c]) || unicode_security::skeleton(c.encode_utf8(&mut [0; 4])).count() == 0 {
        return c;
    }
    match c.general_category() {
        NonspacingMark | SpacingMark if canonical_combining_class(c) == 9 => VIRAMA,
        NonspacingMark => MARK,
        LowercaseLetter | UppercaseLetter | OtherLetter | ModifierLetter | DecimalNumber if is_right_to_left(c) => {
            if is_joining(c) {
                RTL_JOINING_LETTER
            } else {
                RTL_LETTER
            }
        }
        LowercaseLetter | UppercaseLetter | OtherLetter | ModifierLetter | DecimalNumber | SpacingMark => LETTER,
        _ => c,
    }
}

/// Returns true for the blocks that Unicode reserves for right-to-left scripts (DerivedBidiClass.txt).
fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFF}' | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

/// Returns true for the right-to-left scripts whose letters are joined: Arabic, Syriac, Hanifi Rohingya and Adlam.
fn is_joining(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{8FF}' | '\u{10D00}'..='\u{10D23}' | '\u{10EC0}'..='\u{10EFF}' | '\u{1E900}'..='\u{1E943}')
}

/// Names the character of `text` that the profile refuses.
fn refusal(text: &str, error: &Error) -> NameError {
    match error {
        Error::BadCodepoint(info) => {
            let found = text.chars().nth(info.position);
            NameError::Forbidden(found.or(char::from_u32(info.cp)).unwrap_or(char::REPLACEMENT_CHARACTER))
        }
        _ => NameError::Forbidden(text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_names_map_as_the_profile_maps_them() {
        let ascii = || (0..128_u8).map(char::from);
        let pairs = ascii().flat_map(|first| ascii().map(move |second| format!("{first}{second}")));
        let signs = SignRule { forbidden: SignSet::of(b"#@"), not_first: SignSet::of(b".:") };
        for name in ascii().map(String::from).chain(pairs).chain([String::new(), "a b#".to_owned(), "42".to_owned()]) {
            assert_eq!(case_map(&name, signs), case_map_unicode(&name, signs), "{name:?}");
        }
    }
}
