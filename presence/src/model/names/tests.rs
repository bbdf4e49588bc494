//! The rules for names, as tables and as properties over all characters.
#![allow(clippy::unwrap_used)]

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

mod applications;

/// Signs that no name contains.
const RESERVED: &str = "#&%~!,*?$\"\\{}";

fn nick(text: &str) -> Nick {
    Nick::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn room(text: &str) -> RoomName {
    RoomName::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Returns the text that a key encodes.
fn decoded(key: &str) -> String {
    percent_decode_str(key).decode_utf8().unwrap().into_owned()
}

#[test]
fn names_keep_their_display_form() {
    for (typed, key) in [
        ("ann", "ann"),
        ("ANN", "ann"),
        ("a-b_c", "a-b_c"),
        ("<[a]>|^`'()=;", "<[a]>|^`'()=;"),
        ("007", "007"),
        ("安静", "安静"),
        ("ひらカタ", "ひらカタ"),
        ("한국", "한국"),
        ("علي", "علي"),
        ("علي1", "علي1"),
        ("שלום", "שלום"),
        ("अनु", "अनु"),
        ("Жук", "жук"),
        ("Ωμέγα", "ωμέγα"),
        ("ΝΊΚΟΣ", "νίκοσ"),
        ("νίκος", "νίκοσ"),
        ("straẞe", "straße"),
        ("strasse", "strasse"),
        ("I", "i"),
        ("ı", "ı"),
        ("İ", "i\u{307}"),
        ("É", "é"),
        ("E\u{301}", "é"),
        ("Ａｎｎ", "ann"),
        ("ｶﾅ", "カナ"),
        ("ﾊ\u{FF9F}", "パ"),
        ("Ꭰꮿ", "ᎠᏯ"),
        ("ꭰᏯ", "ᎠᏯ"),
        ("l·l", "l·l"),
        ("カ・ナ", "カ・ナ"),
        ("م\u{200C}ن", "من"), // joiners where a script needs them, which keys leave out
        ("क\u{94D}\u{200C}ष", "क\u{94D}ष"),
        ("ක\u{DCA}\u{200D}ෂ", "ක\u{DCA}ෂ"),
        ("നന\u{D4D}\u{200D}", "നന\u{D4D}"),
        ("𑌕\u{1134D}\u{200D}𑌷", "𑌕\u{1134D}𑌷"), // a virama of Unicode 7
        ("𞤀𞤢\u{1E94A}", "𞤢𞤢\u{1E94A}"),         // Adlam, Unicode 9
        ("𞤀\u{200C}𞤢", "𞤢𞤢"),
        ("𐒰𐓘", "𐓘𐓘"), // Osage, Unicode 9
        ("𐵐𐵰", "𐵰𐵰"),
    ] {
        let nick = nick(typed);
        assert_eq!((nick.as_str(), decoded(nick.key().as_str()).as_str()), (typed, key));
        let room = room(&format!("#{typed}"));
        assert_eq!((&room.as_str()[1..], decoded(room.key().as_str()).as_str()), (typed, key));
    }
}

#[test]
fn invisible_and_reserved_characters_are_forbidden() {
    for text in [
        "a b",
        " ann",
        "ann ",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "a\0b",
        "a\u{1b}b",
        "a\u{7f}b",
        "a\u{85}b",
        "a\u{a0}b",   // no-break space
        "a\u{2028}b", // line separator
        "a\u{3000}b", // ideographic space
        "a\u{ad}b",   // soft hyphen
        "a\u{34f}b",  // combining grapheme joiner
        "a\u{61c}b",  // Arabic letter mark
        "\u{115f}",   // Hangul choseong filler
        "\u{1160}",   // Hangul jungseong filler
        "\u{3164}",   // Hangul filler
        "\u{ffa0}",   // halfwidth Hangul filler
        "a\u{180e}b", // Mongolian vowel separator
        "a\u{200b}b", // zero width space
        "a\u{200c}b", // zero width non-joiner
        "a\u{200d}b", // zero width joiner
        "\u{200c}क",  // joiners in other places
        "क\u{94d}a\u{200d}",
        "ا\u{200c}ب",
        "𐒰\u{200c}𐒰",
        "a\u{180f}b",  // a newer variation selector
        "\u{10781}",   // a newer compatibility letter
        "a\u{200e}b",  // left-to-right mark
        "a\u{202e}b",  // right-to-left override
        "a\u{2060}b",  // word joiner
        "a\u{2066}b",  // left-to-right isolate
        "a\u{fe0f}b",  // variation selector 16
        "a\u{e0100}b", // variation selector 17
        "a\u{feff}b",  // byte order mark
        "a\u{e0061}b", // tag
        "a\u{fffd}b",  // replacement character
        "a\u{e000}b",  // private use
        "a\u{fffe}b",  // noncharacter
        "a\u{378}b",   // unassigned
        "😀",
        "👩\u{200d}🚀",
        "♥",
        "ﬁ",
        "Ⅷ",
        "²",
        "a·b", // middle dot outside Catalan
        "＃a", // wide forms of reserved signs
        "a！b",
        "a＊",
    ] {
        assert!(matches!(Nick::parse(text), Err(NameError::Forbidden(_))), "{text:?}: {:?}", Nick::parse(text));
        let room = RoomName::parse(&format!("#{text}"));
        assert!(matches!(room, Err(NameError::Forbidden(_))), "#{text:?}: {room:?}");
    }
    for reserved in RESERVED.chars() {
        for text in [format!("{reserved}"), format!("{reserved}a"), format!("a{reserved}"), format!("a{reserved}b")] {
            assert_eq!(Nick::parse(&text), Err(NameError::Forbidden(reserved)), "{text}");
            assert_eq!(RoomName::parse(&format!("#{text}")), Err(NameError::Forbidden(reserved)), "#{text}");
        }
    }
}

#[test]
fn name_length_is_limited_in_graphemes_and_bytes() {
    let wide = "क\u{947}"; // 6 bytes, one grapheme
    for (text, outcome) in [
        (String::new(), Err(NameError::Empty)),
        ("a".repeat(48), Ok(())),
        ("a".repeat(49), Err(NameError::TooLong)),
        ("é".repeat(48), Ok(())),
        (format!("{}a", "é".repeat(48)), Err(NameError::TooLong)),
        ("𐒰".repeat(32), Ok(())),
        (format!("{}a", "𐒰".repeat(32)), Err(NameError::TooLong)),
        (format!("{}ab", wide.repeat(21)), Ok(())),
        (format!("{}abc", wide.repeat(21)), Err(NameError::TooLong)),
        (format!("x{}", "\u{301}".repeat(4)), Ok(())),
        (format!("x{}", "\u{301}".repeat(5)), Err(NameError::TooManyMarks)),
        (format!("x{}", "\u{301}".repeat(64)), Err(NameError::TooLong)),
    ] {
        assert_eq!(Nick::parse(&text).map(drop), outcome, "{} bytes {text}", text.len());
    }
    for (text, outcome) in [
        (String::new(), Err(NameError::Empty)),
        ("#".into(), Err(NameError::Empty)),
        ("##".into(), Err(NameError::Forbidden('#'))),
        ("##a".into(), Err(NameError::Forbidden('#'))),
        ("lobby".into(), Err(NameError::NoHash)),
        (" #lobby".into(), Err(NameError::NoHash)),
        (format!("#{}", "a".repeat(128)), Ok(())),
        (format!("#{}", "a".repeat(129)), Err(NameError::TooLong)),
        (format!("#{}", "é".repeat(127)), Ok(())),
        (format!("#{}", "é".repeat(128)), Err(NameError::TooLong)),
        (format!("#{}ab", wide.repeat(42)), Ok(())),
        (format!("#{}abc", wide.repeat(42)), Err(NameError::TooLong)),
    ] {
        assert_eq!(RoomName::parse(&text).map(drop), outcome, "{} bytes {text}", text.len());
    }
}

#[test]
fn names_that_look_alike_share_a_skeleton() {
    for (one, other) in [("\u{430}nn", "ann"), ("Аnn", "ann"), ("ı", "i"), ("раураl", "paypal"), ("о", "ο")] {
        let (one, other) = (nick(one), nick(other));
        assert_ne!(one.key(), other.key());
        assert!(look_alike(&one, &other), "{one} {other}");
    }
    assert!(nick("ann").is_ascii() && !nick("\u{430}nn").is_ascii());
    for (one, other) in [("ann", "anne"), ("user1", "user2"), ("bob", "bop"), ("Жук", "жуг"), ("安静", "安净")]
    {
        assert!(!look_alike(&nick(one), &nick(other)), "{one} {other}");
    }
}

fn look_alike(one: &Nick, other: &Nick) -> bool {
    one.skeletons().iter().any(|skeleton| other.skeletons().iter().any(|same| same == skeleton))
}

#[test]
fn repeated_mark_on_a_letter_is_hidden() {
    for (doubled, plain) in [("á\u{301}b", "áb"), ("a\u{301}\u{301}b", "áb"), ("ạ\u{323}c", "ạc"), ("ñ\u{303}e", "ñe")]
    {
        let (doubled, plain) = (nick(doubled), nick(plain));
        assert!(look_alike(&doubled, &plain), "{doubled} {plain}: {:?} {:?}", doubled.skeletons(), plain.skeletons());
    }
    assert!(!look_alike(&nick("ấ"), &nick("á")), "two different marks stay visible");
}

#[test]
fn second_dot_above_a_letter_is_hidden() {
    for (dotted, plain) in [
        ("İstanbul", "istanbul"),
        ("istanbul", "İSTANBUL"),
        ("i\u{307}an", "ian"),
        ("ı\u{307}an", "ian"),
        ("j\u{307}an", "jan"),
        ("\u{456}\u{307}van", "ivan"),
        ("ị\u{307}", "ị"),
    ] {
        let (dotted, plain) = (nick(dotted), nick(plain));
        assert_ne!(dotted.key(), plain.key());
        assert!(look_alike(&dotted, &plain), "{dotted} {plain}: {:?} {:?}", dotted.skeletons(), plain.skeletons());
    }
    for (dotted, plain) in [("ż", "z"), ("i\u{301}\u{307}", "í"), ("l\u{307}", "l")] {
        assert!(!look_alike(&nick(dotted), &nick(plain)), "{dotted} {plain}");
    }
}

#[test]
fn lookalikes_ignore_the_case_of_both_names() {
    // Cyrillic and Greek capitals whose small letters look different.
    for (ascii, other) in [
        ("Tom", "\u{422}om"),
        ("TOM", "\u{422}om"),
        ("tom", "\u{422}OM"),
        ("Bob", "\u{412}ob"),
        ("Hal", "\u{41D}al"),
        ("Hal", "\u{397}al"),
        ("Mary", "\u{41C}ary"),
        ("Kim", "\u{41A}im"),
        ("TOMMY", "\u{422}\u{41E}\u{41C}\u{41C}\u{3A5}"),
        ("MAX", "\u{41C}\u{410}\u{425}"),
        ("Zoe", "\u{396}oe"),
        ("Nick", "\u{39D}ick"),
        ("bobby", "\u{42C}obby"),
        ("Eve", "\u{395}ve"),
        ("Yuri", "\u{3A5}uri"),
        ("\u{1D1B}om", "\u{422}om"), // alike in their case-mapped forms only
        ("Anna", "\u{410}nna"),
        ("Carl", "\u{421}arl"),
        ("Petra", "\u{420}etra"),
        ("Xena", "\u{425}ena"),
        ("Admin", "\u{410}dmin"),
        ("Ivan", "\u{399}van"),
        ("Root", "R\u{3BF}ot"),
        ("paypal", "paypaI"),
        ("modern", "rnodern"),
        ("Ivar", "lvar"),
        ("bob0", "bobO"),
        ("agent1", "agentl"),
    ] {
        let (ascii, other) = (nick(ascii), nick(other));
        assert_ne!(ascii.key(), other.key());
        assert!(look_alike(&ascii, &other), "{ascii} {other}: {:?} {:?}", ascii.skeletons(), other.skeletons());
    }
}

/// Every source of confusables.txt is a character that its skeleton changes.
#[test]
fn every_confusable_name_shares_a_skeleton() {
    let mut rows = 0;
    for c in ('\0'..='\u{1FFFF}').chain('\u{20000}'..='\u{2FA1F}') {
        let prototype: String = unicode_security::skeleton(c.encode_utf8(&mut [0; 4])).collect();
        if prototype.chars().eq([c]) {
            continue;
        }
        // At the beginning, alone, and behind a letter of the same direction.
        for place in [
            |text: &str| text.to_owned(),
            |text: &str| format!("{text}x"),
            |text: &str| format!("x{text}x"),
            |text: &str| format!("א{text}א"),
        ] {
            let pair = (Nick::parse(&place(&c.to_string())), Nick::parse(&place(&prototype)));
            if let (Ok(one), Ok(other)) = pair
                && one.key() != other.key()
            {
                rows += 1;
                assert!(look_alike(&one, &other), "{one} {other}: {:?} {:?}", one.skeletons(), other.skeletons());
                let shouted = Nick::parse(&other.as_str().to_uppercase());
                assert!(
                    shouted.is_err()
                        || shouted.as_ref().unwrap().key() != other.key()
                        || look_alike(&one, &shouted.unwrap()),
                    "{one} {other} in upper case"
                );
            }
        }
    }
    assert!(rows > 3000, "{rows} pairs of names");
}

#[test]
fn marks_need_a_character_before_them() {
    for text in ["\u{338}x", "\u{301}", "\u{93E}क", "\u{20DD}a", "\u{1E94A}𞤢", "\u{FF9E}a"] {
        let first = text.chars().next().unwrap();
        assert_eq!(Nick::parse(text), Err(NameError::LeadingMark(first)), "{text:?}");
        assert_eq!(RoomName::parse(&format!("#{text}")), Err(NameError::LeadingMark(first)), "#{text:?}");
    }
    // A letter with a mark of its own has three more.
    for (text, outcome) in [
        (format!("é{}", "\u{301}".repeat(3)), Ok(())),
        (format!("é{}", "\u{301}".repeat(4)), Err(NameError::TooManyMarks)),
        ("a\u{301}\u{302}\u{303}\u{304}b\u{301}".to_owned(), Ok(())),
        (format!("𞤢{}", "\u{1E94A}".repeat(5)), Err(NameError::TooManyMarks)),
    ] {
        assert_eq!(Nick::parse(&text).map(drop), outcome, "{text:?}");
        assert_eq!(RoomName::parse(&format!("#{text}")).map(drop), outcome, "#{text:?}");
    }
}

#[test]
fn text_of_both_directions_is_refused() {
    for text in ["1علي", "annעלי", "עליann", "1𞤢", "a𞤢"] {
        assert_eq!(Nick::parse(text), Err(NameError::MixedDirection), "{text:?}");
    }
}

#[test]
fn refusal_names_the_forbidden_character() {
    for (text, reason) in [
        ("a b", "the name contains a space, which is not allowed"),
        ("a\u{7}", "the name contains U+0007, which is not allowed"),
        ("a@b", "the name contains the character @, which is not allowed"),
        (".a", "the name must not begin with the character ."),
        ("＋a", "the name must not begin with the character +"),
        ("＠a", "the name contains the character @, which is not allowed"),
        ("a😀", "the name contains U+1F600, which is not allowed"),
        ("a\u{202E}", "the name contains U+202E, which is not allowed"),
        ("a\u{200D}b", "the name contains U+200D, which is not allowed"),
        ("\u{338}x", "the name begins with a combining mark, U+0338"),
    ] {
        assert_eq!(Nick::parse(text).unwrap_err().to_string(), reason);
    }
}

fn is_plain(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_%-".contains(&byte))
}

/// Checks the rules for any text: it is refused, or its key is plain and is the key of the text that it encodes.
fn check(text: &str) {
    let Ok(nick) = Nick::parse(text) else { return };
    let key = nick.key().as_str();
    assert!(is_plain(key) && nick.skeletons().iter().all(is_plain), "{text:?} has the key {key}");
    // The mapping can make a name of maximum length longer.
    if let Err(error) = Nick::parse(&decoded(key)).map(|again| assert_eq!(again.key(), nick.key(), "{text:?}")) {
        assert_eq!(error, NameError::TooLong, "{text:?} has the key {key}");
    }
    let room = room(&format!("#{text}"));
    assert_eq!(room.key().as_str(), key, "one mapping for both");
    let read = RoomName::from_store(&format!("#{key}"));
    assert_eq!(read.as_ref().map(RoomName::key), Some(room.key()), "{text:?} read from its key");
    let (mapped_bytes, bytes) = (decoded(key).len(), text.len());
    assert!(2 * mapped_bytes <= 3 * bytes, "{text:?} is {mapped_bytes} bytes as a key");
    let forbidden = |c: char| {
        let is_ignorable = unicode_security::skeleton(c.encode_utf8(&mut [0; 4])).count() == 0;
        let is_ignorable = is_ignorable && !matches!(c, '\u{200C}' | '\u{200D}');
        is_ignorable || c.is_whitespace() || c.is_control() || RESERVED.contains(c)
    };
    assert!(!text.contains(forbidden), "{text:?} is a name");
}

#[test]
fn every_character_is_refused_or_a_valid_name() {
    // The other planes contain ideographs, private use or nothing.
    let all = ('\0'..='\u{1FFFF}').chain('\u{E0000}'..='\u{E0FFF}');
    let mut caseless = Vec::new();
    for c in all {
        check(&c.to_string());
        // After a virama PRECIS allows joiners.
        check(&format!("क\u{94D}{c}ष"));
        if !c.to_uppercase().eq([c])
            && let (Ok(typed), Ok(shouted)) = (Nick::parse(&c.to_string()), Nick::parse(&c.to_uppercase().to_string()))
            && typed.key() != shouted.key()
        {
            caseless.push(c);
        }
    }
    // Ambiguous upper case: ß and similar letters become several letters, ı becomes I, the iota subscript a capital
    // iota.
    assert!(caseless.contains(&'ß') && caseless.contains(&'ı'));
    caseless.retain(|c| c.to_uppercase().count() == 1);
    assert_eq!(caseless, ['ı']);
}

proptest! {
    #[test]
    fn any_text_is_refused_or_a_valid_name(text in any::<String>(), name in "[A-Za-zéÉςΣσАа安علي·\u{300}-\u{303}İıＡ-Ｚ_.:/+：．-]{1,12}") {
        check(&text);
        check(&name);
    }

    #[test]
    fn every_dotted_letter_hides_another_dot(letter in "\\p{Soft_Dotted}") {
        if let (Ok(plain), Ok(dotted)) = (Nick::parse(&letter), Nick::parse(&format!("{letter}\u{307}"))) {
            prop_assert!(look_alike(&plain, &dotted), "{} {:?} {:?}", plain, plain.skeletons(), dotted.skeletons());
        }
    }

    #[test]
    fn ascii_names_conflict_by_case_only(one in "[A-Za-z0-9_][A-Za-z0-9_.:/+-]{0,5}", other in "[A-Za-z0-9_][A-Za-z0-9_.:/+-]{0,5}") {
        prop_assert_eq!(nick(&one).key() == nick(&other).key(), one.eq_ignore_ascii_case(&other));
        prop_assert!(nick(&one).key() == nick(&one.to_uppercase()).key());
    }
}
