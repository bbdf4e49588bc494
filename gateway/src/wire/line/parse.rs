//! One line to one [`Command`]: the table of commands and its help.
//!
//! Reads the state of the connection; of a line it stores there only the text of a `/msg`.

use presence::model::codes::ErrorCode;
use presence::model::{Availability, RoomName};

use crate::message::{Body, Target};
use crate::wire::syntax::{self, DEFAULT_PAGE_ROWS, HISTORY_ROWS, bad_request};
use crate::wire::{Command, REQUEST_BYTES_MAX, Range, Refusal};

use super::LineDialect;

/// Number of messages of a `/history` without a number.
const DEFAULT_HISTORY_ROWS: usize = 20;

/// The output of `/help`.
pub(super) const HELP: &str = "\
* /nick NAME        take a nickname, or another one
* /join #ROOM       enter a room; what you type goes there
* /leave [#ROOM]    leave this room or another
* TEXT              say it in the room entered last; //TEXT begins with a slash
* /msg NAME TEXT    say it to one person
* /who [#ROOM]      who is there
* /rooms            which rooms have members
* /history [N]      the last N messages of this room, at most 200
* /away [TEXT]      you are away
* /back             you are here again
* /ping             is anybody there
* /quit             goodbye
";

/// A line that is not blank.
pub(super) enum ParsedLine {
    Command(Command),
    Help,
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
    let argument = argument.trim();
    let command = match verb.to_ascii_lowercase().as_str() {
        "nick" => {
            let nick = syntax::nick(required(argument, "/nick NAME")?)?;
            if dialect.is_registered { Command::Nick { nick } } else { Command::Register { nick, resume: None } }
        }
        "join" => Command::Join { room: room(required(argument, "/join #ROOM")?)?, since: None },
        "leave" => Command::Leave { room: room_or_current(dialect, argument)? },
        "msg" => direct_message(dialect, argument)?,
        "who" => {
            let room = room_or_current(dialect, argument)?;
            Command::Members { room, limit: DEFAULT_PAGE_ROWS, cursor: None }
        }
        "rooms" => Command::Rooms { limit: DEFAULT_PAGE_ROWS, cursor: None },
        "history" => {
            let limit = history_rows(argument)?;
            Command::History { room: current(dialect)?, range: Range::Newest, limit }
        }
        "away" => Command::Status(syntax::status(Availability::Away, argument)?),
        "back" => Command::Status(syntax::status(Availability::Online, "")?),
        "ping" => Command::Ping,
        "quit" => Command::Bye,
        "help" => return Ok(Some(ParsedLine::Help)),
        _ => return Err(Refusal::from(ErrorCode::UnknownType).with_detail("there is no such command, try /help")),
    };
    Ok(Some(ParsedLine::Command(command)))
}

fn send_to_room(dialect: &LineDialect, text: &str) -> Result<ParsedLine, Refusal> {
    if !dialect.is_registered {
        return Err(Refusal::from(ErrorCode::NotRegistered).with_detail("say /nick NAME first"));
    }
    let to = Target::Room(current(dialect)?);
    Ok(ParsedLine::Command(Command::Send { to, body: body(text)?, key: None }))
}

fn direct_message(dialect: &mut LineDialect, argument: &str) -> Result<Command, Refusal> {
    let (to, text) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let text = required(text.trim_start(), "/msg NAME TEXT")?;
    let command = Command::Send { to: syntax::target(to)?, body: body(text)?, key: None };
    dialect.direct_text = Some(text.to_owned());
    Ok(command)
}

/// Makes a body of a text, within the size limit of JSON frames: escapes can make it six times as long.
fn body(text: &str) -> Result<Body, Refusal> {
    let body = Body::from_text(text);
    if body.json().len() > REQUEST_BYTES_MAX { Err(ErrorCode::TooLarge.into()) } else { Ok(body) }
}

fn required<'a>(argument: &'a str, usage: &str) -> Result<&'a str, Refusal> {
    if argument.is_empty() { Err(bad_request(format!("say {usage}"))) } else { Ok(argument) }
}

/// Reads a room as people type it: the `#` is optional.
fn room(text: &str) -> Result<RoomName, Refusal> {
    if text.starts_with('#') { syntax::room(text) } else { syntax::room(&format!("#{text}")) }
}

fn room_or_current(dialect: &LineDialect, argument: &str) -> Result<RoomName, Refusal> {
    if argument.is_empty() { current(dialect) } else { room(argument) }
}

fn current(dialect: &LineDialect) -> Result<RoomName, Refusal> {
    dialect.room.clone().ok_or_else(|| Refusal::from(ErrorCode::NotInRoom).with_detail("say /join #ROOM first"))
}

fn history_rows(argument: &str) -> Result<usize, Refusal> {
    if argument.is_empty() {
        return Ok(DEFAULT_HISTORY_ROWS);
    }
    let (low, high) = HISTORY_ROWS.into_inner();
    argument
        .parse()
        .ok()
        .filter(|rows| HISTORY_ROWS.contains(rows))
        .and_then(|rows| usize::try_from(rows).ok())
        .ok_or_else(|| bad_request(format!("say /history N with a number from {low} to {high}")))
}
