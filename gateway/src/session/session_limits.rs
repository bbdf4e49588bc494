//! The limits of one session: which request is refused as `rate_limited`, and for how long.
//!
//! [`SessionLimits`] are the settings, [`SessionAllowance`] the state of one session. A request is charged to several
//! limits together: a refused one is charged to none. Refused requests queue up: each is told the time behind those
//! that were refused before it, so a client that repeats each at its own time has all of them admitted.
//! Pure: every time is passed in.

use std::time::Duration;

use crate::wire::Command;

use super::rate_limit::{ArrivalTime, RateLimit};

/// Number of limits.
const LIMITS: usize = 7;
/// Refusals of one session: more close its connection. A client that waits as it is told stays far below the rate, and
/// the burst is twice the number of messages that a client may have under way.
const REFUSALS: RateLimit = RateLimit::per_second(100, 512);
/// The maximum time for which refused requests queue up.
const QUEUE_US_MAX: u64 = 60_000_000;
/// The shortest time between two log lines about one session.
const REPORT_INTERVAL_US: u64 = 60_000_000;

/// One of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLimit {
    /// All requests, frames that cannot be decoded included.
    Requests,
    /// `send`.
    Messages,
    /// Bodies of `send`, in bytes.
    Bytes,
    /// `join` and `register`.
    Joins,
    /// `nick`.
    Renames,
    /// `status`.
    Statuses,
    /// `history`, `members` and `rooms`.
    Pages,
}

impl SessionLimit {
    /// All limits, in the order of the settings.
    pub const ALL: [Self; LIMITS] =
        [Self::Requests, Self::Messages, Self::Bytes, Self::Joins, Self::Renames, Self::Statuses, Self::Pages];

    /// Returns the word for log lines.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Joins => "joins",
            Self::Renames => "renames",
            Self::Statuses => "statuses",
            Self::Pages => "pages",
        }
    }

    /// Returns the text of the refusal.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Requests => "too many requests in a short time",
            Self::Messages => "too many messages in a short time",
            Self::Bytes => "too many bytes of messages in a short time",
            Self::Joins => "too many joins in a short time",
            Self::Renames => "too many changes of nickname in a short time",
            Self::Statuses => "too many changes of status in a short time",
            Self::Pages => "too many lists in a short time",
        }
    }
}

/// The limits of every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits([RateLimit; LIMITS]);

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
    pub fn from_each<E>(limit: impl FnMut(SessionLimit) -> Result<RateLimit, E>) -> Result<Self, E> {
        let mut limits = Self::default();
        let each: Result<Vec<RateLimit>, E> = SessionLimit::ALL.into_iter().map(limit).collect();
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

    /// Returns one limit.
    #[must_use]
    pub fn of(&self, limit: SessionLimit) -> RateLimit {
        self.0[limit as usize]
    }
}

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateRefusal {
    /// The limit that makes it wait longest.
    pub(super) limit: SessionLimit,
    /// The time after which it is admitted, if the client repeats nothing earlier.
    pub(super) retry_after: Duration,
    /// True if the connection is to be closed: the client does not wait.
    pub(super) closes: bool,
}

/// Refusals of one session since the last log line about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalReport {
    /// The limit of the newest refusal.
    pub(super) limit: SessionLimit,
    /// Number of refusals.
    pub(super) refused: u64,
}

/// The costs of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestCost([Option<(SessionLimit, u64)>; 3]);

impl RequestCost {
    /// The cost of a frame without a request.
    pub(super) const UNDECODED: Self = Self([Some((SessionLimit::Requests, 1)), None, None]);

    /// Returns the cost of a command; `None` if it is never refused.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let (limit, bytes) = match command {
            Command::Bye => return None,
            Command::Send { body, .. } => {
                (Some(SessionLimit::Messages), Some((SessionLimit::Bytes, body.json().len() as u64)))
            }
            Command::Register { .. } | Command::Join { .. } => (Some(SessionLimit::Joins), None),
            Command::Nick { .. } => (Some(SessionLimit::Renames), None),
            Command::Status(_) => (Some(SessionLimit::Statuses), None),
            Command::Members { .. } | Command::Rooms { .. } | Command::History { .. } => {
                (Some(SessionLimit::Pages), None)
            }
            Command::Leave { .. }
            | Command::Whois { .. }
            | Command::Read { .. }
            | Command::Typing { .. }
            | Command::Refresh { .. }
            | Command::Ping => (None, None),
        };
        Some(Self([Some((SessionLimit::Requests, 1)), limit.map(|limit| (limit, 1)), bytes]))
    }

    fn charges(self) -> impl Iterator<Item = (SessionLimit, u64)> {
        self.0.into_iter().flatten()
    }
}

/// The part of its limits that a session has spent. Boxed: a connection that asks for nothing has none.
#[derive(Debug, Default)]
pub(super) struct SessionAllowance {
    spent: Option<Box<[ArrivalTime; LIMITS]>>,
    refusals: Option<Box<RefusalRecord>>,
}

/// The refusals of a session that has had one.
#[derive(Debug)]
struct RefusalRecord {
    /// The arrival times behind the refused requests.
    queued: [ArrivalTime; LIMITS],
    refused: ArrivalTime,
    newest: SessionLimit,
    unreported: u64,
    reported_us: Option<u64>,
}

impl SessionAllowance {
    /// Charges an input if no limit is met. Returns false, and changes nothing, if one is.
    pub(super) fn admits(&mut self, since: Duration, limits: &SessionLimits, cost: RequestCost) -> bool {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let spent = self.spent.get_or_insert_default();
        let mut next = **spent;
        for (limit, units) in cost.charges() {
            match limits.of(limit).admit(spent[limit as usize], now_us, units) {
                Ok(state) => next[limit as usize] = state,
                Err(_) => return false,
            }
        }
        **spent = next;
        true
    }

    /// Charges a request, at a time since the session began.
    pub(super) fn admit(
        &mut self,
        since: Duration,
        limits: &SessionLimits,
        cost: RequestCost,
    ) -> Result<(), RateRefusal> {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let spent = self.spent.get_or_insert_default();
        let mut next = **spent;
        let mut refused = None;
        for (limit, units) in cost.charges() {
            match limits.of(limit).admit(spent[limit as usize], now_us, units) {
                Ok(state) => next[limit as usize] = state,
                Err(retry_after) => {
                    let record = self.refusals.get_or_insert_with(|| RefusalRecord::new(limit));
                    let ahead = record.queue(limits.of(limit), (limit, units), (spent[limit as usize], now_us));
                    let wait = retry_after.max(ahead);
                    if refused.is_none_or(|(_, longest)| longest < wait) {
                        refused = Some((limit, wait));
                    }
                }
            }
        }
        let (Some((limit, retry_after)), Some(record)) = (refused, &mut self.refusals) else {
            **spent = next;
            return Ok(());
        };
        let closes = !record.count(now_us);
        record.newest = limit;
        record.unreported += 1;
        Err(RateRefusal { limit, retry_after, closes })
    }

    /// Returns true if one more refusal closes the connection.
    pub(super) fn is_exhausted(&self, since: Duration) -> bool {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.refusals.as_ref().is_some_and(|record| REFUSALS.admit(record.refused, now_us, 1).is_err())
    }

    /// Returns the refusals to log, at most once in each interval.
    pub(super) fn take_report(&mut self, since: Duration) -> Option<RefusalReport> {
        let now_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let record = self.refusals.as_mut().filter(|record| record.unreported > 0)?;
        if record.reported_us.is_some_and(|reported| now_us.saturating_sub(reported) < REPORT_INTERVAL_US) {
            return None;
        }
        record.reported_us = Some(now_us);
        Some(RefusalReport { limit: record.newest, refused: std::mem::take(&mut record.unreported) })
    }
}

impl RefusalRecord {
    fn new(newest: SessionLimit) -> Box<Self> {
        let queued = [ArrivalTime::default(); LIMITS];
        Box::new(Self { queued, refused: ArrivalTime::default(), newest, unreported: 0, reported_us: None })
    }

    /// Puts a refused request behind those before it. Returns the time until its turn.
    fn queue(
        &mut self,
        limit: RateLimit,
        (kind, units): (SessionLimit, u64),
        (spent, now_us): (ArrivalTime, u64),
    ) -> Duration {
        let queued = &mut self.queued[kind as usize];
        let last = spent.max(*queued);
        let Err(wait) = limit.admit(last, now_us, units) else { return Duration::ZERO };
        if wait <= Duration::from_micros(QUEUE_US_MAX) {
            *queued = limit.after(last, now_us, units);
        }
        wait
    }

    /// Counts a refusal. Returns false if there were too many.
    fn count(&mut self, now_us: u64) -> bool {
        let next = REFUSALS.admit(self.refused, now_us, 1);
        next.inspect(|state| self.refused = *state).is_ok()
    }
}

#[cfg(test)]
mod tests;
