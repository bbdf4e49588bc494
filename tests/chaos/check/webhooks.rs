//! Webhooks: the application receives every acked message of a room at least once. Each id means one message, and the
//! messages of a room come in its order.
//!
//! A message that is lost with its gateway is excused, as in [`super::loss`]. The order is not judged of messages that
//! Redis may have lost: they are republished under another seq.

use std::collections::{BTreeMap, HashMap};

use super::redis_loss::RedisLosses;
use super::{Evidence, Finding};
use crate::history::{HistoryOp, OpStatus};

pub(super) fn check(evidence: &Evidence) -> Finding {
    let (mut finding, losses) = (Finding::default(), RedisLosses::new(evidence));
    let mut received: HashMap<&str, &str> = HashMap::new();
    let mut keys: HashMap<&str, &str> = HashMap::new();
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for event in &evidence.events {
        let HistoryOp::Webhook { id, room, key, seq } = &event.op else { continue };
        match received.insert(id, key) {
            None => {}
            Some(first) if first == key => continue,
            Some(first) => finding.broken.push(format!("{room}: {first} and {key} have one id, {id}")),
        }
        keys.insert(key, id);
        if losses.may_be_renumbered(key) {
            continue;
        }
        if let Some((before, earlier)) = last.insert(room, (*seq, key)).filter(|(before, _)| before > seq) {
            finding.broken.push(format!("{room}: {key} with seq {seq} came after {earlier} with seq {before}"));
        }
    }
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let HistoryOp::Send { room, key, msg_id, .. } = &event.op else { continue };
        if !room.starts_with('#') || losses.acked(key).is_none() {
            continue;
        }
        finding.judged += 1;
        match keys.get(key.as_str()) {
            Some(id) if msg_id.as_ref().is_none_or(|acked| acked == id) => {}
            None if losses.may_be_lost_with_gateway(key) => finding.excused += 1,
            other => finding.broken.push(format!("{room}: {key} was acked as {msg_id:?}, and came as {other:?}")),
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::plan::Fault;

    fn changed(change: impl Fn(&mut HistoryOp)) -> usize {
        let mut evidence = sample::good();
        let ops = evidence.events.iter_mut().map(|event| &mut event.op);
        ops.filter(|op| matches!(op, HistoryOp::Webhook { .. })).for_each(change);
        check(&evidence).broken.len()
    }

    #[test]
    fn checker_finds_acked_message_without_webhook() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(&event.op, HistoryOp::Webhook { seq: 2, .. }));
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_excuses_webhook_lost_with_gateway() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(&event.op, HistoryOp::Webhook { seq: 2, .. }));
        for (second, kind) in [(62, OpStatus::Invoke), (63, OpStatus::Ok)] {
            let kill = HistoryOp::Fault(Fault::RedisKill);
            evidence = sample::with(evidence, sample::line(second, "bench", 0, kind, kill));
        }
        let kill = HistoryOp::Fault(Fault::GatewayKill { gateway: 1 });
        let both = sample::with(evidence, sample::line(64, "bench", 0, OpStatus::Invoke, kill));
        assert_eq!((check(&both).broken.len(), check(&both).excused), (0, 1));
    }

    #[test]
    fn checker_finds_webhook_with_foreign_id() {
        let to_one_id = |op: &mut HistoryOp| {
            if let HistoryOp::Webhook { id, .. } = op {
                *id = "m1".to_owned();
            }
        };
        // The repetition of the first message is no fault; the second one has the id of the first and not its own.
        assert_eq!(changed(to_one_id), 2);
    }

    #[test]
    fn checker_finds_webhooks_out_of_order() {
        let reversed = |op: &mut HistoryOp| {
            if let HistoryOp::Webhook { seq, .. } = op {
                *seq = 3 - *seq;
            }
        };
        assert_eq!((changed(reversed), changed(|_| {})), (1, 0));
    }
}
