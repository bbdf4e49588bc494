//! Checkers: pure functions from the recorded history and the final state of Redis to violations.
//!
//! [`CHECKERS`] lists them, each with the guarantee of docs/GUARANTEES.md that it checks.

mod calls;
mod contiguity;
mod duplicates;
mod redis_loss;
mod inbox;
mod leaks;
mod loss;
mod nicknames;
mod order;
mod presence;
mod recovery;
mod sessions;
mod stillness;
mod survival;
mod webhooks;

use std::collections::BTreeMap;

use crate::history::{HistoryEvent, HistoryOp, Jump, OpStatus};
use crate::plan::Fault;

/// One second, in the unit of the history.
pub const SECOND: u64 = 1_000_000_000;

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWrite {
    pub seq: u64,
    pub msg_id: String,
    pub from: String,
    pub fence: u64,
    pub key: String,
}

/// A leave, as Redis recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLeave {
    /// Nanoseconds since the start of the run.
    pub at: u64,
    pub nick: String,
    pub reason: String,
}

/// Everything by which a run is judged.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// In chronological order.
    pub events: Vec<HistoryEvent>,
    /// By room or inbox, each oldest message first.
    pub streams: BTreeMap<String, Vec<StoredWrite>>,
    /// In chronological order.
    pub departures: Vec<RecordedLeave>,
    /// Descriptions of keys and descriptors that remained after all members had left.
    pub leftovers: Vec<String>,
    /// Set if Redis wrote to disk before each answer.
    pub fsync_always: bool,
}

/// A session: the member's name in the history, and its number among the member's sessions.
pub type SessionHistory<'a> = (&'a str, u32);

impl Evidence {
    /// Returns the faults with their start and end; a fault that was never cleared ends at the maximum.
    pub fn faults(&self) -> Vec<(u64, u64, Fault)> {
        let mut found: Vec<(u64, u64, Fault)> = Vec::new();
        for event in &self.events {
            match (&event.op, event.kind) {
                (HistoryOp::Fault(fault), OpStatus::Invoke) => found.push((event.at, u64::MAX, *fault)),
                (HistoryOp::Fault(fault), _) => {
                    let open = found.iter_mut().rev().find(|(_, end, open)| *end == u64::MAX && open == fault);
                    if let Some((_, end, _)) = open {
                        *end = event.at;
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Returns the messages, jumps and joins that each session received in each room, in order.
    pub fn received(&self) -> BTreeMap<(SessionHistory<'_>, &str), Vec<&HistoryEvent>> {
        let mut received: BTreeMap<_, Vec<&HistoryEvent>> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.kind == OpStatus::Ok) {
            if let HistoryOp::Message { room, .. } | HistoryOp::Jump { room, .. } | HistoryOp::Join { room, .. } =
                &event.op
            {
                received.entry(((event.process.as_str(), event.session), room.as_str())).or_default().push(event);
            }
        }
        received
    }

    /// Returns the messages that each session has of each room at its end, in order and without the discarded ones.
    pub fn kept(&self) -> BTreeMap<(SessionHistory<'_>, &str), Vec<&HistoryEvent>> {
        let mut all = self.received();
        for events in all.values_mut() {
            let mut kept: Vec<&HistoryEvent> = Vec::new();
            for event in &*events {
                match event.op {
                    HistoryOp::Message { .. } => kept.push(event),
                    HistoryOp::Jump { jump: Jump::Reset, .. } => kept.clear(),
                    HistoryOp::Jump { jump: Jump::Rewound { seq }, .. } => kept.retain(|before| is_up_to(before, seq)),
                    _ => {}
                }
            }
            *events = kept;
        }
        all
    }

    /// Returns the stream of a room; empty if there is none.
    pub fn stream(&self, room: &str) -> &[StoredWrite] {
        self.streams.get(room).map_or(&[], Vec::as_slice)
    }

    /// Returns true if the oldest messages of a room were trimmed.
    pub fn is_trimmed(&self, room: &str) -> bool {
        self.stream(room).first().is_some_and(|first| first.seq > 1)
    }
}

/// Returns true if the event is a message with a seq up to `seq`.
fn is_up_to(event: &HistoryEvent, seq: u64) -> bool {
    matches!(event.op, HistoryOp::Message { seq: Some(number), .. } if number <= seq)
}

/// The result of a checker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Number of checked items: a checker that judged nothing proves nothing.
    pub judged: usize,
    /// Number of violations that a documented limit excuses.
    pub excused: usize,
    /// Descriptions of the violations.
    pub broken: Vec<String>,
}

/// A checker with its name and its guarantee.
pub struct Checker {
    pub name: &'static str,
    /// Guarantee of docs/GUARANTEES.md, in one sentence.
    pub guarantee: &'static str,
    pub check: fn(&Evidence) -> Finding,
}

/// Every checker.
pub const CHECKERS: &[Checker] = &[
    Checker {
        name: "loss",
        guarantee: "an acknowledged message is in the room's stream, also if Redis was killed right afterwards",
        check: loss::check,
    },
    Checker {
        name: "duplicates",
        guarantee: "a retry with the same key creates no second message",
        check: duplicates::check,
    },
    Checker {
        name: "order",
        guarantee: "messages of a room have one order, and no seq means two messages",
        check: order::check,
    },
    Checker {
        name: "contiguity",
        guarantee: "after seq n comes n + 1, or an event that reports the missing messages",
        check: contiguity::check,
    },
    Checker { name: "nicknames", guarantee: "a nickname has one owner in the whole cluster", check: nicknames::check },
    Checker {
        name: "presence",
        guarantee: "users of a crashed gateway are offline within 12 s; an outage of Redis marks no user offline",
        check: presence::check,
    },
    Checker {
        name: "sessions",
        guarantee: "a client that returns with its token keeps its session and all its rooms",
        check: sessions::check,
    },
    Checker {
        name: "stillness",
        guarantee: "a member that returns in time is not seen to leave, also when gateways restart",
        check: stillness::check,
    },
    Checker {
        name: "inbox",
        guarantee: "a direct message is delivered, at the latest when the recipient's session resumes",
        check: inbox::check,
    },
    Checker {
        name: "webhooks",
        guarantee: "an acknowledged message reaches the application's webhook, in the order of its room",
        check: webhooks::check,
    },
    Checker {
        name: "calls",
        guarantee: "a client library ends every send once, and its sends to a room are stored in the order of the calls",
        check: calls::check,
    },
    Checker {
        name: "recovery",
        guarantee: "service recovers within 15 s after a fault has cleared, without a restart",
        check: recovery::check,
    },
    Checker {
        name: "survival",
        guarantee: "no program exits without a request, and a drain exits with 0",
        check: survival::check,
    },
    Checker {
        name: "leaks",
        guarantee: "when all users have left, Redis keeps only what a return needs, and gateways leak no descriptors",
        check: leaks::check,
    },
];

#[cfg(test)]
mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_run_passes_every_checker() {
        for checker in CHECKERS {
            let finding = (checker.check)(&sample::good());
            assert_eq!(finding.broken, Vec::<String>::new(), "{}", checker.name);
            assert!(finding.judged > 0, "{} judged nothing", checker.name);
        }
    }
}
