//! Stillness: no leave is shown for a member that was away for a moment only, as in a rolling restart. A leave may be
//! shown for a member that was away for longer than leaves are held back, or whose gateway may have counted as dead.
//!
//! Only WebSocket connections are judged: the line port begins anew each time, and its leaves are real.

use super::presence::{OnlineSpan, is_lost, stays};
use super::{Evidence, Finding, SECOND};
use crate::history::{HistoryEvent, HistoryOp, OpStatus};

/// A leave is shown 5 s after the connection ended; clocks and connections have half a second.
const HELD_BACK: u64 = 9 * SECOND / 2;
/// The longest that a shown leave may take to be heard: as long as a member's gateway is cut off, and more.
const LATEST: u64 = 60 * SECOND;

pub(super) fn check(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let (stays, faults) = (stays(evidence), evidence.faults());
    let is_end = |event: &&HistoryEvent| event.op == HistoryOp::Phase { name: "leave".to_owned() };
    // The goodbye is sent a little before it is noted.
    let end = evidence.events.iter().rfind(is_end).map_or(u64::MAX, |event| event.at.saturating_sub(20 * SECOND));
    // The returns that were not to be shown.
    finding.judged += evidence.events.iter().filter(|event| is_return(event)).count();
    for event in evidence.events.iter().filter(|event| event.kind == OpStatus::Ok && event.at < end) {
        let HistoryOp::Left { room, nicks } = &event.op else { continue };
        for nick in nicks {
            let of_nick: Vec<&OnlineSpan<'_>> = stays.iter().filter(|stay| stay.nick == nick).collect();
            if of_nick.is_empty() || of_nick.iter().any(|stay| stay.is_rival) {
                continue;
            }
            finding.judged += 1;
            let before = of_nick.iter().rfind(|stay| stay.from <= event.at);
            let is_dead = before.is_none_or(|stay| is_lost(stay, event.at, &faults));
            if !was_away(&of_nick, event.at) && !is_dead {
                let at = event.at / SECOND;
                finding.broken.push(format!("{room}: {} was told at {at} s that {nick} left", event.process));
            }
        }
    }
    finding
}

fn is_return(event: &HistoryEvent) -> bool {
    event.kind == OpStatus::Ok && matches!(event.op, HistoryOp::Register { resumed: true, .. })
}

/// Returns whether a member was away for long enough, and not too long ago.
fn was_away(stays: &[&OnlineSpan<'_>], at: u64) -> bool {
    stays.iter().enumerate().any(|(number, stay)| {
        let back = stays.get(number + 1).map_or(u64::MAX, |next| next.from);
        let away = back.saturating_sub(stay.to);
        away >= HELD_BACK && stay.to.saturating_add(HELD_BACK) <= at && back.saturating_add(LATEST) >= at
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn told(second: u64, mut evidence: Evidence) -> usize {
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Left { .. }));
        let left = HistoryOp::Left { room: "#a".to_owned(), nicks: vec!["ann".to_owned()] };
        let told = sample::with(evidence, sample::line(second, "bob", 1, OpStatus::Ok, left));
        let finding = check(&told);
        assert_eq!(finding.judged, 2, "that, and her return");
        finding.broken.len()
    }

    #[test]
    fn checker_finds_leave_of_present_member() {
        assert_eq!(told(5, sample::good()), 1, "before anything happened");
        assert_eq!(told(16, sample::good()), 0, "6 s after her gateway was killed");
    }

    #[test]
    fn checker_finds_leave_despite_quick_return() {
        let mut evidence = sample::good();
        evidence.events.retain(|event| !matches!(event.op, HistoryOp::Fault(_)));
        for event in evidence.events.iter_mut().filter(|event| event.at == 24 * SECOND) {
            event.at = 13 * SECOND;
        }
        evidence.events.sort_by_key(|event| event.at);
        assert_eq!(told(15, evidence), 1);
    }
}
