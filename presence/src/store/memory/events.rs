//! The bounded event log: online, offline, join, leave, rename.
//!
//! Positions have the form of a Redis stream's (`<Unix ms>-<count>`) and only grow, even if the clock goes back.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Notify;

use crate::registry::{EventLogEnds, RegistryEvent, event_position};

/// Maximum number of stored events.
const EVENTS_MAX: usize = 10_000;

type Position = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct EventLog {
    entries: VecDeque<(Position, &'static str, String)>,
    last: Position,
    /// The newest trimmed event.
    trimmed: Position,
    changed: Arc<Notify>,
}

impl EventLog {
    /// Appends an event and adds the time to `fields`, which are not empty. Returns its JSON.
    pub(crate) fn add(&mut self, now: u64, kind: &'static str, fields: &impl Serialize) -> String {
        let mut data = serde_json::to_string(fields).expect("fields are names and numbers");
        data.pop();
        let _ = write!(data, ",\"time\":{now}}}");
        self.last = (now, 0).max((self.last.0, self.last.1 + 1));
        if self.entries.len() == EVENTS_MAX
            && let Some((oldest, ..)) = self.entries.pop_front()
        {
            self.trimmed = oldest;
        }
        self.entries.push_back((self.last, kind, data.clone()));
        self.changed.notify_waiters();
        data
    }

    /// Returns the notification of new events.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Returns the position of the newest event.
    pub(crate) fn end(&self) -> String {
        text(self.last)
    }

    /// Returns the position from which reading is complete, and the newest event.
    pub(crate) fn ends(&self) -> EventLogEnds {
        EventLogEnds { complete_from: text(self.trimmed), is_whole: self.trimmed == (0, 0), newest: text(self.last) }
    }

    /// Returns the oldest events after a position, at most `limit`; `None` if the position is malformed.
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
