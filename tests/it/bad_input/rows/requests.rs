//! Rows for requests as JSON: broken frames, wrong fields, cursors, positions and tokens of sessions.

use serde_json::{Value, json};

use crate::bad_input::row::{BadInput, Reaction, Surface};

/// The maximum size of a request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The maximum size of a skipped message; a longer one ends the connection.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// Texts that no page of users or members gives. Redis cannot read beyond the numbers in the second half.
pub(super) const FORGED_CURSORS: [&str; 18] = [
    "",
    "x",
    "-1",
    "+1",
    "1.",
    ".1",
    "1.2",
    "1.2.3",
    "1e3",
    " 1",
    "\0",
    "{0}",
    "*",
    "18446744073709551616",
    "18446744073709551615",
    "9007199254740993",
    "0.18446744073709551615",
    "0.9223372036854775808",
];

fn text(name: &str, text: impl Into<String>, id: Value, code: &'static str) -> BadInput {
    BadInput { id, ..BadInput::bytes(Surface::Newcomer, name, text.into(), Reaction::Refused(code)) }
}

/// Returns a `send` of this size as text.
fn of_size(size: usize) -> String {
    let frame = |body: String| format!("{{\"type\":\"send\",\"to\":\"#eve\",\"body\":\"{body}\"}}");
    frame("x".repeat(size - frame(String::new()).len()))
}

pub(super) fn rows() -> Vec<BadInput> {
    let nested =
        |depth: usize| format!("{{\"type\":\"ping\",\"id\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let escapes =
        |count: usize| format!("{{\"type\":\"send\",\"to\":\"ann\",\"body\":\"{}\"}}", "\\u0061".repeat(count));
    let accepted = |name, request: &str| {
        let row = BadInput::bytes(Surface::Newcomer, name, request, Reaction::Accepted("pong"));
        BadInput { id: serde_json::from_str::<Value>(request).unwrap()["id"].clone(), ..row }
    };
    let mut rows = vec![
        text("nothing", "", Value::Null, "bad_request"),
        text("white space", " \n\t ", Value::Null, "bad_request"),
        text("an open brace", "{", Value::Null, "bad_request"),
        text("null", "null", Value::Null, "bad_request"),
        text("a list", "[]", Value::Null, "bad_request"),
        text("a list of requests", "[{\"type\":\"ping\"}]", Value::Null, "bad_request"),
        text("a string", "\"ping\"", Value::Null, "bad_request"),
        text("two objects", "{\"type\":\"ping\"}{\"type\":\"ping\"}", Value::Null, "bad_request"),
        text("trailing text", "{\"type\":\"ping\"} trailing", Value::Null, "bad_request"),
        text("a byte order mark", "\u{feff}{\"type\":\"ping\"}", Value::Null, "bad_request"),
        text("a comment", "{\"type\":\"ping\"/**/}", Value::Null, "bad_request"),
        text("a trailing comma", "{\"type\":\"ping\",}", Value::Null, "bad_request"),
        text("single quotes", "{'type':'ping'}", Value::Null, "bad_request"),
        text("a NUL", "{\"type\":\"ping\"\0}", Value::Null, "bad_request"),
        text("a control character in a string", "{\"type\":\"pi\u{1}ng\"}", Value::Null, "bad_request"),
        text("NaN as id", "{\"type\":\"ping\",\"id\":NaN}", Value::Null, "bad_request"),
        text("Infinity as id", "{\"type\":\"ping\",\"id\":Infinity}", Value::Null, "bad_request"),
        text("a list as id", "{\"type\":\"ping\",\"id\":[1]}", Value::Null, "bad_request"),
        text("an object as id", "{\"type\":\"ping\",\"id\":{}}", Value::Null, "bad_request"),
        text("null as id", "{\"type\":\"ping\",\"id\":null}", Value::Null, "bad_request"),
        text("1e999 as id", "{\"type\":\"ping\",\"id\":1e999}", Value::Null, "bad_request"),
        text(
            "an id of 129 bytes",
            format!("{{\"type\":\"ping\",\"id\":\"{}\"}}", "i".repeat(127)),
            Value::Null,
            "bad_request",
        ),
        text("two ids", "{\"type\":\"ping\",\"id\":1,\"id\":2}", Value::Null, "bad_request"),
        text("half a surrogate pair as id", "{\"type\":\"ping\",\"id\":\"\\ud800\"}", Value::Null, "bad_request"),
        text("no type", "{\"id\":1}", json!(1), "bad_request"),
        text("a number as type", "{\"id\":\"a\",\"type\":7}", json!("a"), "bad_request"),
        text("an unknown type", "{\"id\":2,\"type\":\"dance\"}", json!(2), "unknown_type"),
        text("a type in capitals", "{\"id\":2,\"type\":\"PING\"}", json!(2), "unknown_type"),
        text("an empty type", "{\"id\":2,\"type\":\"\"}", json!(2), "unknown_type"),
        text("two types", "{\"id\":3,\"type\":\"ping\",\"type\":\"bye\"}", json!(3), "bad_request"),
        text("two types, one escaped", "{\"id\":3,\"type\":\"ping\",\"t\\u0079pe\":\"bye\"}", json!(3), "bad_request"),
        text("no nickname", "{\"id\":4,\"type\":\"register\"}", json!(4), "bad_request"),
        text("a number as nickname", "{\"id\":5,\"type\":\"register\",\"nick\":7}", json!(5), "bad_request"),
        text("null as nickname", "{\"id\":5,\"type\":\"register\",\"nick\":null}", json!(5), "bad_request"),
        text("half a surrogate pair", "{\"id\":6,\"type\":\"register\",\"nick\":\"\\ud800\"}", json!(6), "bad_request"),
        text(
            "a surrogate pair backwards",
            "{\"id\":6,\"type\":\"whois\",\"nick\":\"\\udc00\\ud800\"}",
            json!(6),
            "bad_request",
        ),
        text("10,000 levels", nested(10_000), json!(1), "bad_request"),
        text("33 levels", nested(32), json!(1), "bad_request"),
        text("64 KiB of escapes", escapes(10_000), Value::Null, "not_registered"),
        text("1 MiB of escapes", escapes(170_000), Value::Null, "too_large"),
        text("exactly 64 KiB", of_size(REQUEST_BYTES_MAX), Value::Null, "not_registered"),
        text("64 KiB and a byte", of_size(REQUEST_BYTES_MAX + 1), Value::Null, "too_large"),
        text("exactly 1 MiB", of_size(DISCARDED_BYTES_MAX), Value::Null, "too_large"),
        accepted("32 levels", &nested(31)),
        accepted("an id of minus zero", "{\"type\":\"ping\",\"id\":-0}"),
        accepted("an id above 64 bits", "{\"type\":\"ping\",\"id\":18446744073709551616}"),
        accepted("a prototype", "{\"type\":\"ping\",\"__proto__\":{\"type\":\"bye\"},\"constructor\":1}"),
        accepted("unknown fields", "{\"type\":\"ping\",\"nick\":7,\"room\":[],\"$where\":\"sleep\"}"),
    ];
    for verb in ["join", "leave", "members"] {
        rows.push(newcomer(json!({"type": verb, "room": "#home"}), "not_registered"));
    }
    for verb in ["send", "typing", "history", "read"] {
        rows.push(newcomer(
            json!({"type": verb, "to": "#home", "body": 1}),
            if verb == "read" { "bad_request" } else { "not_registered" },
        ));
    }
    rows.extend(member_rows());
    rows
}

fn newcomer(request: Value, code: &'static str) -> BadInput {
    BadInput::request(Surface::Newcomer, request.to_string(), request, Reaction::Refused(code))
}

fn member(request: Value, code: &'static str) -> BadInput {
    let shown: String = request.to_string().chars().take(80).collect();
    BadInput::request(Surface::Member, shown, request, Reaction::Refused(code))
}

fn member_rows() -> Vec<BadInput> {
    let send = |more: &Value| {
        let mut request = json!({"type": "send", "to": "ann", "body": "hi"});
        for (field, value) in more.as_object().unwrap() {
            request[field] = value.clone();
        }
        request
    };
    let raw = |name: &str, body: &str| {
        let text = format!("{{\"type\":\"send\",\"to\":\"ann\",\"id\":\"row\",\"body\":{body}}}");
        BadInput { id: json!("row"), ..BadInput::bytes(Surface::Member, name, text, Reaction::Refused("bad_request")) }
    };
    vec![
        member(json!({"type": "register", "nick": "eve2"}), "already_registered"),
        member(json!({"type": "send", "to": "#home", "body": "hi"}), "not_in_room"),
        member(json!({"type": "typing", "to": "#home"}), "not_in_room"),
        member(json!({"type": "leave", "room": "#home"}), "not_in_room"),
        member(json!({"type": "history", "to": "#home"}), "not_in_room"),
        member(json!({"type": "send", "to": "#home"}), "bad_request"),
        member(send(&json!({"to": 7})), "bad_request"),
        member(send(&json!({"to": ["ann", "bob"]})), "bad_request"),
        member(send(&json!({"key": ""})), "bad_request"),
        member(send(&json!({"key": 7})), "bad_request"),
        member(send(&json!({"key": "k".repeat(65)})), "bad_request"),
        raw("a body of 1e400", "1e400"),
        raw("a body with a key twice", "{\"a\":1,\"b\":{\"c\":1,\"c\":2}}"),
        raw("a body with half a surrogate pair", "{\"a\":\"\\ud800x\"}"),
        member(json!({"type": "status", "status": "asleep"}), "bad_request"),
        member(json!({"type": "status", "status": "away", "text": "t".repeat(257)}), "bad_request"),
        member(json!({"type": "status", "status": "away", "text": "a\nb"}), "bad_request"),
        member(json!({"type": "status", "status": "away", "text": "a\u{1b}[2J"}), "bad_request"),
        member(json!({"type": "read", "to": "#home", "seq": 1}), "bad_request"),
        member(json!({"type": "read", "to": "@", "seq": -1}), "bad_request"),
        member(json!({"type": "read", "to": "@", "seq": 1.5}), "bad_request"),
        member(json!({"type": "refresh", "token": "x.y.z"}), "token_invalid"),
        member(json!({"type": "refresh"}), "bad_request"),
    ]
}

/// Rows for pages: limits, cursors and positions.
pub(super) fn cursor_rows() -> Vec<BadInput> {
    let mut rows = Vec::new();
    for limit in [json!(0), json!(1001), json!(-1), json!(1.5), json!("10"), json!(null), json!(u64::MAX)] {
        rows.push(member(json!({"type": "rooms", "limit": limit}), "bad_request"));
        rows.push(member(json!({"type": "members", "room": "#home", "limit": limit}), "bad_request"));
    }
    for limit in [json!(0), json!(201)] {
        rows.push(member(json!({"type": "history", "to": "#home", "limit": limit}), "bad_request"));
    }
    for cursor in FORGED_CURSORS {
        rows.push(member(json!({"type": "members", "room": "#home", "cursor": cursor}), "bad_request"));
    }
    for cursor in ["[", "\u{ff}", "a\0b", "{0}", "*", "\r\n", "+", "-", "(", "["] {
        let request = json!({"type": "rooms", "cursor": cursor});
        rows.push(BadInput::request(Surface::Member, request.to_string(), request, Reaction::Accepted("rooms")));
    }
    rows.push(member(json!({"type": "rooms", "cursor": "c".repeat(4096)}), "bad_request"));
    rows.push(member(json!({"type": "rooms", "cursor": 1}), "bad_request"));
    for seq in [json!(-1), json!(1.5), json!("1"), json!(1_u64 << 53), json!(null), json!(u64::MAX)] {
        rows.push(member(json!({"type": "history", "to": "#home", "before": seq}), "bad_request"));
        rows.push(member(json!({"type": "history", "to": "#home", "after": seq}), "bad_request"));
        rows.push(member(json!({"type": "join", "room": "#a", "since": {"epoch": "e", "seq": seq}}), "bad_request"));
    }
    rows.push(member(json!({"type": "history", "to": "#home", "before": 1, "after": 1}), "bad_request"));
    for since in [json!(null), json!(1), json!([]), json!({}), json!({"epoch": 1, "seq": 1}), json!({"seq": 1})] {
        rows.push(member(json!({"type": "join", "room": "#a", "since": since}), "bad_request"));
    }
    for (name, epoch, seq) in [
        ("a forged epoch", "f".repeat(40), 5),
        ("an epoch with a space", "a b:1".to_owned(), 1),
        ("an empty epoch", String::new(), 0),
        ("the largest seq", "e".to_owned(), (1_u64 << 53) - 1),
        ("an epoch of 32 KiB", "e".repeat(32_000), 1),
    ] {
        let request = json!({"type": "join", "room": "#well", "since": {"epoch": epoch, "seq": seq}});
        let row = BadInput::request(Surface::Member, name, request, Reaction::Accepted("joined"));
        rows.push(row.undone_by(&json!({"type": "leave", "room": "#well"})));
    }
    rows
}

/// Rows for resumes. `used` is the token of a session that has a newer one.
pub(super) fn resume_rows(used: &str) -> Vec<BadInput> {
    let resume = |resume: Value, more: Value| {
        let mut request = json!({"type": "register", "nick": "mallory", "resume": resume});
        for (field, value) in more.as_object().unwrap() {
            request[field] = value.clone();
        }
        request
    };
    let position = json!({"epoch": "e", "seq": 1});
    let many: Value =
        (0..129).map(|room| (format!("#room-{room}"), position.clone())).collect::<serde_json::Map<_, _>>().into();
    let rows = [
        (resume(json!(used), json!({})), "resume_failed"),
        (resume(json!(used.to_uppercase()), json!({})), "resume_failed"),
        (resume(json!(""), json!({})), "resume_failed"),
        (resume(json!("x".repeat(60_000)), json!({})), "resume_failed"),
        (resume(json!("\0"), json!({})), "resume_failed"),
        (resume(json!("{0}:session:*"), json!({})), "resume_failed"),
        (resume(json!(7), json!({})), "bad_request"),
        (resume(json!(null), json!({})), "bad_request"),
        (resume(json!("t"), json!({"since": []})), "bad_request"),
        (resume(json!("t"), json!({"since": {"home": position}})), "bad_room"),
        (resume(json!("t"), json!({"since": {"#home": {"epoch": "e", "seq": -1}}})), "bad_request"),
        (resume(json!("t"), json!({"since": {"#home": position, "#HOME": position}})), "bad_request"),
        (resume(json!("t"), json!({"since": many})), "bad_request"),
        (resume(json!("t"), json!({"since": {"@": position, "#a": position}})), "resume_failed"),
        (json!({"type": "register", "nick": "mallory", "since": {}}), "bad_request"),
    ];
    rows.into_iter()
        .map(|(request, code)| {
            let shown: String = request.to_string().chars().take(80).collect();
            BadInput::request(Surface::Newcomer, shown, request, Reaction::Refused(code))
        })
        .collect()
}
