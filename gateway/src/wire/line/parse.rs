//! One line to one [`Command`]. Pure: it reads the dialect's state and keeps only the text of a `/msg` in it.

use presence::model::codes::ErrorCode;
use presence::model::{Availability, RoomName};

use crate::message::{Body, Target};
use crate::wire::syntax::{self, DEFAULT_PAGE_ROWS, HISTORY_ROWS, bad_request};
use crate::wire::{Command, FRAME_LIMIT, Range, Refusal};

use super::LineDialect;

/// What `/history` shows when it is not told how much.
const DEFAULT_HISTORY_ROWS: usize = 20;

/// A line that says something.
pub(super) enum Line {
    Command(Command),
    Help,
}

/// Reads one line without its line end; `None` when it is blank.
pub(super) fn line(dialect: &mut LineDialect, line: &str) -> Result<Option<Line>, Refusal> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let Some(command) = line.strip_prefix('/') else { return say(dialect, line).map(Some) };
    if command.starts_with('/') {
        return say(dialect, command).map(Some);
    }
    let (verb, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    let command = match verb.to_ascii_lowercase().as_str() {
        "nick" => {
            let nick = syntax::nick(required(argument, "/nick NAME")?)?;
            if dialect.registered { Command::Nick { nick } } else { Command::Register { nick, resume: None } }
        }
        "join" => Command::Join { room: room(required(argument, "/join #ROOM")?)?, since: None },
        "leave" => Command::Leave { room: room_or_current(dialect, argument)? },
        "msg" => message(dialect, argument)?,
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
        "help" => return Ok(Some(Line::Help)),
        _ => return Err(Refusal::from(ErrorCode::UnknownType).because("there is no such command, try /help")),
    };
    Ok(Some(Line::Command(command)))
}

fn say(dialect: &LineDialect, text: &str) -> Result<Line, Refusal> {
    if !dialect.registered {
        return Err(Refusal::from(ErrorCode::NotRegistered).because("say /nick NAME first"));
    }
    let to = Target::Room(current(dialect)?);
    Ok(Line::Command(Command::Send { to, body: body(text)?, key: None }))
}

fn message(dialect: &mut LineDialect, argument: &str) -> Result<Command, Refusal> {
    let (to, text) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let text = required(text.trim_start(), "/msg NAME TEXT")?;
    let command = Command::Send { to: syntax::target(to)?, body: body(text)?, key: None };
    dialect.saying = Some(text.to_owned());
    Ok(command)
}

/// A text as a body no larger than the largest that a JSON frame can carry: escapes can make it six times as long.
fn body(text: &str) -> Result<Body, Refusal> {
    let body = Body::from_text(text);
    if body.json().len() > FRAME_LIMIT { Err(ErrorCode::TooLarge.into()) } else { Ok(body) }
}

fn required<'a>(argument: &'a str, usage: &str) -> Result<&'a str, Refusal> {
    if argument.is_empty() { Err(bad_request(format!("say {usage}"))) } else { Ok(argument) }
}

/// A room as people type it: the `#` may be left out.
fn room(text: &str) -> Result<RoomName, Refusal> {
    if text.starts_with('#') { syntax::room(text) } else { syntax::room(&format!("#{text}")) }
}

fn room_or_current(dialect: &LineDialect, argument: &str) -> Result<RoomName, Refusal> {
    if argument.is_empty() { current(dialect) } else { room(argument) }
}

fn current(dialect: &LineDialect) -> Result<RoomName, Refusal> {
    dialect.room.clone().ok_or_else(|| Refusal::from(ErrorCode::NotInRoom).because("say /join #ROOM first"))
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
