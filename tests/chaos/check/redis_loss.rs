//! What Redis may have forgotten when it was killed, and whether the gateways that put it back lived to do so.
//!
//! Used by the checkers that compare what was said with what is there in the end. What was written in the last seconds
//! before a kill is written again afterwards, so it may have another number and another neighbour; that is all. It is
//! lost only with the gateway that acked it, and late only with a gateway that was silent for so long that it counted
//! as dead.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Evidence, SECOND, SessionHistory};
use crate::history::{HistoryOp, OpStatus};
use crate::plan::Fault;

/// Written once a second, postponed by at most another, and a moment for the disk.
const UNWRITTEN: u64 = 5 * SECOND / 2;
/// Redis opens without a gateway that has said nothing for 10 s since; clocks have half a second.
const OPENS: u64 = 19 * SECOND / 2;

/// The facts about one message, by its key.
#[derive(Debug, Clone, Copy)]
struct SentMessage<'a> {
    /// The time at which it was asked for first.
    asked: u64,
    /// The time of the first event that proves that it is written.
    known: u64,
    acked: Option<AckedWrite<'a>>,
}

/// The ack of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedWrite<'a> {
    pub at: u64,
    /// Over which session.
    pub session: SessionHistory<'a>,
    /// By which gateway; the line port does not show.
    pub node: Option<&'a str>,
}

impl AckedWrite<'_> {
    /// Returns whether it is uncertain that one gateway sent both acks.
    pub fn may_be_elsewhere(&self, other: &AckedWrite<'_>) -> bool {
        (self.session, self.node) != (other.session, other.node)
    }
}

/// A message that a gateway owed to a Redis that may have forgotten it.
struct OwedMessages<'a> {
    node: &'a str,
    acked: u64,
    /// The time at which Redis was back.
    back: u64,
    /// The time at which the gateway is known to have put back everything.
    whole: u64,
}

/// All of it.
#[derive(Debug)]
pub struct Forgetting<'a> {
    /// The time at which Redis wrote what it may have forgotten: from, and until it was back.
    kills: Vec<(u64, u64)>,
    /// By key.
    said: HashMap<&'a str, SentMessage<'a>>,
    /// When a gateway ended without having been told to, or without having had the time: by name.
    deaths: Vec<(String, u64)>,
    /// When a gateway stood still or was cut off: from, to, its name.
    silences: Vec<(u64, u64, String)>,
}

impl<'a> Forgetting<'a> {
    pub fn new(evidence: &'a Evidence) -> Self {
        let kills = evidence.faults().into_iter().filter(|(.., fault)| fault.makes_redis_forget());
        let kills = kills.filter(|_| !evidence.fsync_always);
        let kills = kills.map(|(kill, back, _)| (kill.saturating_sub(UNWRITTEN), back)).collect();
        let is_silent = |fault: &Fault| matches!(fault, Fault::GatewayStop { .. } | Fault::BadNetwork { .. });
        let silences = evidence.faults().into_iter().filter(|(.., fault)| is_silent(fault));
        let silences = silences.map(|(from, to, fault)| (from, to, fault.part())).collect();
        let (mut said, mut deaths) = (HashMap::<&str, SentMessage<'_>>::new(), Vec::new());
        let mut nodes: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for event in &evidence.events {
            let (at, process) = (event.at, event.process.as_str());
            match (&event.op, event.kind) {
                (HistoryOp::Register { node, .. }, OpStatus::Ok) => {
                    nodes.insert(process, node.as_deref());
                }
                (HistoryOp::Send { key, .. }, OpStatus::Invoke) => {
                    said.entry(key).or_insert(SentMessage { asked: at, known: u64::MAX, acked: None });
                }
                (HistoryOp::Send { key, .. } | HistoryOp::Message { key, .. }, OpStatus::Ok) => {
                    let known = said.entry(key).or_insert(SentMessage { asked: at, known: at, acked: None });
                    known.known = known.known.min(at);
                    if matches!(event.op, HistoryOp::Send { .. }) {
                        let node = nodes.get(process).copied().flatten();
                        known.acked = Some(AckedWrite { at, session: (process, event.session), node });
                    }
                }
                // The line port shows what was said before it is known whether it stays.
                (HistoryOp::Send { key, .. }, OpStatus::Info) => {
                    said.entry(key).and_modify(|said| said.acked = None);
                }
                (HistoryOp::Fault(fault @ Fault::GatewayKill { .. }), OpStatus::Invoke) => {
                    deaths.push((fault.part(), at))
                }
                (HistoryOp::Exit { node, code, .. }, _) if *code != Some(0) => deaths.push((node.clone(), at)),
                _ => {}
            }
        }
        Self { kills, said, deaths, silences }
    }

    /// True if Redis may have forgotten a message after it was first known to be there, so that it may have become
    /// another number.
    pub fn holds(&self, key: &str) -> bool {
        let is_hit = |said: &SentMessage<'_>| self.kills.iter().any(|kill| meet(*kill, (said.asked, said.known)));
        self.said.get(key).is_some_and(is_hit)
    }

    /// True if what was told then may be void: Redis may have forgotten it since. In an epoch that was first heard of
    /// in `begun` it was written after the kill before that.
    pub fn may_be_void(&self, key: &str, told: u64, begun: Option<u64>) -> bool {
        let before = self.kills.iter().map(|(_, back)| *back).filter(|back| begun.is_some_and(|begun| *back <= begun));
        let since = before.max().map_or(0, |back| back + 1);
        let asked = self.said.get(key).map_or(told, |said| said.asked);
        self.kills.iter().any(|kill| meet(*kill, (asked.max(since), told)))
    }

    /// The time at which it was asked for, of a message that was acked, and the ack.
    pub fn acked(&self, key: &str) -> Option<(u64, AckedWrite<'a>)> {
        let said = self.said.get(key)?;
        Some((said.asked, said.acked?))
    }

    /// Returns whether Redis may have forgotten a message whose gateway then died before it had put it back.
    pub fn died_with_its_gateway(&self, key: &str) -> bool {
        let is_dead = |owed: &OwedMessages<'_>| {
            let mut deaths = self.deaths.iter().filter(|(node, _)| node == owed.node);
            deaths.any(|(_, at)| (owed.acked..=owed.whole).contains(at))
        };
        self.owed(key).iter().any(is_dead)
    }

    /// Returns whether Redis may have forgotten a message and opened again without the gateway that was to put it back.
    pub fn is_late(&self, key: &str) -> bool {
        let is_silent = |owed: &OwedMessages<'_>| {
            let mut silences = self.silences.iter().filter(|(.., node)| node == owed.node);
            silences.any(|(from, to, _)| *from <= owed.whole && to.saturating_sub(OPENS) >= owed.back)
        };
        self.owed(key).iter().any(is_silent)
    }

    /// Each time that Redis may have forgotten an acked message; for each gateway that it may be, on the line port.
    fn owed(&self, key: &str) -> Vec<OwedMessages<'_>> {
        let Some((said, acked)) = self.said.get(key).and_then(|said| Some((said, said.acked?))) else {
            return Vec::new();
        };
        let named = self.deaths.iter().map(|(node, _)| node).chain(self.silences.iter().map(|(.., node)| node));
        let nodes: BTreeSet<&str> = named.map(String::as_str).collect();
        let mut owed = Vec::new();
        for node in nodes.into_iter().filter(|node| acked.node.is_none_or(|acker| acker == *node)) {
            let mut written = (said.asked, said.known.max(acked.at));
            for kill in &self.kills {
                if !meet(*kill, written) {
                    continue;
                }
                let back = kill.1;
                let whole = self.is_whole(node, back);
                // From here on it is as if it had been said again.
                written.1 = written.1.max(whole);
                owed.push(OwedMessages { node, acked: acked.at, back, whole });
            }
        }
        owed
    }

    /// When a gateway is known to have put back everything, after Redis came back then: it acks something new.
    fn is_whole(&self, node: &str, back: u64) -> u64 {
        let newer = self.said.values().filter(|said| said.asked > back).filter_map(|said| said.acked);
        newer.filter(|acked| acked.node == Some(node)).map(|acked| acked.at).min().unwrap_or(u64::MAX)
    }
}

fn meet(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

#[cfg(test)]
mod tests {
    use super::super::sample::{line, registered, send, with};
    use super::*;

    /// A member on g1 sends `k` in second 20 and Redis is killed in 21; says `new` in 31 and something else at the end.
    fn killed() -> Evidence {
        let mut evidence = Evidence::default();
        for second in [20, 31, 60] {
            let key = format!("k{second}");
            let asked = line(second, "ann", 1, OpStatus::Invoke, send(None)(&key));
            evidence = with(with(evidence, asked), line(second, "ann", 1, OpStatus::Ok, send(Some(second))(&key)));
        }
        evidence = with(evidence, line(1, "ann", 1, OpStatus::Ok, registered("ann", "g1")));
        let kill = HistoryOp::Fault(Fault::RedisKill);
        with(
            with(evidence, line(21, "bench", 0, OpStatus::Invoke, kill.clone())),
            line(22, "bench", 0, OpStatus::Ok, kill),
        )
    }

    fn dies(second: u64, gateway: usize) -> Evidence {
        with(killed(), line(second, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(Fault::GatewayKill { gateway })))
    }

    #[test]
    fn kill_may_lose_only_recent_writes() {
        let mut evidence = killed();
        assert!(Forgetting::new(&evidence).holds("k20"));
        assert!(!Forgetting::new(&evidence).holds("k31"));
        assert!(!Forgetting::new(&evidence).holds("k60"));
        evidence.fsync_always = true;
        assert!(!Forgetting::new(&evidence).holds("k20"));
    }

    #[test]
    fn second_kill_voids_republished_message() {
        let evidence = killed();
        let forgetting = Forgetting::new(&evidence);
        assert!(forgetting.may_be_void("k20", 20 * SECOND, None));
        assert!(forgetting.may_be_void("k20", 25 * SECOND, Some(SECOND)), "it was heard late");
        assert!(!forgetting.may_be_void("k20", 25 * SECOND, Some(24 * SECOND)));
        let kill = line(27, "bench", 0, OpStatus::Invoke, HistoryOp::Fault(Fault::RedisKill));
        let evidence = with(evidence, kill);
        assert!(Forgetting::new(&evidence).may_be_void("k20", 25 * SECOND, Some(24 * SECOND)));
    }

    #[test]
    fn late_ack_may_follow_a_lost_write() {
        let mut evidence = killed();
        let is_ack =
            |event: &&mut crate::history::HistoryEvent| event.kind == OpStatus::Ok && event.op == send(Some(20))("k20");
        evidence.events.iter_mut().filter(is_ack).for_each(|event| event.at = 30 * SECOND);
        assert!(Forgetting::new(&evidence).holds("k20"));
    }

    #[test]
    fn gateway_death_loses_message_before_republish() {
        assert!(!Forgetting::new(&killed()).died_with_its_gateway("k20"));
        for (second, gateway, is_lost) in [(19, 0, false), (20, 0, true), (30, 0, true), (32, 0, false), (25, 1, false)]
        {
            let evidence = dies(second, gateway);
            assert_eq!(Forgetting::new(&evidence).died_with_its_gateway("k20"), is_lost, "{second} {gateway}");
        }
        let evidence = dies(60, 0);
        assert!(!Forgetting::new(&evidence).died_with_its_gateway("k60"), "Redis has it");
        let gone = HistoryOp::Exit { node: "g1".to_owned(), code: Some(2), asked: true };
        let evidence = with(killed(), line(25, "bench", 0, OpStatus::Ok, gone));
        assert!(Forgetting::new(&evidence).died_with_its_gateway("k20"));
    }

    #[test]
    fn only_expired_gateway_republishes_late() {
        assert!(!Forgetting::new(&killed()).is_late("k20"));
        for (from, to, gateway, is_late) in
            [(10, 30, 0, false), (23, 40, 0, true), (23, 40, 1, false), (32, 60, 0, false)]
        {
            let stop = HistoryOp::Fault(Fault::GatewayStop { gateway });
            let stopped = with(killed(), line(from, "bench", 0, OpStatus::Invoke, stop.clone()));
            let evidence = with(stopped, line(to, "bench", 0, OpStatus::Ok, stop));
            assert_eq!(Forgetting::new(&evidence).is_late("k20"), is_late, "{from} {to}");
            assert!(!Forgetting::new(&evidence).is_late("k60"));
        }
    }

    #[test]
    fn line_port_retraction_removes_ack() {
        let evidence = with(killed(), line(22, "ann", 1, OpStatus::Info, send(None)("k20")));
        assert!(Forgetting::new(&killed()).acked("k20").is_some());
        assert!(Forgetting::new(&evidence).acked("k20").is_none());
    }

    #[test]
    fn second_crash_may_lose_republished_message() {
        let again = HistoryOp::Fault(Fault::RedisCrash);
        for (second, is_lost) in [(33, true), (40, false)] {
            let evidence = with(dies(second + 2, 0), line(second, "bench", 0, OpStatus::Invoke, again.clone()));
            let evidence = with(evidence, line(second + 1, "bench", 0, OpStatus::Ok, again.clone()));
            assert_eq!(Forgetting::new(&evidence).died_with_its_gateway("k20"), is_lost, "{second}");
        }
    }
}
