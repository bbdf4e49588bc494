//! Rows for names: hostile nicknames and rooms, in every request and path that takes one.

use serde_json::json;

use crate::bad_input::row::{BadInput, Reaction, Surface};

use super::http::percent_encoded;

/// Parts of names that are allowed nowhere.
const HOSTILE: [&str; 38] = [
    "two words",
    " a",
    "a ",
    "a\u{0}b",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "a\u{7f}b",
    "a\u{85}b",
    "{0}",
    "a}b",
    "a*",
    "a?",
    "a,b",
    "a!b",
    "a\\b",
    "a\"b",
    "a%b",
    "a$b",
    "a\u{200b}b",
    "a\u{200d}b",
    "a\u{202e}b",
    "a\u{2066}b",
    "a\u{2028}b",
    "\u{feff}ann",
    "a\u{ad}b",
    "a\u{fe0f}",
    "\u{ff03}room",
    "a\u{a0}b",
    "a\u{3000}b",
    "a\u{378}b",
    "a\u{e000}b",
    "a\u{fdd0}b",
    "\u{301}a",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{1f600}",
    "a\u{5d0}1\u{661}",
    "a\u{301}\u{302}\u{303}\u{304}\u{305}",
];

fn hostile_nicks() -> Vec<String> {
    let only_nicks = ["", " ", "#room", ":ab", "@a", "/ab", ".ab", "+ab", "\u{ff0f}ab", "ann@example.org"];
    let long = ["n".repeat(49), "界".repeat(43), format!("a{}", "\u{301}".repeat(100)), "n".repeat(60_000)];
    HOSTILE.into_iter().chain(only_nicks).map(str::to_owned).chain(long).collect()
}

fn hostile_rooms() -> Vec<String> {
    let long = [format!("#{}", "r".repeat(129)), format!("#{}", "界".repeat(85)), format!("#{}", "r".repeat(60_000))];
    let rooms = HOSTILE.into_iter().map(|name| format!("#{name}"));
    rooms.chain(["", "#", "home", "##home", "@", "&home", "\u{ff03}home"].map(str::to_owned)).chain(long).collect()
}

pub(super) fn rows() -> Vec<BadInput> {
    let mut rows = Vec::new();
    let shown = |verb: &str, name: &str| format!("{verb} {:?}", name.chars().take(40).collect::<String>());
    for nick in hostile_nicks() {
        let refused = || Reaction::Refused("bad_nick");
        for (surface, verb) in [(Surface::Newcomer, "register"), (Surface::Member, "nick"), (Surface::Member, "whois")]
        {
            let request = json!({"type": verb, "nick": nick});
            rows.push(BadInput::request(surface, shown(verb, &nick), request, refused()));
        }
        // A room begins with its `#`.
        if !nick.starts_with('#') {
            let request = json!({"type": "send", "to": nick, "body": "hi"});
            rows.push(BadInput::request(Surface::Member, shown("send", &nick), request, refused()));
        }
        // Line ends and white space at the ends do not belong to the argument.
        if !nick.contains(['\n', '\r']) && nick.trim() == nick && !nick.is_empty() {
            let line = format!("/nick {nick}\n");
            rows.push(BadInput::bytes(Surface::Lines, shown("/nick", &nick), line, refused()));
            let path = format!("/v1/users/{}", percent_encoded(&nick));
            if path.len() < 8_000 {
                rows.push(super::http::api(&path, 400, "bad_nick"));
            }
        }
    }
    for room in hostile_rooms() {
        let refused = || Reaction::Refused("bad_room");
        for (verb, field) in [("join", "room"), ("leave", "room"), ("members", "room"), ("history", "to")] {
            let request = json!({"type": verb, field: room});
            rows.push(BadInput::request(Surface::Member, shown(verb, &room), request, refused()));
        }
        if room.starts_with('#') && !room.contains(char::is_whitespace) {
            let line = format!("/join {room}\n");
            rows.push(BadInput::bytes(Surface::MemberLines, shown("/join", &room), line, refused()));
            let path = format!("/v1/rooms/{}", percent_encoded(&room));
            if path.len() < 8_000 {
                rows.push(super::http::api(&path, 400, "bad_room"));
            }
        }
    }
    rows
}
