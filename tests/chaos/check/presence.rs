//! Presence: users of a killed gateway are offline within 12 s of Redis answering or back on another, and no user is
//! called lost unless the user's gateway was dead, frozen or cut off for at least the detection time.
//!
//! Only WebSocket connections are judged: the line port does not show which gateway it is.

use std::collections::HashMap;

use super::{Evidence, Finding, RecordedLeave, SECOND, SessionHistory};
use crate::history::{HistoryOp, OpStatus};
use crate::plan::Fault;

/// A killed gateway's users are offline by then.
const AT_MOST: u64 = 12 * SECOND;
/// A gateway that was silent for less than this lives. Its counter must stand still for 8 s, one of which may have
/// passed already, and a beat may have been on its way.
const AT_LEAST: u64 = 6 * SECOND;
/// The longest after the beginning of such a silence that a leave may still come from it.
const LATEST: u64 = 60 * SECOND;

/// A connection: from the nickname to its end.
pub(super) struct OnlineSpan<'a> {
    pub(super) session: SessionHistory<'a>,
    pub(super) nick: &'a str,
    pub(super) node: &'a str,
    pub(super) from: u64,
    pub(super) to: u64,
    /// The reason of its end; empty while it lasts.
    pub(super) why: &'a str,
    pub(super) is_rival: bool,
}

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (stays, faults) = (stays(evidence), evidence.faults());
    for (killed, _, fault) in faults.iter().filter(|(_, _, fault)| matches!(fault, Fault::GatewayKill { .. })) {
        let deadline = deadline(*killed, &faults);
        let is_there = |stay: &&OnlineSpan<'_>| is_on(stay.node, *fault) && stay.from < *killed && stay.to >= *killed;
        // A user that resumed on another gateway was never offline.
        let is_back = |stay: &OnlineSpan<'_>| {
            stays.iter().any(|other| other.nick == stay.nick && other.from > *killed && other.from <= deadline)
        };
        for stay in stays.iter().filter(is_there) {
            finding.judged += 1;
            if is_back(stay) {
                continue;
            }
            let went = |d: &&RecordedLeave| d.nick == stay.nick && d.at + SECOND / 10 >= *killed && d.at <= deadline;
            if !evidence.departures.iter().any(|departure| went(&departure)) {
                let after = (deadline - killed) / SECOND;
                finding.broken.push(format!("{} of {} not offline {after} s after the kill", stay.nick, stay.node));
            }
        }
    }
    for lost in &evidence.departures {
        let latest = stays.iter().filter(|stay| stay.nick == lost.nick && stay.from <= lost.at).max_by_key(|s| s.from);
        let Some(stay) = latest else { continue };
        finding.judged += 1;
        if lost.reason == "gateway_lost" && !is_lost(stay, lost.at, &faults) {
            let at = lost.at / SECOND;
            finding.broken.push(format!("{} called lost at {at} s, but {} was not", lost.nick, stay.node));
        }
    }
    finding
}

/// Returns whether the gateway of a connection may be called lost at that moment: dead, frozen or cut off for long
/// enough.
pub(super) fn is_lost(stay: &OnlineSpan<'_>, at: u64, faults: &[(u64, u64, Fault)]) -> bool {
    let is_reason = |(from, to, fault): &(u64, u64, Fault)| {
        let is_dead = matches!(fault, Fault::GatewayKill { .. } | Fault::GatewayRestart { .. });
        let lasts = if is_dead { u64::MAX } else { to - from };
        is_on(stay.node, *fault) && lasts >= AT_LEAST && from + AT_LEAST <= at && at <= from + LATEST
    };
    faults.iter().any(is_reason)
}

fn is_on(node: &str, fault: Fault) -> bool {
    fault.gateway().is_some_and(|gateway| node == format!("g{}", gateway + 1))
}

/// Twelve seconds without a silence of Redis that began before they were over.
fn deadline(killed: u64, faults: &[(u64, u64, Fault)]) -> u64 {
    let mut deadline = killed + AT_MOST;
    for (from, to, _) in faults.iter().filter(|(_, _, fault)| fault.silences_redis()) {
        if *from <= deadline && *to >= killed {
            deadline = deadline.max(to.saturating_add(AT_MOST));
        }
    }
    deadline
}

pub(super) fn stays(evidence: &Evidence) -> Vec<OnlineSpan<'_>> {
    let (mut stays, mut open) = (Vec::<OnlineSpan<'_>>::new(), HashMap::new());
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let session = (event.process.as_str(), event.session);
        match &event.op {
            HistoryOp::Register { nick, node: Some(node), .. } => {
                open.insert(session, stays.len());
                let is_rival = event.process.starts_with("rival");
                stays.push(OnlineSpan { session, nick, node, from: event.at, to: u64::MAX, why: "", is_rival });
            }
            HistoryOp::End { why } => {
                if let Some(at) = open.remove(&session) {
                    (stays[at].to, stays[at].why) = (event.at, why);
                }
            }
            _ => {}
        }
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn checker_finds_users_online_after_deadline() {
        let mut evidence = sample::good();
        evidence.departures[0].at += 4 * SECOND;
        assert_eq!(check(&evidence).broken.len(), 1, "13 s after the kill");
        evidence.departures.clear();
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn presence_deadline_waits_for_redis() {
        let mut evidence = sample::good();
        evidence.departures[0].at += 4 * SECOND;
        for (second, kind) in [(14, OpStatus::Invoke), (16, OpStatus::Ok)] {
            evidence =
                sample::with(evidence, sample::line(second, "bench", 0, kind, HistoryOp::Fault(Fault::RedisStop)));
        }
        assert_eq!(check(&evidence).broken, Vec::<String>::new());
    }

    #[test]
    fn checker_finds_loss_during_redis_outage() {
        let mut evidence = sample::good();
        let reason = "gateway_lost".to_owned();
        evidence.departures.push(RecordedLeave { at: 45 * SECOND, nick: "bob".to_owned(), reason });
        assert_eq!(check(&evidence).broken.len(), 1);
    }

    #[test]
    fn checker_finds_premature_gateway_loss() {
        let mut evidence = sample::good();
        evidence.departures[0].at = 14 * SECOND;
        assert_eq!(check(&evidence).broken.len(), 1);
    }
}
