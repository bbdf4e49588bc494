//! [`Quota`]: what one address or user has spent, shared by all its connections.
//!
//! [`SessionQuotas`] charges a request to the address and the user of a session together; [`QuotaHold`] returns what a
//! request that came to nothing has spent. Invariant: a refused request is charged to none. Every time is passed in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::host::client_address::ClientAddress;
use presence::host::reloadable::Reloadable;
use presence::model::{Incarnation, UsageKey};

use super::limits::{KINDS, LimitKind, LimitOwner, QuotaLimits};
use super::rate_limit::{ArrivalTime, RateLimit};

/// The time for which the connections of an address on another gateway count after a report: three beats.
const ELSEWHERE_US: u64 = 3_000_000;
/// The shortest time between two log lines about refusals of one address.
const REPORT_INTERVAL_US: u64 = 60_000_000;

/// The rules that all quotas share.
#[derive(Debug)]
pub(super) struct QuotaRules {
    pub(super) began: Instant,
    pub(super) limits: Reloadable<Arc<QuotaLimits>>,
}

impl QuotaRules {
    pub(super) fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

/// The quota of one address or user.
#[derive(Debug)]
pub struct Quota {
    pub(super) key: UsageKey,
    pub(super) owner: LimitOwner,
    /// `None` for a user, and for an address of which only other gateways have reported.
    address: Option<ClientAddress>,
    pub(super) rules: Arc<QuotaRules>,
    state: Mutex<QuotaState>,
}

#[derive(Debug, Default)]
pub(super) struct QuotaState {
    /// Connections on this gateway.
    pub(super) seats: u32,
    /// Boxed: an address whose clients are idle has none.
    pub(super) activity: Option<Box<QuotaActivity>>,
}

#[derive(Debug, Default)]
pub(super) struct QuotaActivity {
    pub(super) spent: [ArrivalTime; KINDS],
    /// Units spent here and not reported to the other gateways.
    pub(super) unreported: [u64; KINDS],
    elsewhere: Vec<SeatsElsewhere>,
    logged_us: Option<u64>,
}

/// Connections of an address on another gateway.
#[derive(Debug)]
struct SeatsElsewhere {
    by: Incarnation,
    seats: u32,
    reported_us: u64,
}

/// A request that an address or a user may not make now.
#[derive(Debug, Clone, Copy)]
pub struct QuotaRefusal {
    /// The party whose limit makes it wait longest.
    pub(crate) owner: LimitOwner,
    pub(crate) kind: LimitKind,
    /// The time after which it is admitted.
    pub(crate) retry_after: Duration,
    /// The limit, the cost, the state of the limit and the time, to queue several refusals up.
    pub(crate) limit: RateLimit,
    pub(crate) cost: u64,
    pub(crate) spent: ArrivalTime,
    pub(crate) now_us: u64,
}

impl QuotaState {
    /// Returns the number of connections of the address on the other gateways.
    pub(super) fn seats_elsewhere(&mut self, now_us: u64) -> u32 {
        let Some(activity) = &mut self.activity else { return 0 };
        activity.elsewhere.retain(|seats| now_us.saturating_sub(seats.reported_us) < ELSEWHERE_US);
        activity.elsewhere.iter().map(|elsewhere| elsewhere.seats).sum()
    }

    /// Notes the connections of the address on another gateway.
    pub(super) fn note_elsewhere(&mut self, by: &Incarnation, seats: u32, reported_us: u64) {
        let elsewhere = &mut self.activity.get_or_insert_default().elsewhere;
        elsewhere.retain(|known| known.by != *by);
        elsewhere.push(SeatsElsewhere { by: by.clone(), seats, reported_us });
    }

    /// Releases the record of an activity that is over. Returns true if there is none.
    pub(super) fn is_idle(&mut self, now_us: u64) -> bool {
        let has_seats = self.seats_elsewhere(now_us) > 0;
        let is_over = |activity: &QuotaActivity| {
            let logged = activity.logged_us.is_some_and(|at| now_us.saturating_sub(at) < REPORT_INTERVAL_US);
            !logged && activity.spent.iter().all(|spent| spent.is_over(now_us))
        };
        if !has_seats && self.activity.as_deref().is_some_and(is_over) {
            self.activity = None;
        }
        self.activity.is_none()
    }
}

impl QuotaActivity {
    fn spend(&mut self, kind: LimitKind, state: ArrivalTime, cost: u64) {
        self.spent[kind as usize] = state;
        self.unreported[kind as usize] = self.unreported[kind as usize].saturating_add(cost);
    }
}

impl Quota {
    pub(super) fn new(
        key: UsageKey,
        (owner, address): (LimitOwner, Option<ClientAddress>),
        rules: &Arc<QuotaRules>,
        state: QuotaState,
    ) -> Arc<Self> {
        Arc::new(Self { key, owner, address, rules: Arc::clone(rules), state: Mutex::new(state) })
    }

    /// Returns the address; `None` for a user.
    #[must_use]
    pub fn address(&self) -> Option<ClientAddress> {
        self.address
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, QuotaState> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a unit is left, and spends nothing.
    ///
    /// # Errors
    /// The time after which there is one.
    pub fn check(&self, now: Instant, kind: LimitKind) -> Result<(), Duration> {
        let (now_us, limit) = (self.rules.micros(now), self.limit(kind));
        let spent = self.lock().activity.as_ref().map_or(ArrivalTime::default(), |known| known.spent[kind as usize]);
        limit.admit(spent, now_us, 1).map(drop)
    }

    /// Spends a unit, also beyond the limit: what was too much is paid back before anything else is admitted.
    pub fn charge(&self, now: Instant, kind: LimitKind) {
        let (now_us, limit) = (self.rules.micros(now), self.limit(kind));
        if !limit.is_lifted() {
            let mut state = self.lock();
            let activity = state.activity.get_or_insert_default();
            activity.spend(kind, limit.charged(activity.spent[kind as usize], now_us, 1), 1);
        }
    }

    /// Returns the hold on one unit that a request has spent.
    pub(crate) fn hold(self: &Arc<Self>, kind: LimitKind) -> QuotaHold {
        QuotaHold { quota: Some(Arc::clone(self)), kind }
    }

    /// Returns true if a refusal of this address is to be logged: at most once a minute.
    pub(crate) fn takes_log_line(&self, now: Instant) -> bool {
        let (now_us, mut state) = (self.rules.micros(now), self.lock());
        let logged = &mut state.activity.get_or_insert_default().logged_us;
        let is_due = logged.is_none_or(|at| now_us.saturating_sub(at) >= REPORT_INTERVAL_US);
        if is_due {
            *logged = Some(now_us);
        }
        is_due
    }

    fn limit(&self, kind: LimitKind) -> RateLimit {
        self.rules.limits.get().of(self.owner).of(kind)
    }

    fn refund(&self, kind: LimitKind) {
        let limit = self.limit(kind);
        if let Some(activity) = &mut self.lock().activity
            && !limit.is_lifted()
        {
            activity.spent[kind as usize] = limit.refunded(activity.spent[kind as usize], 1);
            activity.unreported[kind as usize] = activity.unreported[kind as usize].saturating_sub(1);
        }
    }
}

/// A unit that is returned on drop, unless it was kept.
#[derive(Debug)]
pub struct QuotaHold {
    quota: Option<Arc<Quota>>,
    kind: LimitKind,
}

impl QuotaHold {
    /// Keeps the unit spent.
    pub fn keep(mut self) {
        self.quota = None;
    }
}

impl Drop for QuotaHold {
    fn drop(&mut self) {
        if let Some(quota) = &self.quota {
            quota.refund(self.kind);
        }
    }
}

/// The quotas of one session.
#[derive(Debug, Default)]
pub struct SessionQuotas {
    /// That of its address; `None` in tests without addresses.
    pub(crate) address: Option<Arc<Quota>>,
    /// That of its user; `None` for a guest.
    pub(crate) user: Option<Arc<Quota>>,
}

impl SessionQuotas {
    /// Charges a request to the address and to the user.
    ///
    /// # Errors
    /// The limit that makes it wait longest.
    pub(crate) fn admit(
        &self,
        now: Instant,
        costs: &(impl Iterator<Item = (LimitKind, u64)> + Clone),
    ) -> Result<(), QuotaRefusal> {
        // Locked in this order everywhere.
        let quotas = [self.address.as_deref(), self.user.as_deref()];
        let mut locked = quotas.map(|quota| quota.map(|quota| (quota, quota.lock())));
        let mut refused: Option<QuotaRefusal> = None;
        let mut admitted = [[None; 4]; 2];
        for (party, admitted) in locked.iter().zip(&mut admitted) {
            let Some((quota, state)) = party else { continue };
            let (now_us, limits) = (quota.rules.micros(now), quota.rules.limits.get());
            for ((kind, cost), admitted) in costs.clone().zip(admitted) {
                let limit = limits.of(quota.owner).of(kind);
                let spent = state.activity.as_ref().map_or(ArrivalTime::default(), |known| known.spent[kind as usize]);
                match limit.admit(spent, now_us, cost) {
                    Ok(_) if limit.is_lifted() => {}
                    Ok(next) => *admitted = Some((kind, next, cost)),
                    Err(retry_after) if refused.is_none_or(|other| other.retry_after < retry_after) => {
                        refused =
                            Some(QuotaRefusal { owner: quota.owner, kind, retry_after, limit, cost, spent, now_us });
                    }
                    Err(_) => {}
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for (party, admitted) in locked.iter_mut().zip(admitted) {
            let Some((_, state)) = party else { continue };
            for (kind, next, cost) in admitted.into_iter().flatten() {
                state.activity.get_or_insert_default().spend(kind, next, cost);
            }
        }
        Ok(())
    }
}
