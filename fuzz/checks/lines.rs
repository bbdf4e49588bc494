//! A text line becomes a valid request, or output that is whole lines without a character that controls a terminal.

use gateway::wire::line::{Decoded, LineDialect, encode_refusal};
use gateway::wire::{Answer, Command, Reply, Since, Token};

use super::requests::check_command;

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut dialect = LineDialect::default();
    for line in text.split('\n').take(64) {
        match dialect.decode(line) {
            Decoded::Nothing => {}
            Decoded::Refused(refusal) => assert_eq!(harmless_lines(&encode_refusal(&refusal)), 1, "{line:?}"),
            Decoded::Local(output) => assert!(harmless_lines(&output) > 0, "{line:?}"),
            Decoded::Request(request) => {
                assert!(request.id.is_none());
                check_command(&request.command);
                if let Some(answer) = accepted(request.command) {
                    harmless_lines(&dialect.encode_reply(&Reply { id: None, answer }));
                }
            }
        }
    }
}

/// Returns the answers that change what the next lines mean.
fn accepted(command: Command) -> Option<Answer> {
    Some(match command {
        Command::Register { nick, .. } => Answer::Registered {
            nick: nick?.to_string(),
            user: None,
            expires_in_ms: None,
            session: "s".to_owned(),
            resume: Token::new("t"),
            rooms: Vec::new(),
            inbox: Since { epoch: "e".to_owned(), seq: 0 },
            heartbeat_ms: 1,
            node: "g1".to_owned(),
            time: 1,
        },
        Command::Join { room, .. } => Answer::Joined {
            room: room.as_str().to_owned(),
            epoch: "e".to_owned(),
            seq: 1,
            member_count: 1,
            recovered: false,
            topic: None,
            role: None,
            by_order: false,
        },
        Command::Leave { room } => Answer::Left { room: room.as_str().to_owned() },
        Command::Nick { nick } => Answer::Nick { nick: nick.to_string() },
        Command::Status(status) => Answer::Status(status),
        _ => return None,
    })
}

/// Checks output and returns its number of lines.
fn harmless_lines(output: &[u8]) -> usize {
    let text = std::str::from_utf8(output).expect("output is UTF-8");
    let bidi = "\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
    assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || bidi.contains(c))), "{text:?}");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.matches('\n').count()
}
