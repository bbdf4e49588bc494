#![allow(clippy::unwrap_used)]

use super::*;

fn subject(json: &str) -> Result<SanctionSubject, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn order(kind: SanctionKind, json: &str) -> SanctionOrder {
    SanctionOrder::new(kind, subject(json).unwrap(), "ann", "spam").unwrap()
}

#[test]
fn networks_have_one_form_each() {
    for (text, shown) in [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9/128", "2001:db8:1:2::/64"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::1", "::/64"),
    ] {
        assert_eq!(SanctionedNetwork::parse(text).unwrap().to_string(), shown, "{text}");
    }
    let malformed = ["", "192.0.2", "192.0.2.7/33", "::1/129", "host", "192.0.2.7 ", "192.0.2.7:80"];
    // These name IPv4 clients in part.
    let between = ["::ffff:0:0/90", "::ffff:0:0/95", "::ffff:192.0.2.7/64", "::fff0:0:0/92", "::/80"];
    for text in malformed.into_iter().chain(between) {
        assert_eq!(SanctionedNetwork::parse(text), None, "{text}");
    }
    for (text, is_wide) in [
        ("::ffff:0.0.0.0/96", true),
        ("0.0.0.0/0", true),
        ("128.0.0.0/1", true),
        ("10.0.0.0/7", true),
        ("10.0.0.0/8", false),
        ("::/0", true),
        ("2000::/3", true),
        ("2001::/15", true),
        ("2001::/16", false),
        ("192.0.2.7", false),
    ] {
        assert_eq!(SanctionedNetwork::parse(text).unwrap().is_wide(), is_wide, "{text}");
    }
}

#[test]
fn subject_names_exactly_one_client() {
    assert!(matches!(subject(r#"{"nick":"Ann"}"#), Ok(SanctionSubject::Nick(nick)) if nick.as_str() == "Ann"));
    assert!(matches!(subject(r#"{"user":"u 1"}"#), Ok(SanctionSubject::User(_))));
    for (json, part) in [
        ("{}", "exactly one"),
        (r#"{"nick":"a","user":"b"}"#, "exactly one"),
        (r#"{"nick":"a b"}"#, "nick:"),
        (r#"{"user":""}"#, "user:"),
        (r#"{"session":"*"}"#, "session:"),
        (r#"{"address":"example.org"}"#, "address:"),
    ] {
        let error = subject(json).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn one_subject_has_one_id_per_kind() {
    use SanctionKind::{Ban, Mute};
    let id = |kind, json| order(kind, json).id();
    assert_eq!(id(Ban, r#"{"nick":"Ann"}"#), id(Ban, r#"{"nick":"ann"}"#));
    assert_eq!(id(Ban, r#"{"address":"::ffff:10.0.0.1"}"#), id(Ban, r#"{"address":"10.0.0.1/32"}"#));
    assert_ne!(id(Ban, r#"{"nick":"ann"}"#), id(Mute, r#"{"nick":"ann"}"#));
    assert_ne!(id(Ban, r#"{"nick":"ann"}"#), id(Ban, r#"{"user":"ann"}"#));
}

#[test]
fn orders_refuse_subjects_of_other_kinds() {
    use SanctionKind::{Ban, Kick, Mute, Revocation};
    let session = format!(r#"{{"session":"{}"}}"#, SessionId::random());
    for (kind, json, is_allowed) in [
        (Ban, r#"{"address":"10.0.0.0/8"}"#, true),
        (Mute, r#"{"address":"10.0.0.0/8"}"#, false),
        (Revocation, r#"{"nick":"ann"}"#, false),
        (Revocation, r#"{"user":"ann"}"#, true),
        (Kick, &session, true),
        (Ban, &session, false),
    ] {
        let made = SanctionOrder::new(kind, subject(json).unwrap(), "ann", "");
        assert_eq!(made.is_ok(), is_allowed, "{kind:?} {json}");
    }
    let ban = |by: &str, reason: &str| SanctionOrder::new(Ban, subject(r#"{"nick":"a"}"#).unwrap(), by, reason);
    assert_eq!(ban("", ""), Err(OrderError::Moderator));
    assert_eq!(ban("ann", "a\nb"), Err(OrderError::Reason));
    assert_eq!(ban("ann", &"r".repeat(REASON_BYTES + 1)), Err(OrderError::Reason));
}

#[test]
fn lines_of_the_store_are_read_back() {
    let order = order(SanctionKind::Ban, r#"{"address":"10.0.0.0/8"}"#);
    let line = format!("ban 12 1000 5000 {}", serde_json::to_string(&order).unwrap());
    let change = SanctionChange::parse("a", &line).unwrap();
    let entry = change.entry.unwrap();
    assert_eq!((change.version, entry.time, entry.until, &entry.order), (12, 1000, Some(5000), &order));
    assert!(entry.is_in_force(4999) && !entry.is_in_force(5000));
    let lifted = SanctionChange::lifted(SanctionKind::Mute, 13, 2000);
    assert_eq!(SanctionChange::parse("a", &lifted).unwrap().entry, None);
    for line in ["", "ban", "ban 1 2", "ban x 2 0 {}", "ban 1 2 0 {}", "exile 1 2 0 {\"nick\":\"a\",\"by\":\"b\"}"] {
        assert_eq!(SanctionChange::parse("a", line), None, "{line}");
    }
}
