//! Presence: users of a killed gateway are offline, or back on another gateway, within 12 s without Redis outages. A
//! user is recorded as lost only if its gateway was dead, stopped or cut off for at least the detection time.
//!
//! Only WebSocket connections are judged, because the line port does not show its gateway.

use std::collections::HashMap;

use super::{Evidence, Finding, RecordedLeave, SECOND, SessionHistory};
use crate::history::{HistoryOp, OpStatus};
use crate::plan::Fault;

/// Time limit for the users of a killed gateway to go offline.
const OFFLINE_NANOS_MAX: u64 = 12 * SECOND;
/// Minimum silence after which a gateway may count as dead. Its heartbeat counter must not change for 8 s, of which one
/// second may have passed before. Also, one beat may have been in flight.
const DETECTION_NANOS_MIN: u64 = 6 * SECOND;
/// Maximum time from the start of a silence to a leave that it causes.
const LEAVE_DELAY_NANOS_MAX: u64 = 60 * SECOND;

/// A connection, from its registration to its end.
pub(super) struct OnlineSpan<'a> {
    pub(super) session: SessionHistory<'a>,
    pub(super) nick: &'a str,
    pub(super) node: &'a str,
    pub(super) from: u64,
    pub(super) to: u64,
    /// Empty while the connection lasts.
    pub(super) end_reason: &'a str,
    pub(super) is_rival: bool,
}

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (spans, faults) = (online_spans(evidence), evidence.faults());
    for (killed, _, fault) in faults.iter().filter(|(_, _, fault)| matches!(fault, Fault::GatewayKill { .. })) {
        let deadline = deadline(*killed, &faults);
        let is_there = |span: &&OnlineSpan<'_>| is_on(span.node, *fault) && span.from < *killed && span.to >= *killed;
        // A user that resumed on another gateway was never offline.
        let is_back = |span: &OnlineSpan<'_>| {
            spans.iter().any(|other| other.nick == span.nick && other.from > *killed && other.from <= deadline)
        };
        for span in spans.iter().filter(is_there) {
            finding.judged += 1;
            if is_back(span) {
                continue;
            }
            let is_leave =
                |d: &&RecordedLeave| d.nick == span.nick && d.at + SECOND / 10 >= *killed && d.at <= deadline;
            if !evidence.departures.iter().any(|departure| is_leave(&departure)) {
                let after = (deadline - killed) / SECOND;
                finding.broken.push(format!("{} on {} not offline {after} s after the kill", span.nick, span.node));
            }
        }
    }
    for lost in &evidence.departures {
        let latest = spans.iter().filter(|span| span.nick == lost.nick && span.from <= lost.at).max_by_key(|s| s.from);
        let Some(span) = latest else { continue };
        finding.judged += 1;
        if lost.reason == "gateway_lost" && !is_lost(span, lost.at, &faults) {
            let at = lost.at / SECOND;
            finding.broken.push(format!("{} recorded as lost at {at} s, but {} was not dead", lost.nick, span.node));
        }
    }
    finding
}

/// Returns true if the gateway of a connection may count as dead at that moment: killed, stopped or cut off for long
/// enough.
pub(super) fn is_lost(span: &OnlineSpan<'_>, at: u64, faults: &[(u64, u64, Fault)]) -> bool {
    let is_reason = |(from, to, fault): &(u64, u64, Fault)| {
        let is_dead = matches!(fault, Fault::GatewayKill { .. } | Fault::GatewayRestart { .. });
        let duration = if is_dead { u64::MAX } else { to - from };
        is_on(span.node, *fault)
            && duration >= DETECTION_NANOS_MIN
            && from + DETECTION_NANOS_MIN <= at
            && at <= from + LEAVE_DELAY_NANOS_MAX
    };
    faults.iter().any(is_reason)
}

fn is_on(node: &str, fault: Fault) -> bool {
    fault.gateway().is_some_and(|gateway| node == format!("g{}", gateway + 1))
}

/// Returns the time limit for users of a gateway killed at `killed`; an outage of Redis before the limit restarts it.
fn deadline(killed: u64, faults: &[(u64, u64, Fault)]) -> u64 {
    let mut deadline = killed + OFFLINE_NANOS_MAX;
    for (from, to, _) in faults.iter().filter(|(_, _, fault)| fault.interrupts_redis()) {
        if *from <= deadline && *to >= killed {
            deadline = deadline.max(to.saturating_add(OFFLINE_NANOS_MAX));
        }
    }
    deadline
}

pub(super) fn online_spans(evidence: &Evidence) -> Vec<OnlineSpan<'_>> {
    let (mut spans, mut open) = (Vec::<OnlineSpan<'_>>::new(), HashMap::new());
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let session = (event.process.as_str(), event.session);
        match &event.op {
            HistoryOp::Register { nick, node: Some(node), .. } => {
                open.insert(session, spans.len());
                let is_rival = event.process.starts_with("rival");
                spans.push(OnlineSpan { session, nick, node, from: event.at, to: u64::MAX, end_reason: "", is_rival });
            }
            HistoryOp::End { reason } => {
                if let Some(at) = open.remove(&session) {
                    (spans[at].to, spans[at].end_reason) = (event.at, reason);
                }
            }
            _ => {}
        }
    }
    spans
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
