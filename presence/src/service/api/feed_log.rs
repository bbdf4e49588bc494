//! The logs that event streams read: the event log, and the messages of a room.
//!
//! [`FeedLog`] reads either one as events with growing ids. The id of a message is its seq with a mark of its epoch, so
//! a position that a store has lost is known. A reader of messages polls: each time it costs one short read.

use std::time::Duration;

use tokio::time::sleep;

use super::history::message_event;
use crate::model::RoomKey;
use crate::model::stream::StreamEnd;
use crate::registry::{Registry, RegistryError, RegistryEvent, RoomTail};

/// Maximum number of events of one read.
const EVENTS: usize = 256;
/// Maximum number of messages of one read, and in the ring of a room: each has up to 64 KiB.
const MESSAGES: usize = 16;
/// Maximum number of events that a subscriber may be behind the tail before it replays them from the log.
const EVENT_RING: usize = 1024;
/// Pause between two reads of a quiet room.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// A position in the event log, with the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct FeedPosition(u64, u64);

impl FeedPosition {
    /// Parses `<milliseconds>-<number>`, or the milliseconds alone.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl std::fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// The log that a feed reads.
#[derive(Debug)]
pub(super) enum FeedLog {
    /// The changes of users and rooms.
    Changes,
    /// The messages of a room.
    Messages(RoomKey),
}

/// The ends of a log.
#[derive(Debug, Clone)]
pub(super) struct LogEnds {
    /// Reading from here, or from anything newer, misses nothing.
    complete_from: FeedPosition,
    /// True if reading from the beginning misses nothing.
    is_whole: bool,
    pub(super) newest: FeedPosition,
    /// The end of the room's stream, for a log of messages.
    stream: Option<StreamEnd>,
}

impl LogEnds {
    /// Returns true if the log has every event after this position.
    pub(super) fn have_all_after(&self, position: FeedPosition) -> bool {
        if self.is_whole && position == FeedPosition::default() {
            return true;
        }
        match &self.stream {
            None => self.complete_from <= position && position <= self.newest,
            Some(end) => self.complete_from.0 <= position.0 && is_valid(end, position),
        }
    }
}

/// Returns true if the stream still has the message of this position, or had it before it was trimmed.
fn is_valid(end: &StreamEnd, FeedPosition(seq, mark): FeedPosition) -> bool {
    let epochs = end.forks.iter().map(|fork| &fork.epoch).chain([&end.epoch]);
    // Without a mark the position is one of the present epoch, as in the history.
    let epoch = epochs.into_iter().find(|epoch| epoch_mark(epoch) == mark);
    let epoch = epoch.or((mark == 0).then_some(&end.epoch));
    epoch.is_some_and(|epoch| seq <= end.shares(epoch))
}

/// Returns a number that distinguishes the epochs of a room.
fn epoch_mark(epoch: &str) -> u64 {
    epoch.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

impl FeedLog {
    /// Returns the maximum number of events of one read.
    pub(super) fn batch(&self) -> usize {
        match self {
            Self::Changes => EVENTS,
            Self::Messages(_) => MESSAGES,
        }
    }

    /// Returns the number of events that a subscriber may be behind the tail.
    pub(super) fn ring(&self) -> usize {
        match self {
            Self::Changes => EVENT_RING,
            Self::Messages(_) => MESSAGES,
        }
    }

    /// Reads the next events after a position. Waits for a while if there are none yet.
    pub(super) async fn read(
        &self,
        registry: &Registry,
        after: FeedPosition,
    ) -> Result<Vec<RegistryEvent>, RegistryError> {
        match self {
            Self::Changes => Ok(registry.events(Some(&after.to_string()), EVENTS).await?.0),
            Self::Messages(room) => {
                let events = messages_after(registry, room, after).await?;
                if events.is_empty() {
                    sleep(POLL_PAUSE).await;
                }
                Ok(events)
            }
        }
    }

    /// Reads the ends of the log.
    pub(super) async fn ends(&self, registry: &Registry) -> Result<LogEnds, RegistryError> {
        match self {
            Self::Changes => {
                let ends = registry.event_log_ends().await?;
                let read = |id: &str| {
                    FeedPosition::parse(id).ok_or_else(|| RegistryError::Unknown(format!("event id {id:?}")))
                };
                let (complete_from, newest) = (read(&ends.complete_from)?, read(&ends.newest)?);
                Ok(LogEnds { complete_from, is_whole: ends.is_whole, newest, stream: None })
            }
            Self::Messages(room) => {
                let tail = registry.messages_after(room, u64::MAX >> 1, 1).await?;
                let Some(RoomTail { first, end, .. }) = tail else {
                    let (complete_from, newest) = (FeedPosition::default(), FeedPosition::default());
                    return Ok(LogEnds { complete_from, is_whole: true, newest, stream: None });
                };
                let before = first.map_or(end.seq, |first| first.saturating_sub(1));
                let newest = FeedPosition(end.seq, epoch_mark(&end.epoch));
                let complete_from = FeedPosition(before, 0);
                Ok(LogEnds { complete_from, is_whole: before == 0, newest, stream: Some(end) })
            }
        }
    }
}

/// Reads the messages after a position. Fails if the room has lost the message there.
async fn messages_after(
    registry: &Registry,
    room: &RoomKey,
    after: FeedPosition,
) -> Result<Vec<RegistryEvent>, RegistryError> {
    let Some(RoomTail { room, end, messages, .. }) = registry.messages_after(room, after.0, MESSAGES).await? else {
        return Ok(Vec::new());
    };
    if after != FeedPosition::default() && !is_valid(&end, after) {
        return Err(RegistryError::Unknown("the room has lost messages".to_owned()));
    }
    let mark = epoch_mark(&end.epoch);
    let event = |message: &_| {
        let (seq, data) = message_event(&room, message)?;
        Some(RegistryEvent { id: FeedPosition(seq, mark).to_string(), kind: "message".to_owned(), data })
    };
    Ok(messages.iter().filter_map(event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stream::read_forks;

    #[test]
    fn position_is_valid_up_to_its_fork() {
        let [first, second, other] = ["aaaaaaaaaaaa1", "bbbbbbbbbbbb1", "cccccccccccc1"];
        let end = StreamEnd { epoch: second.to_owned(), seq: 30, forks: read_forks(&format!("{first}:20")) };
        for (seq, epoch, expected) in
            [(20, first, true), (21, first, false), (30, second, true), (31, second, false), (1, other, false)]
        {
            assert_eq!(is_valid(&end, FeedPosition(seq, epoch_mark(epoch))), expected, "{seq} {epoch}");
        }
        assert!(is_valid(&end, FeedPosition(30, 0)) && !is_valid(&end, FeedPosition(31, 0)), "a seq alone");
    }
}
