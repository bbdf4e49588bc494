//! Results of the members on client libraries, per library: calls, received messages and reconnects.
//!
//! Counted from the history for the table of results. It judges nothing; the checker `calls` does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::check::Evidence;
use crate::history::{HistoryOp, OpStatus};

/// Results of all members on one library.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LibraryResults {
    pub sent: usize,
    pub acked: usize,
    pub refused: usize,
    /// Sends without an answer at the end.
    pub pending: usize,
    pub received: usize,
    /// Nanoseconds from each loss of a connection until the session was online again, in ascending order.
    pub reconnects: Vec<u64>,
}

impl LibraryResults {
    /// Returns the results of a run by the name of the library.
    pub fn of(evidence: &Evidence) -> BTreeMap<&str, Self> {
        let mut libraries: HashMap<&str, &str> = HashMap::new();
        let (mut results, mut lost, mut pending) = (BTreeMap::<&str, Self>::new(), HashMap::new(), BTreeSet::new());
        for event in &evidence.events {
            let process = event.process.as_str();
            if let HistoryOp::Library { name, .. } = &event.op {
                libraries.insert(process, name);
            }
            let Some(library) = libraries.get(process) else { continue };
            let result = results.entry(library).or_default();
            match &event.op {
                HistoryOp::Send { key, .. } if event.kind == OpStatus::Invoke => {
                    result.sent += 1;
                    pending.insert((*library, key));
                }
                HistoryOp::Send { key, .. } => {
                    result.acked += 1;
                    pending.remove(&(*library, key));
                }
                HistoryOp::Refused { key, .. } => {
                    result.refused += 1;
                    pending.remove(&(*library, key));
                }
                HistoryOp::Message { .. } => result.received += 1,
                HistoryOp::End { .. } => drop(lost.insert(process, event.at)),
                HistoryOp::Register { .. } => {
                    result.reconnects.extend(lost.remove(process).map(|lost_at| event.at - lost_at));
                }
                _ => {}
            }
        }
        for (library, result) in &mut results {
            result.pending = pending.iter().filter(|(owner, _)| owner == library).count();
            result.reconnects.sort_unstable();
        }
        results
    }

    /// Returns the duration that this share of the reconnects did not exceed, in seconds; 0 without reconnects.
    pub fn reconnect_seconds(&self, percent: usize) -> f64 {
        let rank = (self.reconnects.len() * percent).div_ceil(100).max(1);
        self.reconnects.get(rank - 1).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::HistoryEvent;

    #[test]
    fn results_count_calls_messages_and_reconnects() {
        let event = |at, kind, op| HistoryEvent { at, process: "js0".to_owned(), session: 1, kind, op };
        let library = HistoryOp::Library { name: "js".to_owned(), failure: None };
        let send = |key: &str| HistoryOp::Send { room: "#a".to_owned(), key: key.to_owned(), msg_id: None, seq: None };
        let refused = HistoryOp::Refused { key: "k2".to_owned(), code: "bad_request".to_owned() };
        let online = |resumed| HistoryOp::Register { nick: "js0".to_owned(), node: None, session: None, resumed };
        let events = vec![
            event(1, OpStatus::Invoke, library),
            event(2, OpStatus::Ok, online(false)),
            event(3, OpStatus::Invoke, send("k1")),
            event(4, OpStatus::Invoke, send("k2")),
            event(5, OpStatus::Invoke, send("k3")),
            event(6, OpStatus::Ok, send("k1")),
            event(7, OpStatus::Ok, refused),
            event(8, OpStatus::Ok, HistoryOp::End { reason: "resuming".to_owned() }),
            event(2_000_000_008, OpStatus::Ok, online(true)),
        ];
        let evidence = Evidence { events, ..Evidence::default() };
        let reconnects = vec![2_000_000_000];
        let expected = LibraryResults { sent: 3, acked: 1, refused: 1, pending: 1, received: 0, reconnects };
        assert_eq!(LibraryResults::of(&evidence)["js"], expected);
        assert_eq!(expected.reconnect_seconds(99), 2.0);
        assert_eq!(LibraryResults::default().reconnect_seconds(50), 0.0);
    }
}
