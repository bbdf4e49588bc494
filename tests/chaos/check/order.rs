//! Order: what one session was told in a room, and not told to discard, is a part of the room's log, in its order. In
//! one epoch a number is one message, for all. A message that was sent after the ack of another one comes after it.
//!
//! Messages that are in no log count as told out of nothing, unless they were trimmed. Excused, and counted, is what
//! could not be told any more: a member that left before Redis was back was not told that its last messages are void.
//! Messages sent over two gateways may come back from them in another order; from one that counted as dead, after newer
//! ones.

use std::collections::HashMap;

use super::redis_loss::{AckedWrite, Forgetting};
use super::{Evidence, Finding};
use crate::history::{HistoryEvent, HistoryOp};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, forgetting) = (Finding::default(), Forgetting::new(evidence));
    one_log(evidence, &forgetting, &mut finding);
    one_meaning(evidence, &mut finding);
    one_speaker(evidence, &forgetting, &mut finding);
    finding
}

fn one_log(evidence: &Evidence, forgetting: &Forgetting<'_>, finding: &mut Finding) {
    let places: HashMap<(&str, &str), usize> = evidence
        .logs
        .iter()
        .flat_map(|(room, log)| log.iter().enumerate().map(|(at, entry)| ((room.as_str(), entry.key.as_str()), at)))
        .collect();
    let mut begun: HashMap<(&str, &str), u64> = HashMap::new();
    for event in &evidence.events {
        if let HistoryOp::Message { room, epoch: Some(epoch), .. } = &event.op {
            begun.entry((room, epoch)).or_insert(event.at);
        }
    }
    let may_be_void = |event: &HistoryEvent| {
        let HistoryOp::Message { room, key, epoch, .. } = &event.op else { return false };
        let begun = epoch.as_ref().and_then(|epoch| begun.get(&(room, epoch)));
        forgetting.may_be_void(key, event.at, begun.copied())
    };
    for ((session, room), told) in evidence.held() {
        let mut newest = None;
        let certain = told.iter().rposition(|event| !may_be_void(event)).map_or(0, |last| last + 1);
        for (number, event) in told.into_iter().enumerate() {
            let HistoryOp::Message { key, .. } = &event.op else { continue };
            finding.judged += 1;
            let place = places.get(&(room, key.as_str()));
            if place.is_some() && newest <= place {
                newest = place;
            } else if number >= certain || place.is_none() && evidence.is_trimmed(room) {
                finding.excused += 1;
            } else {
                let what = if place.is_some() { "out of order" } else { "what is not in the log" };
                finding.broken.push(format!("{room}: {session:?} was told {what}: {event:?}"));
            }
        }
    }
}

fn one_meaning(evidence: &Evidence, finding: &mut Finding) {
    let mut meanings: HashMap<(&str, &str, u64), &str> = HashMap::new();
    for event in &evidence.events {
        let HistoryOp::Message { room, key, epoch: Some(epoch), seq: Some(seq), .. } = &event.op else { continue };
        let meaning = meanings.entry((room, epoch, *seq)).or_insert(key);
        if meaning != key {
            finding.broken.push(format!("{room}: was {meaning} for others in this epoch: {event:?}"));
        }
    }
}

fn one_speaker(evidence: &Evidence, forgetting: &Forgetting<'_>, finding: &mut Finding) {
    for (room, log) in &evidence.logs {
        // By speaker: what was begun last, of all that came before.
        let mut latest: HashMap<&str, (u64, AckedWrite<'_>, &str)> = HashMap::new();
        for key in log.iter().map(|entry| entry.key.as_str()) {
            let Some((asked, acked)) = forgetting.acked(key) else { continue };
            let before = latest.entry(acked.session.0).or_insert((asked, acked, key));
            if before.0 > acked.at {
                let are_two =
                    || acked.may_be_elsewhere(&before.1) && forgetting.holds(key) && forgetting.holds(before.2);
                if are_two() || forgetting.is_late(key) {
                    finding.excused += 1;
                } else {
                    finding
                        .broken
                        .push(format!("{room}: {key} was acked before {} was said, and is after it", before.2));
                }
            }
            if before.0 < asked {
                *before = (asked, acked, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::history::{Jump, OpStatus};
    use crate::plan::Fault;

    /// Redis is killed right after the last message.
    fn killed(evidence: Evidence) -> Evidence {
        let kill = |second, kind| sample::line(second, "bench", 0, kind, HistoryOp::Fault(Fault::RedisKill));
        sample::with(sample::with(evidence, kill(62, OpStatus::Invoke)), kill(63, OpStatus::Ok))
    }

    fn told(second: u64, seq: u64, key: &str) -> HistoryEvent {
        sample::line(second, "bob", 1, OpStatus::Ok, sample::message(seq, "ann", key))
    }

    /// `bob` is told in second 61 what is in no log.
    fn haunted() -> Evidence {
        let asked = sample::line(61, "ann", 1, OpStatus::Invoke, sample::send(None)("ghost"));
        sample::with(sample::with(sample::good(), asked), told(61, 3, "ghost"))
    }

    #[test]
    fn checker_finds_exchanged_messages() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log.reverse());
        assert_eq!(check(&evidence).broken.len(), 3, "both were told both, and ann said them in this order");
    }

    #[test]
    fn checker_finds_unstored_message_unless_rewound() {
        assert_eq!(check(&haunted()).broken.len(), 1);
        let rewound = |seq| {
            let jump = HistoryOp::Jump { room: "#a".to_owned(), jump: Jump::Rewound { seq } };
            check(&sample::with(haunted(), sample::line(63, "bob", 1, OpStatus::Ok, jump))).broken.len()
        };
        assert_eq!((rewound(2), rewound(3)), (0, 1));
    }

    #[test]
    fn checker_excuses_unstored_message_only_at_session_end() {
        let left = killed(haunted());
        assert_eq!((check(&left).broken.len(), check(&left).excused), (0, 1), "nobody could tell him");
        let mut stayed = sample::with(left, told(70, 4, "later"));
        sample::change(&mut stayed, |log| log.push(sample::entry(4, "ann", 3, "later")));
        assert_eq!((check(&stayed).broken.len(), check(&stayed).excused), (1, 0));
    }

    #[test]
    fn checker_finds_seq_shared_by_two_messages() {
        let mut evidence = sample::with(sample::good(), told(62, 3, "k3"));
        sample::change(&mut evidence, |log| log.push(sample::entry(3, "ann", 3, "k3")));
        assert_eq!(check(&evidence).broken, Vec::<String>::new());
        let mut other = sample::message(2, "ann", "k3");
        let in_another_epoch = |op: &mut HistoryOp| {
            if let HistoryOp::Message { epoch, .. } = op {
                *epoch = Some("e2".to_owned());
            }
        };
        let found = |op: &HistoryOp| {
            check(&sample::with(evidence.clone(), sample::line(62, "eve", 1, OpStatus::Ok, op.clone()))).broken
        };
        assert_eq!(found(&other).len(), 1);
        in_another_epoch(&mut other);
        assert_eq!(found(&other).len(), 0);
    }

    #[test]
    fn checker_excuses_reordering_by_two_gateways() {
        let send = |second, session, kind, key: &str| {
            let seq = (kind == OpStatus::Ok).then_some(9);
            sample::line(second, "eve", session, kind, sample::send(seq)(key))
        };
        let said = |session| {
            let mut evidence = sample::good();
            for (second, session, key) in [(60, 1, "first"), (61, session, "second")] {
                evidence = sample::with(evidence, send(second, session, OpStatus::Invoke, key));
                evidence = sample::with(evidence, send(second, session, OpStatus::Ok, key));
            }
            let entries = ["second", "first"].map(|key| sample::entry(3, "eve", 3, key));
            sample::change(&mut evidence, |log| log.extend(entries));
            evidence
        };
        let found = |evidence: &Evidence| (check(evidence).broken.len(), check(evidence).excused);
        assert_eq!(found(&said(1)), (1, 0));
        assert_eq!(found(&said(2)), (1, 0));
        assert_eq!(found(&killed(said(1))), (1, 0), "one gateway");
        assert_eq!(found(&killed(said(2))), (0, 1));
    }
}
