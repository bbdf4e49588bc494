//! The checkers: pure functions from what was recorded and what was found at the end to what is wrong.
//!
//! One table names the promise of docs/GUARANTEES.md that each of them checks.

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

use std::collections::BTreeMap;

use crate::history::{HistoryEvent, HistoryOp, Jump, OpStatus};
use crate::plan::Fault;

/// A second, as the history counts.
pub const SECOND: u64 = 1_000_000_000;

/// One message of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWrite {
    pub seq: u64,
    pub msg_id: String,
    pub from: String,
    pub fence: u64,
    pub key: String,
}

/// A user going offline, as the store recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLeave {
    /// On the clock of the history.
    pub at: u64,
    pub nick: String,
    pub reason: String,
}

/// All there is to judge a run by.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// In the order of time.
    pub events: Vec<HistoryEvent>,
    /// Of every room, oldest first.
    pub logs: BTreeMap<String, Vec<StoredWrite>>,
    /// In the order of time.
    pub departures: Vec<RecordedLeave>,
    /// Keys and descriptors that remained after all members had left, described in words.
    pub leftovers: Vec<String>,
    /// True if Redis had to write before it answered.
    pub fsync_always: bool,
}

/// A session: the member's nickname, and the number of the session among the member's sessions.
pub type SessionHistory<'a> = (&'a str, u32);

impl Evidence {
    /// The times in which a fault held: those still on at the end have no end.
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

    /// What each session was told in each room, in its order, with the jumps it was told of.
    pub fn lists(&self) -> BTreeMap<(SessionHistory<'_>, &str), Vec<&HistoryEvent>> {
        let mut lists: BTreeMap<_, Vec<&HistoryEvent>> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.kind == OpStatus::Ok) {
            if let HistoryOp::Message { room, .. } | HistoryOp::Jump { room, .. } | HistoryOp::Join { room, .. } =
                &event.op
            {
                lists.entry(((event.process.as_str(), event.session), room.as_str())).or_default().push(event);
            }
        }
        lists
    }

    /// What each session holds of each room at its end: told messages in their order, without those that it was told
    /// to discard.
    pub fn held(&self) -> BTreeMap<(SessionHistory<'_>, &str), Vec<&HistoryEvent>> {
        let mut lists = self.lists();
        for list in lists.values_mut() {
            let mut held: Vec<&HistoryEvent> = Vec::new();
            for event in &*list {
                match event.op {
                    HistoryOp::Message { .. } => held.push(event),
                    HistoryOp::Jump { jump: Jump::Anew, .. } => held.clear(),
                    HistoryOp::Jump { jump: Jump::Rewound { seq }, .. } => held.retain(|before| is_up_to(before, seq)),
                    _ => {}
                }
            }
            *list = held;
        }
        lists
    }

    /// The log of a room; empty when there is none.
    pub fn log(&self, room: &str) -> &[StoredWrite] {
        self.logs.get(room).map_or(&[], Vec::as_slice)
    }

    /// Returns whether the oldest messages of a room were trimmed away.
    pub fn is_trimmed(&self, room: &str) -> bool {
        self.log(room).first().is_some_and(|first| first.seq > 1)
    }
}

/// Returns whether the message has a number up to `seq`.
fn is_up_to(event: &HistoryEvent, seq: u64) -> bool {
    matches!(event.op, HistoryOp::Message { seq: Some(number), .. } if number <= seq)
}

/// The result of a checker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Number of items checked: a checker that judged nothing proves nothing.
    pub judged: usize,
    /// Number of violations that a documented limit excuses.
    pub excused: usize,
    /// Descriptions of the violations.
    pub broken: Vec<String>,
}

/// One row of the table.
pub struct Checker {
    pub name: &'static str,
    /// The text of docs/GUARANTEES.md.
    pub promise: &'static str,
    pub check: fn(&Evidence) -> Finding,
}

/// Every checker.
pub const CHECKERS: &[Checker] = &[
    Checker {
        name: "loss",
        promise: "an acked message is in the room's log, also when Redis was killed right afterwards",
        check: loss::check,
    },
    Checker { name: "duplicates", promise: "a retry with the same key makes no second copy", check: duplicates::check },
    Checker {
        name: "order",
        promise: "messages of a room have one order, and no number means two things",
        check: order::check,
    },
    Checker {
        name: "contiguity",
        promise: "after seq n comes n + 1, or an event that says what is not there",
        check: contiguity::check,
    },
    Checker { name: "nicknames", promise: "a nickname has one owner in the whole cluster", check: nicknames::check },
    Checker {
        name: "presence",
        promise: "a crashed gateway's users are offline within 12 s; an outage of Redis makes nobody offline",
        check: presence::check,
    },
    Checker {
        name: "sessions",
        promise: "who comes back with its token goes on, in every room that it was in",
        check: sessions::check,
    },
    Checker {
        name: "stillness",
        promise: "nobody sees somebody leave who is back in time, also when gateways are restarted",
        check: stillness::check,
    },
    Checker {
        name: "inbox",
        promise: "what is sent to somebody comes, at the latest when their session is resumed",
        check: inbox::check,
    },
    Checker {
        name: "recovery",
        promise: "when a fault clears, service is whole within 15 s, with no restart",
        check: recovery::check,
    },
    Checker {
        name: "survival",
        promise: "no program ends that was not told to, and a drain ends with 0",
        check: survival::check,
    },
    Checker {
        name: "leaks",
        promise: "when everybody has left, nothing is left of them but what is kept for their return",
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
