//! Stillness: no leave is shown for a member that returns at once, as in a rolling restart. A leave is right if the
//! member was away for longer than leaves are delayed, or if its gateway may have counted as dead.
//!
//! Only WebSocket connections are judged: a line session ends with its connection, so its leaves are real.

use super::presence::{OnlineSpan, is_lost, online_spans};
use super::{Evidence, Finding, SECOND};
use crate::history::{HistoryEvent, HistoryOp, OpStatus};

/// Minimum delay of a leave: 5 s after the end of the connection, less half a second for differences in time.
const LEAVE_DELAY_NANOS_MIN: u64 = 9 * SECOND / 2;
/// Maximum time until a leave is received; longer than any gateway is cut off.
const LEAVE_ARRIVAL_NANOS_MAX: u64 = 60 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (spans, faults) = (online_spans(evidence), evidence.faults());
    let is_end = |event: &&HistoryEvent| event.op == HistoryOp::Phase { name: "leave".to_owned() };
    // Members leave shortly before the phase is recorded.
    let end = evidence.events.iter().rfind(is_end).map_or(u64::MAX, |event| event.at.saturating_sub(20 * SECOND));
    // Each return is a leave that must not be shown.
    finding.judged += evidence.events.iter().filter(|event| is_return(event)).count();
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok && event.at < end) {
        let HistoryOp::Left { room, nicks } = &event.op else { continue };
        for nick in nicks {
            let of_nick: Vec<&OnlineSpan<'_>> = spans.iter().filter(|span| span.nick == nick).collect();
            if of_nick.is_empty() || of_nick.iter().any(|span| span.is_rival) {
                continue;
            }
            finding.judged += 1;
            let before = of_nick.iter().rfind(|span| span.from <= event.at);
            let is_dead = before.is_none_or(|span| is_lost(span, event.at, &faults));
            if !was_away(&of_nick, event.at) && !is_dead {
                let at = event.at / SECOND;
                finding.broken.push(format!("{room}: {} received at {at} s that {nick} left", event.process));
            }
        }
    }
    finding
}

fn is_return(event: &HistoryEvent) -> bool {
    event.kind == OpStatus::Ok && matches!(event.op, HistoryOp::Register { resumed: true, .. })
}

/// Returns true if an absence of the member explains a leave at this time.
fn was_away(spans: &[&OnlineSpan<'_>], at: u64) -> bool {
    spans.iter().enumerate().any(|(number, span)| {
        let back = spans.get(number + 1).map_or(u64::MAX, |next| next.from);
        let away = back.saturating_sub(span.to);
        away >= LEAVE_DELAY_NANOS_MIN
            && span.to.saturating_add(LEAVE_DELAY_NANOS_MIN) <= at
            && back.saturating_add(LEAVE_ARRIVAL_NANOS_MAX) >= at
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn violations_with_leave_at(second: u64, mut evidence: Evidence) -> usize {
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Left { .. }));
        let left = HistoryOp::Left { room: "#a".to_owned(), nicks: vec!["ann".to_owned()] };
        let changed = sample::with(evidence, sample::line(second, "bob", 1, OpStatus::Ok, left));
        let finding = check(&changed);
        assert_eq!(finding.judged, 2, "the leave and the return of ann");
        finding.broken.len()
    }

    #[test]
    fn checker_finds_leave_of_present_member() {
        assert_eq!(violations_with_leave_at(5, sample::good()), 1, "before anything happened");
        assert_eq!(violations_with_leave_at(16, sample::good()), 0, "6 s after the kill of her gateway");
    }

    #[test]
    fn checker_finds_leave_despite_quick_return() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Fault(_)));
        for event in evidence.events.iter_mut().filter(|event| event.at == 24 * SECOND) {
            event.at = 13 * SECOND;
        }
        evidence.events.sort_by_key(|event| event.at);
        assert_eq!(violations_with_leave_at(15, evidence), 1);
    }
}
