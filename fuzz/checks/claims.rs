//! The claims of a token whose signature is valid become a grant with valid names, or a fault without a part of them.

use gateway::identity::{Grant, KeyFingerprint, RoomRight};
use presence::model::{Nick, RoomName, UserId};

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Grant::of_claims(text, KeyFingerprint::default()) {
        Ok(grant) => {
            assert_eq!(UserId::parse(grant.user.as_str()).as_ref(), Some(&grant.user));
            assert!(grant.nick.as_ref().is_none_or(|nick| Nick::parse(nick.as_str()).as_ref() == Ok(nick)));
            assert!(grant.name.as_ref().is_none_or(|name| name.len() <= 255 && !name.contains(char::is_control)));
            let home = RoomName::parse("#home").expect("a room");
            let rights = [RoomRight::Join, RoomRight::Send, RoomRight::History, RoomRight::Moderate];
            let granted = rights.into_iter().filter(|right| grant.may(&home, *right)).count();
            assert!(grant.rooms.is_some() || granted == rights.len());
            assert!(grant.rooms.as_ref().is_none_or(|rules| !rules.is_empty() || granted == 0));
        }
        Err(fault) => assert!(fault.to_string().len() < 64 && fault.to_string().is_ascii(), "{fault}"),
    }
}
