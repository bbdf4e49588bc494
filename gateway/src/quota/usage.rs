//! The exchange of usage between gateways, once in each heartbeat.
//!
//! A gateway reports what an address or user has spent since its last report once that is an eighth of a burst, the
//! largest shares first, and the connections of addresses that have an eighth of their number. It charges the reports
//! of the others to its own quotas. So the gateways together admit at most, in any time: the rate times that time, one
//! burst and an eighth for each gateway, and what one gateway admits until the others read it, about two beats.
//!
//! The text has one line for each quota: `address|user <key> <kind>=<units> ..`, with `seats=<connections>`.

use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use presence::model::{Incarnation, UsageKey};
use presence::registry::UsageReport;

use super::holder::Quota;
use super::limits::{LimitKind, LimitOwner, QuotaLimits};
use super::table::Quotas;

/// Maximum number of quotas in one report, about 6 KiB.
const REPORTED_MAX: usize = 64;
/// A quota is reported from this part of a limit on.
const REPORTED_PART: u64 = 8;
const SEATS: &str = "seats";

/// A quota that is to be reported.
struct ReportedQuota {
    quota: Arc<Quota>,
    /// Its largest share of a limit, in thousandths.
    share: u64,
}

impl Quotas {
    /// Returns the usage to report in this beat, and the id of the newest report that is known. Forgets the quotas
    /// that are over.
    pub fn take_report(&self, now: Instant) -> (String, String) {
        let (now_us, limits) = (self.rules.micros(now), self.rules.limits.get());
        let quotas = self.swept(now_us).into_iter();
        let mut reported: Vec<ReportedQuota> = quotas
            .map(|quota| ReportedQuota { share: largest_share(&quota, &limits), quota })
            .filter(|reported| reported.share > 0)
            .collect();
        reported.sort_by_key(|reported| std::cmp::Reverse(reported.share));
        reported.truncate(REPORTED_MAX);
        let mut text = String::new();
        for ReportedQuota { quota, .. } in reported {
            write_line(&mut text, &quota, &limits);
        }
        (text, self.newest_report.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Charges what the other gateways have reported.
    pub fn note_reports(&self, now: Instant, own: &Incarnation, reports: &[UsageReport]) {
        if let Some(newest) = reports.last() {
            self.newest_report.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&newest.id);
        }
        for UsageReport { by, text, .. } in reports.iter().filter(|report| report.by != *own) {
            // A newer version may write lines and words that are unknown here: they are skipped.
            for line in text.lines() {
                self.note_line(now, by, line);
            }
        }
    }

    fn note_line(&self, now: Instant, by: &Incarnation, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let owner = match words.next()? {
            "address" => LimitOwner::Address,
            "user" => LimitOwner::User,
            _ => return None,
        };
        let quota = self.reported(owner, UsageKey::from_store(words.next()?)?)?;
        let (now_us, limits) = (self.rules.micros(now), self.rules.limits.get());
        for (name, units) in words.filter_map(|word| word.split_once('=')) {
            let Ok(units) = units.parse::<u64>() else { continue };
            let mut state = quota.lock();
            if name == SEATS {
                state.note_elsewhere(by, u32::try_from(units).unwrap_or(u32::MAX), now_us);
            } else if let Some(kind) = LimitKind::ALL.into_iter().find(|kind| kind.slug() == name) {
                let spent = &mut state.activity.get_or_insert_default().spent[kind as usize];
                *spent = limits.of(owner).of(kind).charged(*spent, now_us, units);
            }
        }
        Some(())
    }
}

/// Returns the share of a limit that is worth a report, in thousandths; 0 if none is.
fn share(units: u64, whole: u64) -> u64 {
    let share = units.saturating_mul(1000) / whole.max(1);
    if units > 0 && share >= 1000 / REPORTED_PART { share } else { 0 }
}

fn largest_share(quota: &Quota, limits: &QuotaLimits) -> u64 {
    let state = quota.lock();
    let seats = if quota.owner == LimitOwner::Address { share(state.seats.into(), limits.seats as u64) } else { 0 };
    let spent = state.activity.iter().flat_map(|activity| {
        LimitKind::ALL.map(|kind| share(activity.unreported[kind as usize], limits.of(quota.owner).of(kind).burst()))
    });
    spent.fold(seats, u64::max)
}

/// Writes the line of a quota, and counts what is in it as reported.
fn write_line(text: &mut String, quota: &Quota, limits: &QuotaLimits) {
    let mut state = quota.lock();
    let _ = write!(text, "{} {}", quota.owner.slug(), quota.key);
    for kind in LimitKind::ALL {
        let Some(activity) = &mut state.activity else { break };
        let unreported = &mut activity.unreported[kind as usize];
        if share(*unreported, limits.of(quota.owner).of(kind).burst()) > 0 {
            let _ = write!(text, " {}={}", kind.slug(), std::mem::take(unreported));
        }
    }
    if share(state.seats.into(), limits.seats as u64) > 0 {
        let _ = write!(text, " {SEATS}={}", state.seats);
    }
    text.push('\n');
}
