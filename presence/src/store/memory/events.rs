//! The bounded log of what happened: online, offline, join, leave, rename.
//!
//! Positions look like those of a Redis stream (`<Unix ms>-<count>`) and only grow, whatever the clock does.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::registry::{EventLogEnds, RegistryEvent, event_position};

/// Events that are kept.
const KEPT: usize = 10_000;

type Position = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct EventLog {
    entries: VecDeque<(Position, &'static str, String)>,
    last: Position,
    /// The newest event that had to go.
    trimmed: Position,
    changed: Arc<Notify>,
}

impl EventLog {
    /// Adds an event; `fields` gets the time beside it.
    pub(crate) fn add(&mut self, now: u64, kind: &'static str, mut fields: serde_json::Value) {
        fields["time"] = now.into();
        self.last = (now, 0).max((self.last.0, self.last.1 + 1));
        if self.entries.len() == KEPT
            && let Some((oldest, ..)) = self.entries.pop_front()
        {
            self.trimmed = oldest;
        }
        self.entries.push_back((self.last, kind, fields.to_string()));
        self.changed.notify_waiters();
    }

    /// Tells who waits that something was added.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The position of the newest event.
    pub(crate) fn end(&self) -> String {
        text(self.last)
    }

    /// Where reading is complete from, and the newest event.
    pub(crate) fn ends(&self) -> EventLogEnds {
        EventLogEnds { complete_from: text(self.trimmed), newest: text(self.last) }
    }

    /// The oldest events behind a position, at most `limit`; `None` when the text is no position.
    pub(crate) fn after(&self, position: &str, limit: usize) -> Option<Vec<RegistryEvent>> {
        let after = event_position(position)?;
        let newer = self.entries.iter().skip_while(|(at, ..)| *at <= after).take(limit.max(1));
        let event = |(at, kind, data): &(Position, &str, String)| RegistryEvent {
            id: text(*at),
            kind: (*kind).to_owned(),
            data: data.clone(),
        };
        Some(newer.map(event).collect())
    }
}

fn text((time, count): Position) -> String {
    format!("{time}-{count}")
}
