//! The limits of one session: which request is refused as `rate_limited`, and for how long.
//!
//! [`SessionLimits`] are the settings, [`SessionAllowance`] the state of one session. A request is charged to several
//! limits together: a refused one is charged to none. Refused requests queue up: each is told the time behind those
//! that were refused before it, so a client that repeats each at its own time has all of them admitted.
//! Pure: every time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use crate::quota::rate_limit::ArrivalTime;
use crate::quota::{LimitKind, LimitOwner, QuotaRefusal, RateLimit, SESSION_KINDS};
use crate::wire::Command;

/// Refusals of one session: more close its connection. A client that waits as it is told stays far below the rate, and
/// the burst is twice the number of messages that a client may have under way.
const REFUSALS: RateLimit = RateLimit::per_second(100, 512);
/// The maximum time for which refused requests queue up.
const QUEUE_US_MAX: u64 = 60_000_000;
/// The shortest time between two log lines about one session.
const REPORT_INTERVAL_US: u64 = 60_000_000;

/// The limits of every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits([RateLimit; SESSION_KINDS]);

impl Default for SessionLimits {
    fn default() -> Self {
        Self([
            RateLimit::per_second(100, 200),
            RateLimit::per_second(20, 60),
            RateLimit::bytes_per_second(64 * 1024, 256 * 1024),
            RateLimit::per_second(5, 30),
            RateLimit::per_minute(3, 3),
            RateLimit::per_minute(30, 10),
            RateLimit::per_second(5, 20),
        ])
    }
}

impl SessionLimits {
    /// Limits by a function.
    ///
    /// # Errors
    /// The first error of `limit`.
    pub fn from_each<E>(limit: impl FnMut(LimitKind) -> Result<RateLimit, E>) -> Result<Self, E> {
        let mut limits = Self::default();
        let each: Result<Vec<RateLimit>, E> = LimitKind::of_sessions().map(limit).collect();
        for (known, given) in limits.0.iter_mut().zip(each?) {
            *known = given;
        }
        Ok(limits)
    }

    /// No limits.
    #[must_use]
    pub fn open() -> Self {
        Self(Self::default().0.map(|limit| limit.with(0, limit.burst())))
    }

    /// Returns one limit. What only addresses have a limit of is not limited.
    #[must_use]
    pub fn of(&self, limit: LimitKind) -> RateLimit {
        self.0.get(limit as usize).copied().unwrap_or(RateLimit::per_second(0, 1))
    }
}

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateRefusal {
    /// The limit that makes it wait longest.
    pub(super) limit: LimitKind,
    pub(super) owner: LimitOwner,
    /// The time after which it is admitted, if the client repeats nothing earlier.
    pub(super) retry_after: Duration,
    /// True if the connection is to be closed: the client does not wait.
    pub(super) closes: bool,
}

/// Refusals of one session since the last log line about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalReport {
    /// The limit of the newest refusal.
    pub(super) limit: LimitKind,
    pub(super) owner: LimitOwner,
    /// Number of refusals.
    pub(super) refused: u64,
}

/// The costs of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestCost([Option<(LimitKind, u64)>; 4]);

impl RequestCost {
    /// The cost of a frame without a request.
    pub(super) const UNDECODED: Self = Self([Some((LimitKind::Requests, 1)), None, None, None]);

    /// Returns the cost of a command; `None` if it is never refused.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let (limit, bytes) = match command {
            Command::Bye => return None,
            Command::Send { body, .. } => {
                (Some(LimitKind::Messages), Some((LimitKind::Bytes, body.json().len() as u64)))
            }
            Command::Register { .. } | Command::Join { .. } => (Some(LimitKind::Joins), None),
            Command::Nick { .. } => (Some(LimitKind::Renames), None),
            Command::Status(_) | Command::Moderate(_) => (Some(LimitKind::Statuses), None),
            Command::Members { .. } | Command::Rooms { .. } | Command::History { .. } => (Some(LimitKind::Pages), None),
            Command::Leave { .. }
            | Command::Whois { .. }
            | Command::Read { .. }
            | Command::Typing { .. }
            | Command::Refresh { .. }
            | Command::Options { .. }
            | Command::Ping => (None, None),
        };
        let is_registration = matches!(command, Command::Register { resume: None, .. });
        let registration = is_registration.then_some((LimitKind::Registrations, 1));
        Some(Self([Some((LimitKind::Requests, 1)), limit.map(|limit| (limit, 1)), bytes, registration]))
    }

    /// Returns the cost for a session that has registered: it cannot register again.
    pub(super) fn of_registered(self) -> Self {
        let Self([requests, limit, bytes, _]) = self;
        Self([requests, limit, bytes, None])
    }

    /// Returns what the address and the user of the session are charged.
    pub(super) fn charges(self) -> impl Iterator<Item = (LimitKind, u64)> + Clone {
        self.0.into_iter().flatten()
    }

    /// Returns what the session is charged.
    fn own_charges(self) -> impl Iterator<Item = (LimitKind, u64)> {
        self.charges().filter(|(limit, _)| (*limit as usize) < SESSION_KINDS)
    }
}

/// The part of its limits that a session has spent. Boxed: a connection that asks for nothing has none.
#[derive(Debug, Default)]
pub(super) struct SessionAllowance {
    spent: Option<Box<[ArrivalTime; SESSION_KINDS]>>,
    refusals: Option<Box<RefusalRecord>>,
}

/// The refusals of a session that has had one.
#[derive(Debug)]
struct RefusalRecord {
    /// The arrival times behind the refused requests.
    queued: [ArrivalTime; SESSION_KINDS],
    /// The same for the limits of the address and of the user, by a clock of their own.
    queued_with_others: HashMap<(LimitOwner, LimitKind), ArrivalTime>,
    refused: ArrivalTime,
    newest: (LimitOwner, LimitKind),
    unreported: u64,
    reported_us: Option<u64>,
}

impl SessionAllowance {
    /// Charges an input if no limit is met. Returns false, and changes nothing, if one is. `admit_with_others` charges
    /// it to the address and the user of the session, once the session may send it.
    pub(super) fn admits(
        &mut self,
        since: Duration,
        limits: &SessionLimits,
        cost: RequestCost,
        admit_with_others: impl FnOnce() -> Result<(), QuotaRefusal>,
    ) -> bool {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let spent = self.spent.get_or_insert_default();
        let mut next = **spent;
        for (limit, units) in cost.own_charges() {
            match limits.of(limit).admit(spent[limit as usize], now_us, units) {
                Ok(state) => next[limit as usize] = state,
                Err(_) => return false,
            }
        }
        let is_admitted = admit_with_others().is_ok();
        if is_admitted {
            **spent = next;
        }
        is_admitted
    }

    /// Charges a request, at a time since the session began. `admit_with_others` charges it to the address and the user
    /// of the session, once the session may make it.
    pub(super) fn admit(
        &mut self,
        since: Duration,
        limits: &SessionLimits,
        cost: RequestCost,
        admit_with_others: impl FnOnce() -> Result<(), QuotaRefusal>,
    ) -> Result<(), RateRefusal> {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let spent = self.spent.get_or_insert_default();
        let mut next = **spent;
        let mut refused = None;
        for (limit, units) in cost.own_charges() {
            match limits.of(limit).admit(spent[limit as usize], now_us, units) {
                Ok(state) => next[limit as usize] = state,
                Err(retry_after) => {
                    let record = self.refusals.get_or_insert_default();
                    let queued = &mut record.queued[limit as usize];
                    let ahead = queue(limits.of(limit), (queued, spent[limit as usize]), (now_us, units));
                    let wait = retry_after.max(ahead);
                    if refused.is_none_or(|(_, longest)| longest < wait) {
                        refused = Some(((LimitOwner::Session, limit), wait));
                    }
                }
            }
        }
        if refused.is_none()
            && let Err(QuotaRefusal { owner, kind, retry_after, limit, cost, spent, now_us }) = admit_with_others()
        {
            let record = self.refusals.get_or_insert_default();
            let queued = record.queued_with_others.entry((owner, kind)).or_default();
            let ahead = queue(limit, (queued, spent), (now_us, cost));
            refused = Some(((owner, kind), retry_after.max(ahead)));
        }
        let (Some(((owner, limit), retry_after)), Some(record)) = (refused, &mut self.refusals) else {
            **spent = next;
            return Ok(());
        };
        let closes = !record.count(now_us);
        record.newest = (owner, limit);
        record.unreported += 1;
        Err(RateRefusal { limit, owner, retry_after, closes })
    }

    /// Frees the memory of what was spent once all of it is available again.
    pub(super) fn forget_spent(&mut self, since: Duration) {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.spent.take_if(|spent| spent.iter().all(|spent| spent.is_over(now_us)));
    }

    /// Returns true if one more refusal closes the connection.
    pub(super) fn is_exhausted(&self, since: Duration) -> bool {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.refusals.as_ref().is_some_and(|record| REFUSALS.admit(record.refused, now_us, 1).is_err())
    }

    /// Returns the refusals to log, at most once in each interval. `may_log` is asked only if there are any.
    pub(super) fn take_report(&mut self, since: Duration, may_log: impl FnOnce() -> bool) -> Option<RefusalReport> {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let record = self.refusals.as_mut().filter(|record| record.unreported > 0)?;
        if record.reported_us.is_some_and(|reported| now_us.saturating_sub(reported) < REPORT_INTERVAL_US) || !may_log()
        {
            return None;
        }
        record.reported_us = Some(now_us);
        let (owner, limit) = record.newest;
        Some(RefusalReport { limit, owner, refused: std::mem::take(&mut record.unreported) })
    }
}

impl Default for RefusalRecord {
    fn default() -> Self {
        Self {
            queued: Default::default(),
            queued_with_others: HashMap::new(),
            refused: ArrivalTime::default(),
            newest: (LimitOwner::Session, LimitKind::Requests),
            unreported: 0,
            reported_us: None,
        }
    }
}

/// Puts a refused request behind those before it. Returns the time until its turn.
fn queue(limit: RateLimit, (queued, spent): (&mut ArrivalTime, ArrivalTime), (now_us, units): (u64, u64)) -> Duration {
    let last = spent.max(*queued);
    let Err(wait) = limit.admit(last, now_us, units) else { return Duration::ZERO };
    if wait <= Duration::from_micros(QUEUE_US_MAX) {
        *queued = limit.after(last, now_us, units);
    }
    wait
}

impl RefusalRecord {
    /// Counts a refusal. Returns false if there were too many.
    fn count(&mut self, now_us: u64) -> bool {
        let next = REFUSALS.admit(self.refused, now_us, 1);
        next.inspect(|state| self.refused = *state).is_ok()
    }
}

#[cfg(test)]
mod tests;
