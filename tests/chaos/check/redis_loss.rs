//! Writes that a killed Redis may have lost, and the gateways that must republish them.
//!
//! Used by the checkers that compare what clients sent and received with the streams at the end. Invariant: a write
//! shortly before a kill is republished, possibly with another seq and another predecessor. It is lost only if the
//! gateway that acked it dies first, and late only if that gateway was silent until it counted as dead.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Evidence, SECOND, SessionHistory};
use crate::history::{HistoryOp, OpStatus};
use crate::plan::Fault;

/// Age up to which a write may be missing on disk: Redis syncs every second, may postpone that by another second, and
/// the disk takes a moment.
const UNSYNCED_NANOS_MAX: u64 = 5 * SECOND / 2;
/// Minimum silence after which Redis accepts writes without a gateway: 10 s, less half a second for clock differences.
const GATEWAY_EXPIRY_NANOS_MIN: u64 = 19 * SECOND / 2;

/// Times of one message, by its key.
#[derive(Debug, Clone, Copy)]
struct SentMessage<'a> {
    /// Time of the first request.
    sent_at: u64,
    /// Time of the first event that proves that the message is stored.
    stored_by: u64,
    acked: Option<AckedWrite<'a>>,
}

/// The ack of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedWrite<'a> {
    pub at: u64,
    /// Session that received the ack.
    pub session: SessionHistory<'a>,
    /// Gateway that sent the ack; unknown on the line port.
    pub node: Option<&'a str>,
}

impl AckedWrite<'_> {
    /// Returns true if two gateways may have sent the two acks.
    pub fn may_be_from_other_gateway(&self, other: &AckedWrite<'_>) -> bool {
        (self.session, self.node) != (other.session, other.node)
    }
}

/// A republish of a message that a gateway owes to a Redis that may have lost it.
struct PendingRepublish<'a> {
    node: &'a str,
    acked_at: u64,
    /// Time at which Redis answered again.
    redis_back_at: u64,
    /// Time at which the gateway is known to have republished everything.
    republished_at: u64,
}

/// All losses of Redis in a run, and the faults of gateways that affect the republish.
#[derive(Debug)]
pub struct RedisLosses<'a> {
    /// From the first write that a kill may have lost until Redis answered again.
    kills: Vec<(u64, u64)>,
    /// By key.
    sent: HashMap<&'a str, SentMessage<'a>>,
    /// Gateways that ended without a complete drain, with the time.
    deaths: Vec<(String, u64)>,
    /// Gateways that were stopped or cut off: from, to, name.
    silences: Vec<(u64, u64, String)>,
}

impl<'a> RedisLosses<'a> {
    pub fn new(evidence: &'a Evidence) -> Self {
        let kills = evidence.faults().into_iter().filter(|(.., fault)| fault.loses_redis_writes());
        let kills = kills.filter(|_| !evidence.fsync_always);
        let kills = kills.map(|(kill, back, _)| (kill.saturating_sub(UNSYNCED_NANOS_MAX), back)).collect();
        let is_silent = |fault: &Fault| matches!(fault, Fault::GatewayStop { .. } | Fault::BadNetwork { .. });
        let silences = evidence.faults().into_iter().filter(|(.., fault)| is_silent(fault));
        let silences = silences.map(|(from, to, fault)| (from, to, fault.part())).collect();
        let (mut sent, mut deaths) = (HashMap::<&str, SentMessage<'_>>::new(), Vec::new());
        let mut nodes: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for event in &evidence.events {
            let (at, process) = (event.at, event.process.as_str());
            match (&event.op, event.kind) {
                (HistoryOp::Register { node, .. }, OpStatus::Ok) => {
                    nodes.insert(process, node.as_deref());
                }
                (HistoryOp::Send { key, .. }, OpStatus::Invoke) => {
                    sent.entry(key).or_insert(SentMessage { sent_at: at, stored_by: u64::MAX, acked: None });
                }
                (HistoryOp::Send { key, .. } | HistoryOp::Message { key, .. }, OpStatus::Ok) => {
                    let message = sent.entry(key).or_insert(SentMessage { sent_at: at, stored_by: at, acked: None });
                    message.stored_by = message.stored_by.min(at);
                    if matches!(event.op, HistoryOp::Send { .. }) {
                        let node = nodes.get(process).copied().flatten();
                        message.acked = Some(AckedWrite { at, session: (process, event.session), node });
                    }
                }
                // The line port echoes a message before its outcome is certain.
                (HistoryOp::Send { key, .. }, OpStatus::Info) => {
                    sent.entry(key).and_modify(|message| message.acked = None);
                }
                (HistoryOp::Fault(fault @ Fault::GatewayKill { .. }), OpStatus::Invoke) => {
                    deaths.push((fault.part(), at))
                }
                (HistoryOp::Exit { node, code, .. }, _) if *code != Some(0) => deaths.push((node.clone(), at)),
                _ => {}
            }
        }
        Self { kills, sent, deaths, silences }
    }

    /// Returns true if Redis may have lost the message after it was first stored, so that it may have a new seq.
    pub fn may_be_renumbered(&self, key: &str) -> bool {
        let is_hit = |message: &SentMessage<'_>| {
            self.kills.iter().any(|kill| overlap(*kill, (message.sent_at, message.stored_by)))
        };
        self.sent.get(key).is_some_and(is_hit)
    }

    /// Returns true if Redis may have lost the message since it was delivered at `delivered_at`. In an epoch that began
    /// at `epoch_began`, the message was written after the kill before that.
    pub fn may_be_lost_since(&self, key: &str, delivered_at: u64, epoch_began: Option<u64>) -> bool {
        let returns = self.kills.iter().map(|(_, back)| *back);
        let before = returns.filter(|back| epoch_began.is_some_and(|began| *back <= began));
        let since = before.max().map_or(0, |back| back + 1);
        let sent_at = self.sent.get(key).map_or(delivered_at, |message| message.sent_at);
        self.kills.iter().any(|kill| overlap(*kill, (sent_at.max(since), delivered_at)))
    }

    /// Returns the time of the first request and the ack of an acked message.
    pub fn acked(&self, key: &str) -> Option<(u64, AckedWrite<'a>)> {
        let message = self.sent.get(key)?;
        Some((message.sent_at, message.acked?))
    }

    /// Returns true if Redis may have lost the message and its gateway died before the republish.
    pub fn may_be_lost_with_gateway(&self, key: &str) -> bool {
        let is_dead = |pending: &PendingRepublish<'_>| {
            let mut deaths = self.deaths.iter().filter(|(node, _)| node == pending.node);
            deaths.any(|(_, at)| (pending.acked_at..=pending.republished_at).contains(at))
        };
        self.pending_republishes(key).iter().any(is_dead)
    }

    /// Returns true if Redis may have lost the message and accepted writes before its gateway republished it.
    pub fn may_be_republished_late(&self, key: &str) -> bool {
        let is_silent = |pending: &PendingRepublish<'_>| {
            let mut silences = self.silences.iter().filter(|(.., node)| node == pending.node);
            silences.any(|(from, to, _)| {
                *from <= pending.republished_at && to.saturating_sub(GATEWAY_EXPIRY_NANOS_MIN) >= pending.redis_back_at
            })
        };
        self.pending_republishes(key).iter().any(is_silent)
    }

    /// Returns one entry for each kill that may have lost an acked message. On the line port the gateway is unknown, so
    /// each candidate gets an entry.
    fn pending_republishes(&self, key: &str) -> Vec<PendingRepublish<'_>> {
        let Some((message, acked)) = self.sent.get(key).and_then(|message| Some((message, message.acked?))) else {
            return Vec::new();
        };
        let named = self.deaths.iter().map(|(node, _)| node).chain(self.silences.iter().map(|(.., node)| node));
        let nodes: BTreeSet<&str> = named.map(String::as_str).collect();
        let mut pending = Vec::new();
        for node in nodes.into_iter().filter(|node| acked.node.is_none_or(|acker| acker == *node)) {
            let mut written = (message.sent_at, message.stored_by.max(acked.at));
            for kill in &self.kills {
                if !overlap(*kill, written) {
                    continue;
                }
                let redis_back_at = kill.1;
                let republished_at = self.republished_at(node, redis_back_at);
                // The republish is a new write, which the next kill may lose.
                written.1 = written.1.max(republished_at);
                pending.push(PendingRepublish { node, acked_at: acked.at, redis_back_at, republished_at });
            }
        }
        pending
    }

    /// Returns the time at which a gateway is known to have republished everything: its first ack of a newer message
    /// after Redis came back.
    fn republished_at(&self, node: &str, redis_back_at: u64) -> u64 {
        let newer = self.sent.values().filter(|message| message.sent_at > redis_back_at);
        let acks = newer.filter_map(|message| message.acked).filter(|acked| acked.node == Some(node));
        acks.map(|acked| acked.at).min().unwrap_or(u64::MAX)
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

#[cfg(test)]
mod tests {
    use super::super::sample::{line, registered, send, with};
    use super::*;

    /// A member on g1 sends `k20`, `k31` and `k60` in these seconds; Redis is killed in second 21.
    fn with_redis_kill() -> Evidence {
        let mut evidence = Evidence::default();
        for second in [20, 31, 60] {
            let key = format!("k{second}");
            let request = line(second, "ann", 1, OpStatus::Invoke, send(None)(&key));
            evidence = with(with(evidence, request), line(second, "ann", 1, OpStatus::Ok, send(Some(second))(&key)));
        }
        evidence = with(evidence, line(1, "ann", 1, OpStatus::Ok, registered("ann", "g1")));
        let kill = HistoryOp::Fault(Fault::RedisKill);
        with(
            with(evidence, line(21, "bench", 0, OpStatus::Invoke, kill.clone())),
            line(22, "bench", 0, OpStatus::Ok, kill),
        )
    }

    fn with_gateway_kill(second: u64, gateway: usize) -> Evidence {
        with(
            with_redis_kill(),
            line(second, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(Fault::GatewayKill { gateway })),
        )
    }

    #[test]
    fn kill_may_lose_only_recent_writes() {
        let mut evidence = with_redis_kill();
        assert!(RedisLosses::new(&evidence).may_be_renumbered("k20"));
        assert!(!RedisLosses::new(&evidence).may_be_renumbered("k31"));
        assert!(!RedisLosses::new(&evidence).may_be_renumbered("k60"));
        evidence.fsync_always = true;
        assert!(!RedisLosses::new(&evidence).may_be_renumbered("k20"));
    }

    #[test]
    fn second_kill_voids_republished_message() {
        let evidence = with_redis_kill();
        let losses = RedisLosses::new(&evidence);
        assert!(losses.may_be_lost_since("k20", 20 * SECOND, None));
        assert!(losses.may_be_lost_since("k20", 25 * SECOND, Some(SECOND)), "the delivery was late");
        assert!(!losses.may_be_lost_since("k20", 25 * SECOND, Some(24 * SECOND)));
        let kill = line(27, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(Fault::RedisKill));
        let evidence = with(evidence, kill);
        assert!(RedisLosses::new(&evidence).may_be_lost_since("k20", 25 * SECOND, Some(24 * SECOND)));
    }

    #[test]
    fn late_ack_may_follow_a_lost_write() {
        let mut evidence = with_redis_kill();
        let is_ack =
            |event: &&mut crate::history::HistoryEvent| event.kind == OpStatus::Ok && event.op == send(Some(20))("k20");
        evidence.events.iter_mut().filter(is_ack).for_each(|event| event.at = 30 * SECOND);
        assert!(RedisLosses::new(&evidence).may_be_renumbered("k20"));
    }

    #[test]
    fn gateway_death_loses_message_before_republish() {
        assert!(!RedisLosses::new(&with_redis_kill()).may_be_lost_with_gateway("k20"));
        for (second, gateway, is_lost) in [(19, 0, false), (20, 0, true), (30, 0, true), (32, 0, false), (25, 1, false)]
        {
            let evidence = with_gateway_kill(second, gateway);
            assert_eq!(RedisLosses::new(&evidence).may_be_lost_with_gateway("k20"), is_lost, "{second} {gateway}");
        }
        let evidence = with_gateway_kill(60, 0);
        assert!(!RedisLosses::new(&evidence).may_be_lost_with_gateway("k60"), "Redis still has it");
        let exit = HistoryOp::Exit { node: "g1".to_owned(), code: Some(2), requested: true };
        let evidence = with(with_redis_kill(), line(25, "bench", 0, OpStatus::Ok, exit));
        assert!(RedisLosses::new(&evidence).may_be_lost_with_gateway("k20"));
    }

    #[test]
    fn only_expired_gateway_republishes_late() {
        assert!(!RedisLosses::new(&with_redis_kill()).may_be_republished_late("k20"));
        for (from, to, gateway, is_late) in
            [(10, 30, 0, false), (23, 40, 0, true), (23, 40, 1, false), (32, 60, 0, false)]
        {
            let stop = HistoryOp::Fault(Fault::GatewayStop { gateway });
            let stopped = with(with_redis_kill(), line(from, "bench", 0, OpStatus::Invoke, stop.clone()));
            let evidence = with(stopped, line(to, "bench", 0, OpStatus::Ok, stop));
            assert_eq!(RedisLosses::new(&evidence).may_be_republished_late("k20"), is_late, "{from} {to}");
            assert!(!RedisLosses::new(&evidence).may_be_republished_late("k60"));
        }
    }

    #[test]
    fn line_port_retraction_removes_ack() {
        let evidence = with(with_redis_kill(), line(22, "ann", 1, OpStatus::Info, send(None)("k20")));
        assert!(RedisLosses::new(&with_redis_kill()).acked("k20").is_some());
        assert!(RedisLosses::new(&evidence).acked("k20").is_none());
    }

    #[test]
    fn second_crash_may_lose_republished_message() {
        let again = HistoryOp::Fault(Fault::RedisCrash);
        for (second, is_lost) in [(33, true), (40, false)] {
            let evidence =
                with(with_gateway_kill(second + 2, 0), line(second, "bench", 0, OpStatus::Invoke, again.clone()));
            let evidence = with(evidence, line(second + 1, "bench", 0, OpStatus::Ok, again.clone()));
            assert_eq!(RedisLosses::new(&evidence).may_be_lost_with_gateway("k20"), is_lost, "{second}");
        }
    }
}
