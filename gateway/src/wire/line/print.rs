//! [`Answer`] and [`Event`] to lines for people. Everything that is not our own text goes through [`Safe`].

use std::fmt::{self, Write};

use bytes::Bytes;
use presence::model::{Availability, LeftReason, MemberInfo, PresenceDelta, Status};

use crate::message::ChatMessage;
use crate::wire::{Answer, DeliveryStatus, Event, Refusal};

/// Encodes an event as whole lines.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    let mut lines = Lines::default();
    match event {
        Event::Message(said) => message(&mut lines, said),
        Event::Presence { room, delta, resync } => {
            presence(&mut lines, room, delta);
            if *resync {
                lines.add(format_args!("* people came or went in {0}, see /who {0}", Safe(room)));
            }
        }
        Event::Gap { to, from_seq, to_seq } => {
            lines.add(format_args!("* messages {from_seq} to {to_seq} of {} are gone", Safe(to)));
        }
        // Lines show no numbers, so another counting is nothing to speak of; and they cannot be taken back.
        Event::Epoch { .. } | Event::Typing { .. } => {}
        Event::Rewound { to, .. } => {
            lines.add(format_args!("* {} begins anew: what follows was said in it", Safe(to)));
        }
        Event::GoingAway { retry_after_ms } => {
            let seconds = retry_after_ms.div_ceil(1000);
            lines.add(format_args!("* going away: this server ends in {seconds} s, connect again then"));
        }
    }
    lines.finish()
}

/// A refusal as a line, for what happens outside a request.
#[must_use]
pub fn encode_refusal(refusal: &Refusal) -> Bytes {
    let mut lines = Lines::default();
    lines.add(format_args!("! {}: {}", refusal.code.slug(), Safe(refusal.message())));
    lines.finish()
}

/// A direct message as its sender sees it.
pub(super) fn sent(to: &str, text: &str, placed: DeliveryStatus) -> Bytes {
    let mut lines = Lines::default();
    let note = if placed == DeliveryStatus::Offline { " (offline, will be delivered)" } else { "" };
    lines.add(format_args!("-> {}: {}{note}", Safe(to), Safe(text)));
    lines.finish()
}

/// What came of a request. A message to a room says so by arriving, so its ack is silent.
pub(super) fn answer(answer: &Answer) -> Bytes {
    let mut lines = Lines::default();
    match answer {
        Answer::Registered { nick, .. } | Answer::Nick { nick } => {
            lines.add(format_args!("* you are now known as {}", Safe(nick)));
        }
        Answer::Joined { room, member_count, .. } => {
            lines.add(format_args!("* you are in {}, members: {member_count}", Safe(room)));
        }
        Answer::Left { room } => lines.add(format_args!("* you left {}", Safe(room))),
        Answer::Ack { .. } => {}
        Answer::Status(status) => lines.add(format_args!("* you are {}", Doing(status))),
        Answer::Members { room, items, next_cursor } => {
            for member in items {
                lines.add(format_args!("* in {}: {}", Safe(room), Present(member)));
            }
            more(&mut lines, next_cursor.is_some());
        }
        Answer::Rooms { items, next_cursor } => {
            if items.is_empty() {
                lines.add(format_args!("* no rooms"));
            }
            for item in items {
                lines.add(format_args!("* {}, members: {}", Safe(&item.room), item.member_count));
            }
            more(&mut lines, next_cursor.is_some());
        }
        Answer::History { to, items, .. } => {
            if items.is_empty() {
                lines.add(format_args!("* no messages in {}", Safe(to)));
            }
            items.iter().for_each(|said| message(&mut lines, said));
        }
        // No line asks for it.
        Answer::Read { .. } | Answer::Typing { .. } => {}
        Answer::Pong => lines.add(format_args!("* pong")),
        Answer::Refused(refusal) => return encode_refusal(refusal),
    }
    lines.finish()
}

fn message(lines: &mut Lines, said: &ChatMessage) {
    let (to, from, text) = (Safe(&said.to), Safe(&said.from), said.body.text());
    if said.to.starts_with('#') {
        lines.add(format_args!("[{to}] <{from}> {}", Safe(&text)));
    } else {
        lines.add(format_args!("<- {from}: {}", Safe(&text)));
    }
}

/// In the order in which a sum of changes is to be read: who left may have had a name that somebody has now.
fn presence(lines: &mut Lines, room: &str, delta: &PresenceDelta) {
    let room = Safe(room);
    for left in &delta.left {
        match left.reason {
            LeftReason::Left => lines.add(format_args!("* {} left {room}", Safe(&left.nick))),
            reason => lines.add(format_args!("* {} left {room} ({})", Safe(&left.nick), reason.as_str())),
        }
    }
    for renamed in &delta.renamed {
        lines.add(format_args!("* {} is now known as {}", Safe(&renamed.from), Safe(&renamed.to)));
    }
    for MemberInfo { nick, .. } in &delta.joined {
        lines.add(format_args!("* {} joined {room}", Safe(nick)));
    }
    for MemberInfo { nick, status } in &delta.status {
        lines.add(format_args!("* {} is {}", Safe(nick), Doing(status)));
    }
}

fn more(lines: &mut Lines, more: bool) {
    if more {
        lines.add(format_args!("* and more"));
    }
}

/// Lines being written.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a string takes every write");
        self.0.push('\n');
    }

    fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// A status as it follows "is" or "are": `away: lunch`.
struct Doing<'a>(&'a Status);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.status {
            Availability::Online => "online",
            Availability::Away => "away",
        })?;
        if self.0.text.is_empty() { Ok(()) } else { write!(f, ": {}", Safe(&self.0.text)) }
    }
}

/// A member in a list: the status only where it says something.
struct Present<'a>(&'a MemberInfo);

impl fmt::Display for Present<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Safe(&self.0.nick).fmt(f)?;
        if self.0.status == Status::default() { Ok(()) } else { write!(f, " ({})", Doing(&self.0.status)) }
    }
}

/// Somebody else's text, on one line and without power over a terminal: a line feed is shown as `\n`, every other
/// control character, line separator and bidi control as `\u{..}`.
struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = self.0;
        while let Some(at) = plain.find(is_unsafe) {
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

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}
