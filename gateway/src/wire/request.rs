//! The fields of one request to its [`Command`], the same for every format.
//!
//! A format implements [`RequestFields`]: it finds a field and checks its kind. Here are the names that a request
//! needs, the ranges and the texts of refusals. Invariant: a command is the same in every format, and so is a
//! refusal.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use presence::model::codes::ErrorCode;
use presence::model::moderation::{
    MODERATION_SECONDS_MAX, ModerationAction, ModerationOrder, ModerationTarget, RoomRole,
};
use presence::model::{Availability, KEY_BYTES, ListCursor, Nick, RoomName};

use super::INBOX;
use super::field::Field;
use super::syntax::{self, DEFAULT_PAGE_ROWS, HISTORY_ROWS, PAGE_ROWS, bad_request};
use super::{
    Command, ModerationCommand, REQUEST_BYTES_MAX, RESUMED_ROOMS_MAX, Range, Refusal, ResumeRequest, Since, Token,
};
use crate::message::{Body, Target};

/// Maximum length of an idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 64;
/// Number of messages of a page of history for a client that names no limit.
const DEFAULT_HISTORY_ROWS: usize = 50;
/// The largest seq: the largest integer that every JSON reader, and the store's scripts, hold exactly.
pub(super) const SEQ_MAX: u64 = (1 << 53) - 1;

/// The fields of one request, as its format has them. A field of the wrong kind is refused when it is read.
pub(super) trait RequestFields {
    /// Returns true if the request has the field.
    fn has(&self, field: Field) -> bool;
    /// Returns a text.
    fn optional_text(&self, field: Field) -> Result<Option<Cow<'_, str>>, Refusal>;
    /// Returns a number; `None` if it is not a whole number that is not negative.
    fn optional_number(&self, field: Field) -> Option<Option<u64>>;
    /// Returns a boolean.
    fn optional_flag(&self, field: Field) -> Result<Option<bool>, Refusal>;
    /// Returns the body of a message.
    fn body(&self) -> Result<Option<Body>, Refusal>;
    /// Returns the position in one room; `None` if it is malformed.
    fn position(&self) -> Option<Option<Since>>;
    /// Returns the positions of a resume, at most [`RESUMED_ROOMS_MAX`] rooms and the inbox.
    fn positions(&self) -> Result<Vec<(Cow<'_, str>, Since)>, PositionsFault>;
}

/// The fault of the positions of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PositionsFault {
    Malformed,
    TooMany,
    Repeated,
}

/// Reads the command of a request of this type.
pub(super) fn command(kind: &str, fields: &impl RequestFields) -> Result<Command, Refusal> {
    let reader = CommandReader(fields);
    Ok(match kind {
        "register" => Command::Register {
            nick: fields.optional_text(Field::Nick)?.map(|nick| syntax::nick(&nick)).transpose()?,
            resume: reader.resume()?,
            token: fields.optional_text(Field::Token)?.map(Token::new),
        },
        "join" => Command::Join { room: reader.room(Field::Room)?, since: reader.since()? },
        "leave" => Command::Leave { room: reader.room(Field::Room)? },
        "send" => Command::Send { to: reader.target()?, body: reader.body()?, key: reader.key()? },
        "nick" => Command::Nick { nick: reader.nick()? },
        "status" => {
            let status = match reader.text(Field::Status)?.as_ref() {
                "online" => Availability::Online,
                "away" => Availability::Away,
                _ => return Err(bad_request("`status` must be \"online\" or \"away\"")),
            };
            Command::Status(syntax::status(status, &fields.optional_text(Field::Text)?.unwrap_or_default())?)
        }
        "members" => Command::Members {
            room: reader.room(Field::Room)?,
            limit: reader.limit(PAGE_ROWS, DEFAULT_PAGE_ROWS)?,
            cursor: reader.list_cursor()?,
        },
        "rooms" => Command::Rooms { limit: reader.limit(PAGE_ROWS, DEFAULT_PAGE_ROWS)?, cursor: reader.cursor()? },
        "whois" => Command::Whois { nick: reader.nick()? },
        "history" => Command::History {
            room: reader.room(Field::To)?,
            range: reader.range()?,
            limit: reader.limit(HISTORY_ROWS, DEFAULT_HISTORY_ROWS)?,
        },
        "read" if reader.text(Field::To)? == INBOX => Command::Read { seq: reader.seq()? },
        "read" => return Err(bad_request(format!("`to` must be \"{INBOX}\""))),
        "typing" => Command::Typing { to: reader.target()? },
        "refresh" => Command::Refresh { token: Token::new(reader.text(Field::Token)?) },
        "options" => {
            Command::Options { snappy: fields.optional_flag(Field::Snappy)?.ok_or_else(|| missing(Field::Snappy))? }
        }
        "ping" => Command::Ping,
        "bye" => Command::Bye,
        kind => match ModerationAction::of_word(kind) {
            Some(action) => reader.moderation(action)?,
            None => return Err(ErrorCode::UnknownType.into()),
        },
    })
}

/// Returns the refusal of a field with a value of another kind.
pub(super) fn not_a_string(field: Field) -> Refusal {
    bad_request(format!("`{}` must be a string", field.name()))
}

/// Returns the refusal of a field with a value of another kind.
pub(super) fn not_a_boolean(field: Field) -> Refusal {
    bad_request(format!("`{}` must be true or false", field.name()))
}

fn missing(field: Field) -> Refusal {
    bad_request(format!("`{}` is missing", field.name()))
}

struct CommandReader<'a, F>(&'a F);

impl<'a, F: RequestFields> CommandReader<'a, F> {
    fn moderation(&self, action: ModerationAction) -> Result<Command, Refusal> {
        let (nick, user) = (self.0.optional_text(Field::Nick)?, self.0.optional_text(Field::User)?);
        let target = match (action, nick, user) {
            (ModerationAction::Topic, ..) => None,
            (_, Some(nick), None) => Some(ModerationTarget::Nick(syntax::nick(&nick)?)),
            (action, None, Some(user)) if action.names_users() => Some(ModerationTarget::User(syntax::user(&user)?)),
            (action, ..) if action.names_users() => return Err(bad_request("name one of `nick` and `user`")),
            _ => return Err(missing(Field::Nick)),
        };
        let text = match action {
            ModerationAction::Topic => syntax::topic(&self.text(Field::Text)?)?,
            _ => syntax::reason(&self.0.optional_text(Field::Reason)?.unwrap_or_default())?,
        };
        let role = match self.0.optional_text(Field::Role)?.as_deref() {
            Some("owner") => RoomRole::Owner,
            None | Some("moderator") => RoomRole::Moderator,
            Some(_) => return Err(bad_request("`role` must be \"owner\" or \"moderator\"")),
        };
        let seconds = self.optional_number(Field::Seconds, 1..=MODERATION_SECONDS_MAX)?;
        let order = ModerationOrder { action, target, seconds, text, role };
        Ok(Command::Moderate(Box::new(ModerationCommand { room: self.room(Field::Room)?, order })))
    }

    fn body(&self) -> Result<Body, Refusal> {
        let body = self.0.body()?.ok_or_else(|| missing(Field::Body))?;
        // As JSON it may be longer than the request was.
        if body.json().len() > REQUEST_BYTES_MAX { Err(ErrorCode::TooLarge.into()) } else { Ok(body) }
    }

    fn nick(&self) -> Result<Nick, Refusal> {
        syntax::nick(&self.text(Field::Nick)?)
    }

    fn room(&self, field: Field) -> Result<RoomName, Refusal> {
        syntax::room(&self.text(field)?)
    }

    fn target(&self) -> Result<Target, Refusal> {
        syntax::target(&self.text(Field::To)?)
    }

    fn key(&self) -> Result<Option<String>, Refusal> {
        let Some(key) = self.0.optional_text(Field::Key)? else { return Ok(None) };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(bad_request(format!("`key` must be 1 to {KEY_BYTES_MAX} bytes")));
        }
        Ok(Some(key.into_owned()))
    }

    fn list_cursor(&self) -> Result<Option<ListCursor>, Refusal> {
        let Some(cursor) = self.cursor()? else { return Ok(None) };
        let cursor = cursor.parse().map_err(|_| bad_request("`cursor` must be a `next_cursor` of this list"))?;
        Ok(Some(cursor))
    }

    fn cursor(&self) -> Result<Option<String>, Refusal> {
        let Some(cursor) = self.0.optional_text(Field::Cursor)? else { return Ok(None) };
        if cursor.len() > KEY_BYTES {
            return Err(bad_request(format!("`cursor` must be at most {KEY_BYTES} bytes")));
        }
        Ok(Some(cursor.into_owned()))
    }

    fn range(&self) -> Result<Range, Refusal> {
        let before = self.optional_number(Field::Before, 0..=SEQ_MAX)?;
        match (before, self.optional_number(Field::After, 0..=SEQ_MAX)?) {
            (None, None) => Ok(Range::Newest),
            (Some(seq), None) => Ok(Range::Before(seq)),
            (None, Some(seq)) => Ok(Range::After(seq)),
            (Some(_), Some(_)) => Err(bad_request("`before` and `after` exclude each other")),
        }
    }

    fn since(&self) -> Result<Option<Since>, Refusal> {
        let since = self.0.position().filter(|since| since.as_ref().is_none_or(|since| since.seq <= SEQ_MAX));
        since.ok_or_else(|| bad_request("`since` must be {\"epoch\": a string, \"seq\": a whole number}"))
    }

    fn resume(&self) -> Result<Option<ResumeRequest>, Refusal> {
        let Some(token) = self.0.optional_text(Field::Resume)? else {
            return match self.0.has(Field::Since) {
                true => Err(bad_request("`since` needs `resume`")),
                false => Ok(None),
            };
        };
        let mut resume = ResumeRequest { token: Token::new(token), rooms: Vec::new(), inbox: None };
        let refusal = |fault| match fault {
            PositionsFault::Malformed => {
                bad_request("`since` must be {a room or \"@\": {\"epoch\": a string, \"seq\": a whole number}}")
            }
            PositionsFault::TooMany => bad_request(format!("`since` must name at most {RESUMED_ROOMS_MAX} rooms")),
            PositionsFault::Repeated => bad_request("`since` names a room twice"),
        };
        let mut named = HashSet::new();
        for (name, since) in self.0.positions().map_err(refusal)? {
            if since.seq > SEQ_MAX {
                return Err(refusal(PositionsFault::Malformed));
            }
            if name == INBOX {
                if resume.inbox.replace(since).is_some() {
                    return Err(refusal(PositionsFault::Repeated));
                }
                continue;
            }
            let room = syntax::room(&name)?;
            if !named.insert(room.key().clone()) {
                return Err(refusal(PositionsFault::Repeated));
            }
            resume.rooms.push((room, since));
        }
        Ok(Some(resume))
    }

    fn seq(&self) -> Result<u64, Refusal> {
        self.optional_number(Field::Seq, 0..=SEQ_MAX)?.ok_or_else(|| missing(Field::Seq))
    }

    fn limit(&self, allowed: RangeInclusive<u64>, default: usize) -> Result<usize, Refusal> {
        let limit = self.optional_number(Field::Limit, allowed)?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default))
    }

    fn optional_number(&self, field: Field, allowed: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        match self.0.optional_number(field) {
            Some(number) if number.is_none_or(|number| allowed.contains(&number)) => Ok(number),
            _ => {
                let (low, high) = allowed.into_inner();
                Err(bad_request(format!("`{}` must be a whole number from {low} to {high}", field.name())))
            }
        }
    }

    fn text(&self, field: Field) -> Result<Cow<'a, str>, Refusal> {
        self.0.optional_text(field)?.ok_or_else(|| missing(field))
    }
}
