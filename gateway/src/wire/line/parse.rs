//! One line to one [`Command`]: the table of commands and its help.
//!
//! Reads the state of the connection; of a line it stores there only the text of a `/msg`.

use presence::model::codes::ErrorCode;
use presence::model::moderation::ModerationAction;
use presence::model::{Availability, RoomName, STATUS_BYTES};

use crate::message::{Body, Target};
use crate::wire::syntax::{self, DEFAULT_PAGE_ROWS, HISTORY_ROWS, bad_request};
use crate::wire::{Command, REQUEST_BYTES_MAX, Range, Refusal, Token};

use super::{KeptPart, LineDialect, moderation};

/// Number of messages of a `/history` without a number.
const DEFAULT_HISTORY_ROWS: usize = 20;

/// The output of `/help`.
pub(super) const HELP: &str = "\
* /auth TOKEN       show who you are, before /nick, or renew it; not every server needs it
* /nick NAME        take a nickname, or change it
* /join #ROOM       enter a room; the text that you type goes there
* TEXT              send TEXT to the room that you entered last
* //TEXT            send a text that begins with a slash
* /leave [#ROOM]    leave this room, or ROOM
* /msg NAME TEXT    send TEXT to one user
* /who [#ROOM]      list the members of this room, or of ROOM
* /whois NAME       show the status of one user
* /rooms            list the rooms that have members
* /history [N]      show the last N messages of this room: 1 to 200, default 20
* /more             show the next part of the last list that was cut
* /topic TEXT       set the topic of this room
* /kick NAME [WHY]  remove a user from this room
* /ban NAME [SECONDS] [WHY]   remove a user who may not return
* /mute NAME [SECONDS] [WHY]  stop a user from sending to this room
* /unban NAME       let a user return; /unmute NAME lets one send again
* /op NAME [owner]  make a user moderator or owner; /deop NAME ends that
* /invite NAME      let a user join a room that needs an invite
* /away [TEXT]      tell the others that you are away; TEXT is the reason
* /back             tell the others that you are back
* /ping             check the connection; the server answers `* pong`
* /help             show this list
* /quit             leave all rooms and close the connection
* a part in [ ] may be left out; names contain no spaces
";

/// Commands of users with a nickname.
const NEED_NICK: &[&str] = &[
    "join", "leave", "msg", "who", "whois", "rooms", "history", "more", "away", "back", "topic", "kick", "ban",
    "unban", "mute", "unmute", "op", "deop", "invite",
];

/// A line that is not blank.
pub(super) enum ParsedLine {
    Command(Command),
    Help,
    /// A token for the `/nick` that follows.
    Auth(Token),
}

/// Reads one line without its line end; `None` when it is blank.
pub(super) fn line(dialect: &mut LineDialect, line: &str) -> Result<Option<ParsedLine>, Refusal> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let Some(command) = line.strip_prefix('/') else { return send_to_room(dialect, line).map(Some) };
    if command.starts_with('/') {
        return send_to_room(dialect, command).map(Some);
    }
    let (verb, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let (verb, argument) = (verb.to_ascii_lowercase(), argument.trim());
    if !dialect.is_registered && NEED_NICK.contains(&verb.as_str()) {
        return Err(without_nick());
    }
    let command = match verb.as_str() {
        "nick" => {
            let nick = syntax::nick(required(argument, "/nick NAME")?)?;
            let token = match dialect.kept.as_deref() {
                Some(KeptPart::Token(token)) => Some(token.clone()),
                _ => None,
            };
            if dialect.is_registered {
                Command::Nick { nick }
            } else {
                Command::Register { nick: Some(nick), resume: None, token }
            }
        }
        "auth" if dialect.is_registered => Command::Refresh { token: Token::new(required(argument, "/auth TOKEN")?) },
        "auth" => return Ok(Some(ParsedLine::Auth(Token::new(required(argument, "/auth TOKEN")?)))),
        "join" => Command::Join { room: room(required(argument, "/join #ROOM")?, "/join")?, since: None },
        "leave" => Command::Leave { room: room_or_current(dialect, argument, "/leave")? },
        "msg" => direct_message(dialect, argument)?,
        "who" => {
            let room = room_or_current(dialect, argument, "/who")?;
            Command::Members { room, limit: DEFAULT_PAGE_ROWS, cursor: None }
        }
        "whois" => Command::Whois { nick: syntax::nick(required(argument, "/whois NAME")?)? },
        "rooms" => {
            no_argument(argument, "/rooms")?;
            Command::Rooms { limit: DEFAULT_PAGE_ROWS, cursor: None }
        }
        "history" => {
            let limit = history_rows(argument)?;
            Command::History { room: current(dialect)?, range: Range::Newest, limit }
        }
        "more" => {
            no_argument(argument, "/more")?;
            rest_of_list(dialect)?
        }
        verb if let Some(action) = ModerationAction::of_word(verb) => {
            moderation::command(current(dialect)?, action, argument)?
        }
        "away" => away(argument)?,
        "back" => {
            no_argument(argument, "/back")?;
            Command::Status(syntax::status(Availability::Online, "")?)
        }
        "ping" => {
            no_argument(argument, "/ping")?;
            Command::Ping
        }
        "quit" => Command::Bye,
        "help" => return Ok(Some(ParsedLine::Help)),
        _ => {
            return Err(
                Refusal::from(ErrorCode::UnknownType).with_detail("there is no such command, type /help to list all")
            );
        }
    };
    Ok(Some(ParsedLine::Command(command)))
}

fn send_to_room(dialect: &LineDialect, text: &str) -> Result<ParsedLine, Refusal> {
    if !dialect.is_registered {
        return Err(without_nick());
    }
    let to = Target::Room(current(dialect)?);
    Ok(ParsedLine::Command(Command::Send { to, body: body(text)?, key: None }))
}

fn direct_message(dialect: &mut LineDialect, argument: &str) -> Result<Command, Refusal> {
    let (to, text) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let text = required(text.trim_start(), "/msg NAME TEXT")?;
    let command = Command::Send { to: syntax::target(to)?, body: body(text)?, key: None };
    dialect.direct_text = Some(text.into());
    Ok(command)
}

/// Makes a body of a text, within the size limit of JSON frames: escapes can make it six times as long.
fn body(text: &str) -> Result<Body, Refusal> {
    let body = Body::from_text(text);
    if body.json().len() > REQUEST_BYTES_MAX { Err(ErrorCode::TooLarge.into()) } else { Ok(body) }
}

fn required<'a>(argument: &'a str, usage: &str) -> Result<&'a str, Refusal> {
    if argument.is_empty() { Err(bad_request(format!("a part is missing, type {usage}"))) } else { Ok(argument) }
}

/// Refuses an argument of a command that takes none.
fn no_argument(argument: &str, command: &str) -> Result<(), Refusal> {
    if argument.is_empty() { Ok(()) } else { Err(bad_request(format!("{command} takes no argument"))) }
}

fn without_nick() -> Refusal {
    Refusal::from(ErrorCode::NotRegistered).with_detail("type /nick NAME first")
}

fn away(text: &str) -> Result<Command, Refusal> {
    let limits =
        format!("the text after /away has at most {STATUS_BYTES} bytes and no control and invisible characters");
    syntax::status(Availability::Away, text).map(Command::Status).map_err(|refusal| refusal.with_detail(limits))
}

fn rest_of_list(dialect: &mut LineDialect) -> Result<Command, Refusal> {
    dialect.continues = true;
    match dialect.kept.as_deref() {
        None | Some(KeptPart::Token(_)) => Err(bad_request("there is nothing more to show")),
        Some(KeptPart::Members { room, cursor }) => {
            Ok(Command::Members { room: room.clone(), limit: DEFAULT_PAGE_ROWS, cursor: Some(*cursor) })
        }
        Some(KeptPart::Rooms { cursor }) => {
            Ok(Command::Rooms { limit: DEFAULT_PAGE_ROWS, cursor: Some(cursor.clone()) })
        }
        Some(KeptPart::History { room, before, limit }) => {
            Ok(Command::History { room: room.clone(), range: Range::Before(*before), limit: *limit })
        }
    }
}

/// Reads the one room of a command as people type it: the `#` is optional.
fn room(text: &str, command: &str) -> Result<RoomName, Refusal> {
    if text.contains(char::is_whitespace) {
        return Err(bad_request(format!("{command} takes one room, and names contain no spaces")));
    }
    if text.starts_with('#') { syntax::room(text) } else { syntax::room(&format!("#{text}")) }
}

fn room_or_current(dialect: &LineDialect, argument: &str, command: &str) -> Result<RoomName, Refusal> {
    if argument.is_empty() { current(dialect) } else { room(argument, command) }
}

fn current(dialect: &LineDialect) -> Result<RoomName, Refusal> {
    dialect.room.clone().ok_or_else(|| Refusal::from(ErrorCode::NotInRoom).with_detail("type /join #ROOM first"))
}

fn history_rows(argument: &str) -> Result<usize, Refusal> {
    if argument.is_empty() {
        return Ok(DEFAULT_HISTORY_ROWS);
    }
    let (low, high) = HISTORY_ROWS.into_inner();
    let digits = argument.bytes().all(|byte| byte.is_ascii_digit()).then_some(argument);
    digits
        .and_then(|digits| digits.parse().ok())
        .filter(|rows| HISTORY_ROWS.contains(rows))
        .and_then(|rows| usize::try_from(rows).ok())
        .ok_or_else(|| bad_request(format!("type /history N with a number from {low} to {high}")))
}
