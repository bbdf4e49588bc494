//! Text of a frame to [`Request`].
//!
//! The frame is read once into its fields, each still raw JSON; a command then takes the fields it needs. So the `id`
//! survives errors in other fields, unknown fields cost nothing, and no tree of a body is built. Reading raw JSON
//! does not recurse (serde_json skips values with a loop); the depth is checked before a body is read.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;

use presence::model::codes::ErrorCode;
use presence::model::moderation::{
    MODERATION_SECONDS_MAX, ModerationAction, ModerationOrder, ModerationTarget, RoomRole,
};
use presence::model::{Availability, KEY_BYTES, ListCursor, Nick, RoomName};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::Body;
use crate::wire::syntax::{self, DEFAULT_PAGE_ROWS, HISTORY_ROWS, PAGE_ROWS, bad_request};
use crate::wire::{
    Command, CorrelationId, ModerationCommand, REQUEST_BYTES_MAX, RESUMED_ROOMS_MAX, Range, Refusal, Request,
    ResumeRequest, Since, Token,
};

use super::INBOX;
use super::interoperable;
use presence::model::json_value::{DEPTH_MAX, JsonString, depth, has_lone_surrogate};

/// Maximum length of an `id` as it is written, quotes and escapes included, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Maximum length of an idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 64;
/// Number of messages of a page of history for a client that names no limit.
const DEFAULT_HISTORY_ROWS: usize = 50;
/// The largest seq: the largest integer that every JSON reader, and the store's scripts, hold exactly.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Decodes one text frame.
///
/// # Errors
/// The refusal to reply with, and the request's id if one could be read.
pub fn decode(text: &str) -> Result<Request, (CorrelationId, Refusal)> {
    if text.len() > REQUEST_BYTES_MAX {
        return Err((None, ErrorCode::TooLarge.into()));
    }
    let fields: JsonFields<'_> =
        serde_json::from_str(text).map_err(|_| (None, bad_request("the frame is not one JSON object")))?;
    let id = fields.id().map_err(|refusal| (None, refusal))?;
    match fields.check(text).and_then(|()| fields.command()) {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err((id, refusal)),
    }
}

/// The fields of one JSON object, by name, as they were written. Sorted, so that a frame with two faults is always
/// refused for the same one.
struct JsonFields<'a> {
    values: BTreeMap<Cow<'a, str>, &'a RawValue>,
    repeated: Vec<Cow<'a, str>>,
}

impl<'a> JsonFields<'a> {
    fn id(&self) -> Result<CorrelationId, Refusal> {
        if self.repeated.iter().any(|name| name == "id") {
            return Err(bad_request("`id` is given twice"));
        }
        let Some(id) = self.values.get("id") else { return Ok(None) };
        if !id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
            return Err(bad_request("`id` must be a string or a number"));
        }
        if id.get().len() > ID_BYTES_MAX {
            return Err(bad_request(format!("`id` must be at most {ID_BYTES_MAX} bytes")));
        }
        if has_lone_surrogate(id.get()) {
            return Err(bad_request("`id` contains half of a surrogate pair"));
        }
        interoperable::check("id", id)?;
        Ok(Some((*id).to_owned()))
    }

    /// Checks the frame as a whole.
    fn check(&self, text: &str) -> Result<(), Refusal> {
        if !self.repeated.is_empty() {
            return Err(bad_request("a field is given twice"));
        }
        if depth(text) > DEPTH_MAX {
            return Err(bad_request(format!("the frame is nested deeper than {DEPTH_MAX} levels")));
        }
        if has_lone_surrogate(text) {
            return Err(bad_request("the frame contains half of a surrogate pair"));
        }
        Ok(())
    }

    fn command(&self) -> Result<Command, Refusal> {
        Ok(match self.string("type")?.as_ref() {
            "register" => Command::Register {
                nick: self.optional_string("nick")?.map(|nick| syntax::nick(&nick)).transpose()?,
                resume: self.resume()?,
                token: self.optional_string("token")?.map(Token::new),
            },
            "join" => Command::Join { room: self.room()?, since: self.since()? },
            "leave" => Command::Leave { room: self.room()? },
            "send" => Command::Send { to: syntax::target(&self.string("to")?)?, body: self.body()?, key: self.key()? },
            "nick" => Command::Nick { nick: self.nick()? },
            "status" => {
                let status = match self.string("status")?.as_ref() {
                    "online" => Availability::Online,
                    "away" => Availability::Away,
                    _ => return Err(bad_request("`status` must be \"online\" or \"away\"")),
                };
                Command::Status(syntax::status(status, &self.optional_string("text")?.unwrap_or_default())?)
            }
            "members" => Command::Members {
                room: self.room()?,
                limit: self.limit(PAGE_ROWS, DEFAULT_PAGE_ROWS)?,
                cursor: self.list_cursor()?,
            },
            "rooms" => Command::Rooms { limit: self.limit(PAGE_ROWS, DEFAULT_PAGE_ROWS)?, cursor: self.cursor()? },
            "whois" => Command::Whois { nick: self.nick()? },
            "history" => Command::History {
                room: syntax::room(&self.string("to")?)?,
                range: self.range()?,
                limit: self.limit(HISTORY_ROWS, DEFAULT_HISTORY_ROWS)?,
            },
            "read" if self.string("to")? == INBOX => Command::Read { seq: self.seq()? },
            "read" => return Err(bad_request(format!("`to` must be \"{INBOX}\""))),
            "typing" => Command::Typing { to: syntax::target(&self.string("to")?)? },
            kind if let Some(action) = ModerationAction::of_word(kind) => self.moderation(action)?,
            "refresh" => Command::Refresh { token: Token::new(self.string("token")?) },
            "ping" => Command::Ping,
            "bye" => Command::Bye,
            _ => return Err(ErrorCode::UnknownType.into()),
        })
    }

    fn moderation(&self, action: ModerationAction) -> Result<Command, Refusal> {
        let (nick, user) = (self.optional_string("nick")?, self.optional_string("user")?);
        let target = match (action, nick, user) {
            (ModerationAction::Topic, ..) => None,
            (_, Some(nick), None) => Some(ModerationTarget::Nick(syntax::nick(&nick)?)),
            (action, None, Some(user)) if action.names_users() => Some(ModerationTarget::User(syntax::user(&user)?)),
            (action, ..) if action.names_users() => return Err(bad_request("name one of `nick` and `user`")),
            _ => return Err(missing("nick")),
        };
        let text = match action {
            ModerationAction::Topic => syntax::topic(&self.string("text")?)?,
            _ => syntax::reason(&self.optional_string("reason")?.unwrap_or_default())?,
        };
        let role = match self.optional_string("role")?.as_deref() {
            Some("owner") => RoomRole::Owner,
            None | Some("moderator") => RoomRole::Moderator,
            Some(_) => return Err(bad_request("`role` must be \"owner\" or \"moderator\"")),
        };
        let seconds = self.optional_number("seconds", 1..=MODERATION_SECONDS_MAX)?;
        let order = ModerationOrder { action, target, seconds, text, role };
        Ok(Command::Moderate(Box::new(ModerationCommand { room: self.room()?, order })))
    }

    fn body(&self) -> Result<Body, Refusal> {
        let body = self.required("body")?;
        interoperable::check("body", body)?;
        Ok(Body::from_raw(body.to_owned()))
    }

    fn nick(&self) -> Result<Nick, Refusal> {
        syntax::nick(&self.string("nick")?)
    }

    fn room(&self) -> Result<RoomName, Refusal> {
        syntax::room(&self.string("room")?)
    }

    fn key(&self) -> Result<Option<String>, Refusal> {
        let Some(key) = self.optional_string("key")? else { return Ok(None) };
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
        let Some(cursor) = self.optional_string("cursor")? else { return Ok(None) };
        if cursor.len() > KEY_BYTES {
            return Err(bad_request(format!("`cursor` must be at most {KEY_BYTES} bytes")));
        }
        Ok(Some(cursor.into_owned()))
    }

    fn range(&self) -> Result<Range, Refusal> {
        match (self.optional_number("before", 0..=SEQ_MAX)?, self.optional_number("after", 0..=SEQ_MAX)?) {
            (None, None) => Ok(Range::Newest),
            (Some(seq), None) => Ok(Range::Before(seq)),
            (None, Some(seq)) => Ok(Range::After(seq)),
            (Some(_), Some(_)) => Err(bad_request("`before` and `after` exclude each other")),
        }
    }

    fn since(&self) -> Result<Option<Since>, Refusal> {
        let Some(raw) = self.values.get("since") else { return Ok(None) };
        let since = position(raw);
        since.map(Some).ok_or_else(|| bad_request("`since` must be {\"epoch\": a string, \"seq\": a whole number}"))
    }

    fn resume(&self) -> Result<Option<ResumeRequest>, Refusal> {
        let Some(token) = self.optional_string("resume")? else {
            return match self.values.contains_key("since") {
                true => Err(bad_request("`since` needs `resume`")),
                false => Ok(None),
            };
        };
        let mut resume = ResumeRequest { token: Token::new(token), rooms: Vec::new(), inbox: None };
        let Some(raw) = self.values.get("since") else { return Ok(Some(resume)) };
        let malformed =
            || bad_request("`since` must be {a room or \"@\": {\"epoch\": a string, \"seq\": a whole number}}");
        let positions: JsonFields<'_> = serde_json::from_str(raw.get()).map_err(|_| malformed())?;
        let named_rooms = positions.values.keys().filter(|name| *name != INBOX).count();
        if named_rooms > RESUMED_ROOMS_MAX {
            return Err(bad_request(format!("`since` must name at most {RESUMED_ROOMS_MAX} rooms")));
        }
        let mut named = HashSet::new();
        for (name, raw) in &positions.values {
            let since = position(raw).ok_or_else(malformed)?;
            if name == INBOX {
                resume.inbox = Some(since);
                continue;
            }
            let room = syntax::room(name)?;
            if !named.insert(room.key().clone()) {
                return Err(bad_request("`since` names a room twice"));
            }
            resume.rooms.push((room, since));
        }
        if !positions.repeated.is_empty() {
            return Err(bad_request("`since` names a room twice"));
        }
        Ok(Some(resume))
    }

    fn seq(&self) -> Result<u64, Refusal> {
        self.optional_number("seq", 0..=SEQ_MAX)?.ok_or_else(|| missing("seq"))
    }

    fn limit(&self, allowed: RangeInclusive<u64>, default: usize) -> Result<usize, Refusal> {
        let limit = self.optional_number("limit", allowed)?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default))
    }

    fn optional_number(&self, name: &str, allowed: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.values.get(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(number) if allowed.contains(&number) => Ok(Some(number)),
            _ => {
                let (low, high) = allowed.into_inner();
                Err(bad_request(format!("`{name}` must be a whole number from {low} to {high}")))
            }
        }
    }

    fn optional_string(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(raw) = self.values.get(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(JsonString(text)) => Ok(Some(text)),
            Err(_) => Err(bad_request(format!("`{name}` must be a string"))),
        }
    }

    fn string(&self, name: &str) -> Result<Cow<'a, str>, Refusal> {
        self.optional_string(name)?.ok_or_else(|| missing(name))
    }

    fn required(&self, name: &str) -> Result<&'a RawValue, Refusal> {
        self.values.get(name).copied().ok_or_else(|| missing(name))
    }
}

fn position(raw: &RawValue) -> Option<Since> {
    let since: Since = serde_json::from_str(raw.get()).ok()?;
    // serde reads an array as well, which the protocol does not allow.
    (since.seq <= SEQ_MAX && raw.get().starts_with('{')).then_some(since)
}

fn missing(name: &str) -> Refusal {
    bad_request(format!("`{name}` is missing"))
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonFieldsVisitor)
    }
}

struct JsonFieldsVisitor;

impl<'de> Visitor<'de> for JsonFieldsVisitor {
    type Value = JsonFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = JsonFields { values: BTreeMap::new(), repeated: Vec::new() };
        while let Some((JsonString(name), value)) = map.next_entry()? {
            match fields.values.entry(name) {
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
                Entry::Occupied(first) => fields.repeated.push(first.key().clone()),
            }
        }
        Ok(fields)
    }
}
