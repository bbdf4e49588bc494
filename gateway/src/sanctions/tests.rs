#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use presence::model::{Nick, SanctionOrder, SubjectFields};

use super::*;

fn subject(json: &str) -> SanctionSubject {
    let fields: SubjectFields = serde_json::from_str(json).unwrap();
    fields.try_into().unwrap()
}

fn change(kind: SanctionKind, json: &str, version: u64, until: u64) -> SanctionChange {
    let order = SanctionOrder::new(kind, subject(json), "ann", "").unwrap();
    let text = serde_json::to_string(&order).unwrap();
    SanctionChange::parse(&order.id(), &format!("{} {version} {version} {until} {text}", kind.as_str())).unwrap()
}

fn lifted(kind: SanctionKind, json: &str, version: u64) -> SanctionChange {
    let order = SanctionOrder::new(kind, subject(json), "ann", "").unwrap();
    SanctionChange::parse(&order.id(), &SanctionChange::lifted(kind, version, version)).unwrap()
}

fn read(version: u64, changes: Vec<SanctionChange>) -> ReadChanges {
    ReadChanges { version, is_whole: false, changes }
}

fn address(text: &str) -> ClientAddress {
    text.parse::<IpAddr>().unwrap().into()
}

fn nick(name: &str) -> NickKey {
    Nick::parse(name).unwrap().key().clone()
}

fn guest(nick: &NickKey) -> SanctionedClient<'_> {
    SanctionedClient { nick, user: None, session: None, address: None }
}

#[test]
fn bans_apply_to_every_subject() {
    let mut list = SanctionList::default();
    let bans =
        [r#"{"nick":"Eve"}"#, r#"{"user":"u1"}"#, r#"{"address":"192.0.2.0/24"}"#, r#"{"address":"2001:db8::/48"}"#];
    let bans = bans.iter().enumerate().map(|(at, json)| change(SanctionKind::Ban, json, at as u64 + 1, 0)).collect();
    assert!(!list.apply(10, read(4, bans)).is_empty());
    let (eve, ann, user) = (nick("EVE"), nick("ann"), UserId::parse("u1").unwrap());
    assert!(list.bans_nick(10, &eve) && list.ban_of(10, &guest(&eve)).is_some());
    assert!(list.ban_of(10, &guest(&ann)).is_none());
    assert!(list.ban_of(10, &SanctionedClient { user: Some((&user, 5)), ..guest(&ann) }).is_some());
    for (text, is_banned) in [
        ("192.0.2.9", true),
        ("::ffff:192.0.2.9", true),
        ("192.0.3.1", false),
        ("2001:db8:0:5::1", true),
        ("2001:db8:1::1", false),
        ("::c000:209", false),
    ] {
        assert_eq!(list.bans_address(10, address(text)), is_banned, "{text}");
        let client = SanctionedClient { address: Some(address(text)), ..guest(&ann) };
        assert_eq!(list.verdict(10, &client), is_banned.then_some(CloseCode::Banned), "{text}");
    }
}

#[test]
fn lifted_and_ended_entries_apply_no_more() {
    let (mut list, eve) = (SanctionList::default(), nick("eve"));
    let json = r#"{"nick":"eve"}"#;
    list.apply(10, read(1, vec![change(SanctionKind::Ban, json, 1, 100)]));
    assert!(list.bans_nick(99, &eve) && !list.bans_nick(100, &eve));
    list.apply(10, read(2, vec![change(SanctionKind::Ban, json, 2, 0)]));
    assert!(list.bans_nick(100, &eve), "the newest order about a subject wins");
    list.apply(10, read(3, vec![lifted(SanctionKind::Ban, json, 3)]));
    assert!(!list.bans_nick(10, &eve));
    assert_eq!((list.entries(), list.version()), (0, 3));
    assert_eq!(list.changes_after(10, 2).len(), 1, "the end of the entry is remembered for the store");
    assert_eq!(list.changes_after(10, 3), []);
}

#[test]
fn whole_list_replaces_what_was_known() {
    let mut list = SanctionList::default();
    list.apply(10, read(1, vec![change(SanctionKind::Ban, r#"{"nick":"eve"}"#, 1, 0)]));
    let whole = vec![change(SanctionKind::Mute, r#"{"nick":"zoe"}"#, 2, 0)];
    list.apply(10, ReadChanges { version: 2, is_whole: true, changes: whole });
    assert!(!list.bans_nick(10, &nick("eve")));
    assert!(list.mutes(10, &nick("zoe"), None) && list.has_mutes());
}

#[test]
fn revocation_compares_the_time_of_issue() {
    let (mut list, user, ann) = (SanctionList::default(), UserId::parse("u1").unwrap(), nick("ann"));
    list.apply(10, read(5000, vec![change(SanctionKind::Revocation, r#"{"user":"u1"}"#, 5000, 0)]));
    for (issued, is_revoked) in [(0, true), (4999, true), (5000, false), (6000, false)] {
        assert_eq!(list.revokes(10, &user, issued), is_revoked, "{issued}");
        let client = SanctionedClient { user: Some((&user, issued)), ..guest(&ann) };
        assert_eq!(list.verdict(10, &client), is_revoked.then_some(CloseCode::TokenExpired));
    }
    assert!(!list.revokes(10, &UserId::parse("u2").unwrap(), 0));
}

#[test]
fn kick_applies_once_and_never_at_first_read() {
    let (eve, json) = (nick("eve"), r#"{"nick":"eve"}"#);
    let mut list = SanctionList::default();
    assert!(!list.apply(10, read(1, vec![change(SanctionKind::Kick, json, 1, 100)])).kicks(&guest(&eve)));
    let effects = list.apply(10, read(2, vec![change(SanctionKind::Kick, json, 2, 100)]));
    assert!(effects.kicks(&guest(&eve)) && !effects.kicks(&guest(&nick("ann"))));
    assert!(list.apply(10, read(3, vec![])).is_empty());
    let mut empty = SanctionList::default();
    empty.confirm();
    let effects = empty.apply(10, read(1, vec![change(SanctionKind::Kick, json, 1, 100)]));
    assert!(effects.kicks(&guest(&eve)), "the list was known to be empty");
    assert_eq!(list.verdict(10, &guest(&eve)), None, "a later session may stay");
}
