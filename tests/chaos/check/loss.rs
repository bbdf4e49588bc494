//! Loss: every message that was acked is in its room's log at the end, under the id and number that the ack gave.
//!
//! What Redis itself may have forgotten when it was killed, or has trimmed, is excused and counted.

use std::collections::HashMap;

use super::{Evidence, Finding};
use crate::history::{Kind, Op};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, excused) = (Finding::default(), evidence.excused_losses());
    let by_key: HashMap<(&str, &str), (&str, u64)> = evidence
        .logs
        .iter()
        .flat_map(|(room, log)| log.iter().map(|e| ((room.as_str(), e.key.as_str()), (e.msg_id.as_str(), e.seq))))
        .collect();
    for event in evidence.events.iter().filter(|event| event.kind == Kind::Ok) {
        let Op::Send { room, key, msg_id, seq } = &event.op else { continue };
        finding.judged += 1;
        let logged = by_key.get(&(room.as_str(), key.as_str()));
        let is_as_acked = |(id, number): &(&str, u64)| {
            msg_id.as_ref().is_none_or(|acked| acked == id) && seq.is_none_or(|acked| acked == *number)
        };
        if logged.is_some_and(is_as_acked) {
            continue;
        }
        let oldest = evidence.log(room).first().map_or(0, |first| first.seq);
        let is_trimmed = evidence.is_trimmed(room) && seq.is_none_or(|seq| seq < oldest);
        if is_trimmed || excused.hold(event.at) {
            finding.excused += 1;
        } else {
            finding.broken.push(format!("{room}: {key} was acked as {msg_id:?} {seq:?}, logged: {logged:?}"));
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::{SECOND, sample};
    use super::*;
    use crate::plan::Fault;

    #[test]
    fn an_acked_message_that_is_not_in_the_log_is_lost() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log.truncate(1));
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn an_ack_with_another_number_than_the_logs_is_wrong() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log[1].seq = 3);
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn what_redis_may_forget_is_excused_unless_it_had_to_write_first() {
        let mut evidence = sample::good();
        sample::change(&mut evidence, |log| log.truncate(1));
        let kill = sample::line(62, "bench", 0, Kind::Invoke, Op::Fault(Fault::RedisKill));
        let mut evidence = sample::with(evidence, kill);
        assert_eq!((check(&evidence).broken.len(), check(&evidence).excused), (0, 1));
        evidence.fsync_always = true;
        assert_eq!(check(&evidence).broken.len(), 1);
        evidence.fsync_always = false;
        evidence.events.iter_mut().filter(|e| e.op == Op::Fault(Fault::RedisKill)).for_each(|e| e.at += 10 * SECOND);
        assert_eq!(check(&evidence).broken.len(), 1, "long after it was written");
    }
}
