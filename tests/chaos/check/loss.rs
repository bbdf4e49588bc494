//! Loss: every message that was acked is in its room's log at the end, under the id that the ack gave, and under its
//! number unless Redis had forgotten it and a gateway has put it back.
//!
//! What was trimmed is excused and counted, and what only a gateway still knew that was killed before it had put it
//! back.

use std::collections::HashMap;

use super::redis_loss::Forgetting;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, forgetting) = (Finding::default(), Forgetting::new(evidence));
    let by_key: HashMap<(&str, &str), (&str, u64)> = evidence
        .logs
        .iter()
        .flat_map(|(room, log)| log.iter().map(|e| ((room.as_str(), e.key.as_str()), (e.msg_id.as_str(), e.seq))))
        .collect();
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let HistoryOp::Send { room, key, msg_id, seq } = &event.op else { continue };
        if forgetting.acked(key).is_none() {
            continue;
        }
        finding.judged += 1;
        let logged = by_key.get(&(room.as_str(), key.as_str()));
        let is_as_acked = |(id, number): &(&str, u64)| {
            let is_number = seq.is_none_or(|acked| acked == *number) || forgetting.holds(key);
            is_number && msg_id.as_ref().is_none_or(|acked| acked == id)
        };
        if logged.is_some_and(is_as_acked) {
            continue;
        }
        let oldest = evidence.log(room).first().map_or(0, |first| first.seq);
        let is_trimmed = evidence.is_trimmed(room) && seq.is_none_or(|seq| seq < oldest);
        if logged.is_none() && (is_trimmed || forgetting.died_with_its_gateway(key)) {
            finding.excused += 1;
        } else {
            finding.broken.push(format!("{room}: {key} was acked as {msg_id:?} {seq:?}, logged: {logged:?}"));
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::plan::Fault;

    /// Redis is killed right after the last message.
    fn killed() -> Evidence {
        let kill = |second, kind| sample::line(second, "bench", 0, kind, HistoryOp::Fault(Fault::RedisKill));
        sample::with(sample::with(sample::good(), kill(62, OpStatus::Invoke)), kill(63, OpStatus::Ok))
    }

    #[test]
    fn checker_finds_acked_message_missing_from_stream() {
        for mut evidence in [sample::good(), killed()] {
            sample::change(&mut evidence, |log| log.truncate(1));
            assert_eq!((check(&evidence).broken.len(), check(&evidence).excused), (1, 0));
        }
    }

    #[test]
    fn checker_finds_renumbered_message_unless_redis_lost_it() {
        let renumbered = |mut evidence: Evidence| {
            sample::change(&mut evidence, |log| log[1].seq = 3);
            check(&evidence).broken.len()
        };
        assert_eq!((renumbered(sample::good()), renumbered(killed())), (1, 0));
        let mut first = killed();
        sample::change(&mut first, |log| log[0].seq = 3);
        assert_eq!(check(&first).broken.len(), 1, "long before");
    }

    #[test]
    fn checker_always_finds_changed_message_id() {
        let mut evidence = killed();
        sample::change(&mut evidence, |log| log[1].msg_id = "other".to_owned());
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_excuses_message_lost_with_its_gateway() {
        let mut evidence = killed();
        sample::change(&mut evidence, |log| log.truncate(1));
        for (gateway, counts) in [(1, (0, 1)), (0, (1, 0))] {
            let kill = HistoryOp::Fault(Fault::GatewayKill { gateway });
            let both = sample::with(evidence.clone(), sample::line(64, "bench", 0, OpStatus::Invoke, kill));
            assert_eq!((check(&both).broken.len(), check(&both).excused), counts, "she is on g2");
        }
    }
}
