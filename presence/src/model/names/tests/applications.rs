//! Ids of applications as names: which of them are accepted, and the text of the refusal of the others.

use super::*;

/// Returns `ok`, or the refusal.
fn outcome<T>(parsed: Result<T, NameError>) -> String {
    parsed.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
}

#[test]
fn ids_of_applications_are_nicknames_and_rooms() {
    let contains = |sign: char| format!("the name contains the character {sign}, which is not allowed");
    let begins = |sign: char| format!("the name must not begin with the character {sign}");
    let ok = || "ok".to_owned();
    for (id, as_nick, as_room) in [
        ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", ok(), ok()), // UUID
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", ok(), ok()),           // ULID
        ("507f1f77bcf86cd799439011", ok(), ok()),             // MongoDB
        ("v1StGXR8_Z5jdHi6B-myT", ok(), ok()),                // Nano ID
        ("john.doe", ok(), ok()),
        ("J.R.R.Tolkien", ok(), ok()),
        ("user:123", ok(), ok()),
        ("org/team+bot", ok(), ok()),
        ("urn:uuid:3f2504e0-4f89-11d3-9a0c-0305e82c3301", ok(), ok()),
        ("arn:aws:iam::123456789012:user/ann", ok(), ok()),
        ("auth0|507f1f77bcf86cd799439011", ok(), ok()),
        ("0oa1gjh63g214q0Hq0g4", ok(), ok()), // Okta
        ("dGVzdA==", ok(), ok()),             // Base64
        ("a:b.c", ok(), ok()),
        ("ann.", ok(), ok()),
        ("a..b", ok(), ok()),
        ("a/../b", ok(), ok()),
        ("team::", ok(), ok()),
        ("c++", ok(), ok()),
        ("a/", ok(), ok()),
        ("李.小明", ok(), ok()),
        ("دار.نور", ok(), ok()),
        (".hidden", begins('.'), ok()),
        (":a", begins(':'), ok()),
        ("+49301234", begins('+'), ok()),
        ("/admin", begins('/'), ok()),
        (".", begins('.'), ok()),
        ("..", begins('.'), ok()),
        ("=a", ok(), ok()),
        ("ann@example.org", contains('@'), ok()),
        ("@ann", contains('@'), ok()),
        ("@ann:matrix.org", contains('@'), ok()),
        ("/@a", contains('@'), ok()),
        ("mailto:ann@example.org", contains('@'), ok()),
        ("github.com/org/repo/pull/17", ok(), ok()),
        ("https://example.org/docs/a.b", ok(), ok()),
        ("https://example.org/?a=b", contains('?'), contains('?')),
        ("id=1&b=2", contains('&'), contains('&')),
        ("DOMAIN\\ann", contains('\\'), contains('\\')),
        ("{3f2504e0}", contains('{'), contains('{')),
        ("a%2Fb", contains('%'), contains('%')),
        ("a,b", contains(','), contains(',')),
        ("#a", contains('#'), contains('#')),
        ("a~b", contains('~'), contains('~')),
        (
            "John Doe",
            "the name contains a space, which is not allowed".into(),
            "the name contains a space, which is not allowed".into(),
        ),
    ] {
        assert_eq!(outcome(Nick::parse(id)), as_nick, "{id}");
        assert_eq!(outcome(RoomName::parse(&format!("#{id}"))), as_room, "#{id}");
    }
}

/// The rule holds for the name that is compared: wide forms of signs are the same signs.
#[test]
fn wide_signs_count_as_the_usual_ones() {
    for (wide, usual) in [("a．b", "a.b"), ("a：b", "a:b"), ("a／b", "a/b"), ("a＋b", "a+b"), ("Ａ．", "a.")] {
        assert_eq!(nick(wide).key(), nick(usual).key());
        assert_eq!(nick(wide).as_str(), wide);
    }
    for (wide, sign) in [("．a", '.'), ("：a", ':'), ("／a", '/'), ("＋a", '+')] {
        assert_eq!(Nick::parse(wide), Err(NameError::Leading(sign)));
        room(&format!("#{wide}"));
    }
    assert_eq!(room("#ann＠example．org").key(), room("#ann@example.org").key());
    assert_eq!(Nick::parse("a＠b"), Err(NameError::Forbidden('@')));
}

/// Dots, colons and slashes of other scripts are no names, or look like the usual ones.
#[test]
fn lookalike_signs_are_refused_or_confusable() {
    for sign in
        ['\u{2024}', '\u{A789}', '\u{2236}', '\u{FE55}', '\u{2044}', '\u{2215}', '\u{2571}', '\u{3002}', '\u{589}']
    {
        assert_eq!(Nick::parse(&format!("a{sign}b")), Err(NameError::Forbidden(sign)), "U+{:04X}", u32::from(sign));
    }
    // Letters that are drawn like signs.
    for (letter, sign) in [("\u{A4F8}", "."), ("\u{A4FD}", ":"), ("\u{2D0}", ":"), ("ノ", "/"), ("\u{1029B}", "+")] {
        let (other, plain) = (nick(&format!("a{letter}b")), nick(&format!("a{sign}b")));
        assert_ne!(other.key(), plain.key());
        assert!(look_alike(&other, &plain), "{other} {plain}: {:?} {:?}", other.skeletons(), plain.skeletons());
    }
    for (one, other) in [("a.b", "a:b"), ("ann", "ann."), ("a.b", "ab"), ("a/b", "a.b"), ("a..b", "a.b")] {
        assert!(!look_alike(&nick(one), &nick(other)), "{one} {other}");
    }
}

#[test]
fn room_name_is_read_back_from_its_key() {
    for name in ["#lobby", "#john.doe", "#ann@example.org", "#a/b:c+d=e", "#李小明", "#é"] {
        let room = room(name);
        let read = RoomName::from_store(&format!("#{}", room.key()));
        assert_eq!(read.map(|read| read.key().clone()), Some(room.key().clone()), "{name}");
        assert_eq!(RoomName::from_store(name), Some(room));
    }
    let longest = room(&format!("#{}", "\u{23A}".repeat(127)));
    assert_eq!(RoomName::from_store(&format!("#{}", longest.key())), None);
    assert!(longest.key().as_str().len() <= KEY_BYTES);
    for malformed in ["", "lobby", "#", "#%", "#%FF", "#%20", "#a%2"] {
        assert_eq!(RoomName::from_store(malformed), None, "{malformed}");
    }
}
