//! [`Answer`] and [`Event`] to lines for people.
//!
//! Invariant: every text that is not a constant here goes through [`Escaped`].

use std::fmt::{self, Write};

use bytes::Bytes;
use presence::model::codes::ErrorCode;
use presence::model::moderation::{Moderation, RoomRole};
use presence::model::{Availability, LeftReason, MemberInfo, PresenceDelta, RoomName, Status};

use crate::message::ChatMessage;
use crate::wire::line::moderation;
use crate::wire::{Answer, DeliveryStatus, Event, Refusal};

/// Encodes an event as whole lines.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    let mut lines = LineBuffer::default();
    match event {
        Event::Message(chat) => message(&mut lines, chat),
        Event::Presence { room, delta, resync } => {
            presence(&mut lines, room, delta);
            if *resync {
                lines.add(format_args!("* users joined or left {0}, type /who {0} to list them", Escaped(room)));
            }
        }
        Event::Gap { to, from_seq, to_seq } => {
            lines.add(format_args!("* messages {from_seq} to {to_seq} of {} are gone", Escaped(to)));
        }
        // Lines show no seqs, so a new epoch changes nothing for the user.
        Event::Epoch { .. } | Event::Typing { .. } => {}
        Event::Rewound { to, .. } => {
            lines.add(format_args!("* {} lost its newest messages: what follows replaces them", Escaped(to)));
        }
        Event::Moderation { room, notice } => moderated(&mut lines, room, notice),
        Event::Left { room, reason, by, text } => {
            let (room, reason) = (Escaped(room), reason.as_str());
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let text = text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            lines.add(format_args!("* you were {reason} from {room}{}{}", Escaped(&by), Escaped(&text)));
        }
        Event::Expiring { expires_in_ms } => {
            let seconds = expires_in_ms.div_ceil(1000);
            lines.add(format_args!("* your token expires in {seconds} s, type /auth TOKEN with a new one"));
        }
        // No nickname contains a colon, so no line about a user looks like it.
        Event::Announcement { body, .. } => {
            lines.add(format_args!("* announcement: {}", Escaped(&body.text())));
        }
        Event::GoingAway { retry_after_ms } => {
            let seconds = retry_after_ms.div_ceil(1000);
            lines.add(format_args!("* going away: this server shuts down in {seconds} s, connect again after that"));
        }
    }
    lines.finish()
}

/// Encodes a refusal outside a request as a line.
#[must_use]
pub fn encode_refusal(refusal: &Refusal) -> Bytes {
    let (slug, mut lines) = (refusal.code.slug(), LineBuffer::default());
    match (refusal.code, &refusal.detail, refusal.retry_after_ms) {
        // Text lines have no keys, so a repeated message may appear twice.
        (ErrorCode::OutcomeUnknown, None, _) => {
            lines.add(format_args!("! {slug}: this may have been done or not, check before you try again"));
        }
        (_, _, Some(wait_ms)) if refusal.code != ErrorCode::OutcomeUnknown => {
            let (text, seconds) = (Escaped(refusal.message()), wait_ms.div_ceil(1000));
            lines.add(format_args!("! {slug}: {text} (try again in {seconds} s)"));
        }
        _ => lines.add(format_args!("! {slug}: {}", Escaped(refusal.message()))),
    }
    lines.finish()
}

/// Encodes the refusal of a `/more` for the history of a room that was left.
pub(super) fn left_room(room: &RoomName) -> Bytes {
    let detail = format!("you left {room}, type /join {room} to see its history");
    encode_refusal(&Refusal::from(ErrorCode::NotInRoom).with_detail(detail))
}

/// Encodes a direct message as its sender sees it.
pub(super) fn sent(to: &str, text: &str, delivery: DeliveryStatus) -> Bytes {
    let mut lines = LineBuffer::default();
    let note = if delivery == DeliveryStatus::Offline { " (offline now, delivered when they return)" } else { "" };
    lines.add(format_args!("-> {}: {}{note}", Escaped(to), Escaped(text)));
    lines.finish()
}

/// Encodes an answer. The ack of a message to a room is not shown: its sender receives the message.
pub(super) fn answer(answer: &Answer) -> Bytes {
    let mut lines = LineBuffer::default();
    match answer {
        Answer::Registered { nick, .. } | Answer::Nick { nick } => {
            lines.add(format_args!("* you are now known as {}", Escaped(nick)));
        }
        Answer::Joined { room, member_count, topic, role, .. } => {
            lines.add(format_args!("* you are in {}, members: {member_count}", Escaped(room)));
            if let Some(topic) = topic {
                let (room, text, by) = (Escaped(room), Escaped(&topic.text), Escaped(&topic.by));
                lines.add(format_args!("* the topic of {room} is: {text} (set by {by})"));
            }
            match role {
                Some(RoomRole::Muted) => lines.add(format_args!("* you are muted in {}", Escaped(room))),
                Some(role) => lines.add(format_args!("* you are {} of {}", role.as_str(), Escaped(room))),
                None => {}
            }
        }
        Answer::Left { room } => lines.add(format_args!("* you left {}", Escaped(room))),
        Answer::Ack { .. } => {}
        Answer::Status(status) => lines.add(format_args!("* you are {}", StatusText(status))),
        Answer::Members { room, items, next_cursor } => {
            if items.is_empty() {
                lines.add(format_args!(
                    "* no members in {}, type /rooms to list the rooms that have members",
                    Escaped(room)
                ));
            }
            for member in items {
                lines.add(format_args!("* in {}: {}", Escaped(room), MemberText(member)));
            }
            more(&mut lines, next_cursor.is_some());
        }
        Answer::Rooms { items, next_cursor } => {
            if items.is_empty() {
                lines.add(format_args!("* no rooms"));
            }
            for item in items {
                lines.add(format_args!("* {}, members: {}", Escaped(&item.room), item.member_count));
            }
            more(&mut lines, next_cursor.is_some());
        }
        Answer::Whois { nick, user, status } => {
            let nick = Escaped(nick);
            match status {
                Some(status) => lines.add(format_args!("* {nick} is {}", StatusText(status))),
                None => lines.add(format_args!("* {nick} is offline")),
            }
            if let Some(user) = user {
                lines.add(format_args!("* {nick} is the user {}", Escaped(user.as_str())));
            }
        }
        Answer::History { to, items, more: has_older } => {
            if items.is_empty() {
                lines.add(format_args!("* no messages in {}", Escaped(to)));
            } else if *has_older {
                lines.add(format_args!("* {} has older messages, type /more to show them", Escaped(to)));
            }
            items.iter().for_each(|chat| message(&mut lines, chat));
        }
        // No line asks for them.
        Answer::Read { .. } | Answer::Typing { .. } | Answer::Options { .. } => {}
        Answer::Refreshed { left, .. } => {
            lines.add(format_args!("* token renewed"));
            for room in left {
                lines.add(format_args!("* you left {}, your token does not allow it", Escaped(room)));
            }
        }
        // Its members, the moderator among them, see what was done.
        Answer::Moderated { .. } => {}
        Answer::Pong => lines.add(format_args!("* pong")),
        Answer::Refused(refusal) => return encode_refusal(refusal),
    }
    lines.finish()
}

fn message(lines: &mut LineBuffer, chat: &ChatMessage) {
    let (to, from, text) = (Escaped(&chat.to), Escaped(&chat.from), chat.body.text());
    // No nickname contains a space, so no user looks like an application.
    let mark = if chat.from_api { " (api)" } else { "" };
    if chat.to.starts_with('#') {
        lines.add(format_args!("[{to}] <{from}{mark}> {}", Escaped(&text)));
    } else {
        lines.add(format_args!("<- {from}{mark}: {}", Escaped(&text)));
    }
}

fn moderated(lines: &mut LineBuffer, room: &str, notice: &Moderation) {
    let (room, by) = (Escaped(room), Escaped(notice.by.as_deref().unwrap_or("a moderator")));
    let (did, person, as_role) = moderation::deed(notice);
    let text = notice.reason.as_ref().or(notice.text.as_ref()).filter(|text| !text.is_empty());
    let text = text.map(|text| format!(": {text}")).unwrap_or_default();
    lines.add(format_args!("* {by} {did}{}{as_role} in {room}{}", Escaped(person), Escaped(&text)));
}

/// Writes the changes in the order in which they apply: a nickname of a member that left may be another's now.
fn presence(lines: &mut LineBuffer, room: &str, delta: &PresenceDelta) {
    let room = Escaped(room);
    for left in &delta.left {
        match left.reason {
            LeftReason::Left => lines.add(format_args!("* {} left {room}", Escaped(&left.nick))),
            reason => lines.add(format_args!("* {} left {room} ({})", Escaped(&left.nick), reason.as_str())),
        }
    }
    for renamed in &delta.renamed {
        lines.add(format_args!("* {} is now known as {}", Escaped(&renamed.from), Escaped(&renamed.to)));
    }
    for MemberInfo { nick, .. } in &delta.joined {
        lines.add(format_args!("* {} joined {room}", Escaped(nick)));
    }
    for MemberInfo { nick, status, .. } in &delta.status {
        lines.add(format_args!("* {} is {}", Escaped(nick), StatusText(status)));
    }
}

fn more(lines: &mut LineBuffer, more: bool) {
    if more {
        lines.add(format_args!("* the list is longer, type /more to go on"));
    }
}

/// A buffer for whole lines.
#[derive(Default)]
struct LineBuffer(String);

impl LineBuffer {
    fn add(&mut self, line: fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a string accepts every write");
        self.0.push('\n');
    }

    fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Shows a status as it follows "is" or "are": `away: lunch`.
struct StatusText<'a>(&'a Status);

impl fmt::Display for StatusText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.status {
            Availability::Online => "online",
            Availability::Away => "away",
        })?;
        if self.0.text.is_empty() { Ok(()) } else { write!(f, ": {}", Escaped(&self.0.text)) }
    }
}

/// Shows a member in a list, with its status unless that is plain online.
struct MemberText<'a>(&'a MemberInfo);

impl fmt::Display for MemberText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0.nick).fmt(f)?;
        if self.0.status == Status::default() { Ok(()) } else { write!(f, " ({})", StatusText(&self.0.status)) }
    }
}

/// Shows a foreign text on one line and without control of the terminal: a line feed as `\n`, any other control
/// character, line separator or bidi control as `\u{..}`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = self.0;
        while let Some(at) = find_escape(plain) {
            let (before, rest) = plain.split_at(at);
            f.write_str(before)?;
            let mut rest = rest.chars();
            match rest.next() {
                Some('\n') => f.write_str("\\n")?,
                Some(c) => write!(f, "{}", c.escape_unicode())?,
                None => {}
            }
            plain = rest.as_str();
        }
        f.write_str(plain)
    }
}

/// Returns the place of the first character to escape. All of them begin with one of a few bytes, so a long text is
/// searched by bytes.
fn find_escape(text: &str) -> Option<usize> {
    let may_begin = |byte: &u8| !matches!(byte, b' '..=b'~') && matches!(byte, 0..=0x1F | 0x7F | 0xC2 | 0xD8 | 0xE2);
    let mut from = 0;
    loop {
        let at = from + text.as_bytes()[from..].iter().position(may_begin)?;
        if text[at..].starts_with(needs_escape) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_to_escape_is_found() {
        for c in '\0'..=char::MAX {
            let text = format!("ö{c}");
            assert_eq!(find_escape(&text), needs_escape(c).then_some(2), "{}", c.escape_unicode());
        }
        assert_eq!(find_escape("Â¡ £ … \u{85}"), Some(12));
    }
}
