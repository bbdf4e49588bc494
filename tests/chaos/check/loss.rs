//! Loss: at the end every acked message is in its room's stream, with the id of the ack. It also has the seq of the
//! ack, unless Redis lost the message and a gateway republished it.
//!
//! Two cases are excused and counted: trimmed messages, and messages whose gateway was killed before it republished
//! them.

use std::collections::HashMap;

use super::redis_loss::RedisLosses;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, losses) = (Finding::default(), RedisLosses::new(evidence));
    let stored: HashMap<(&str, &str), (&str, u64)> = evidence
        .streams
        .iter()
        .flat_map(|(room, stream)| stream.iter().map(|e| ((room.as_str(), e.key.as_str()), (e.msg_id.as_str(), e.seq))))
        .collect();
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let HistoryOp::Send { room, key, msg_id, seq } = &event.op else { continue };
        if losses.acked(key).is_none() {
            continue;
        }
        finding.judged += 1;
        let found = stored.get(&(room.as_str(), key.as_str()));
        let is_as_acked = |(id, stored_seq): &(&str, u64)| {
            let has_seq = seq.is_none_or(|acked| acked == *stored_seq) || losses.may_be_renumbered(key);
            has_seq && msg_id.as_ref().is_none_or(|acked| acked == id)
        };
        if found.is_some_and(is_as_acked) {
            continue;
        }
        let oldest = evidence.stream(room).first().map_or(0, |first| first.seq);
        let is_trimmed = evidence.is_trimmed(room) && seq.is_none_or(|seq| seq < oldest);
        if found.is_none() && (is_trimmed || losses.may_be_lost_with_gateway(key)) {
            finding.excused += 1;
        } else {
            finding.broken.push(format!("{room}: {key} was acked as {msg_id:?} {seq:?}, stored as {found:?}"));
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::plan::Fault;

    /// Returns a run in which Redis is killed right after the last message.
    fn with_redis_kill() -> Evidence {
        let kill = |second, kind| sample::line(second, "bench", 0, kind, HistoryOp::Fault(Fault::RedisKill));
        sample::with(sample::with(sample::good(), kill(62, OpStatus::Invoke)), kill(63, OpStatus::Ok))
    }

    #[test]
    fn checker_finds_acked_message_missing_from_stream() {
        for mut evidence in [sample::good(), with_redis_kill()] {
            sample::change_stream(&mut evidence, |stream| stream.truncate(1));
            assert_eq!((check(&evidence).broken.len(), check(&evidence).excused), (1, 0));
        }
    }

    #[test]
    fn checker_finds_renumbered_message_unless_redis_lost_it() {
        let renumbered = |mut evidence: Evidence| {
            sample::change_stream(&mut evidence, |stream| stream[1].seq = 3);
            check(&evidence).broken.len()
        };
        assert_eq!((renumbered(sample::good()), renumbered(with_redis_kill())), (1, 0));
        let mut first = with_redis_kill();
        sample::change_stream(&mut first, |stream| stream[0].seq = 3);
        assert_eq!(check(&first).broken.len(), 1, "written long before the kill");
    }

    #[test]
    fn checker_always_finds_changed_message_id() {
        let mut evidence = with_redis_kill();
        sample::change_stream(&mut evidence, |stream| stream[1].msg_id = "other".to_owned());
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_excuses_message_lost_with_its_gateway() {
        let mut evidence = with_redis_kill();
        sample::change_stream(&mut evidence, |stream| stream.truncate(1));
        for (gateway, counts) in [(1, (0, 1)), (0, (1, 0))] {
            let kill = HistoryOp::Fault(Fault::GatewayKill { gateway });
            let both = sample::with(evidence.clone(), sample::line(64, "bench", 0, OpStatus::Invoke, kill));
            assert_eq!((check(&both).broken.len(), check(&both).excused), counts, "ann is on g2");
        }
    }
}
