//! [`Quotas`]: the quotas of all addresses and users that are in use, and the seats of addresses.
//!
//! An address has an entry while it has connections, has spent something, or another gateway reports it; a user
//! likewise. Entries that are over are removed with each heartbeat, and seats at once. Refuses nothing but seats.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::host::reloadable::Reloadable;
use presence::model::{UsageKey, UserId};

use super::holder::{Quota, QuotaRules, QuotaState};
use super::limits::{LimitOwner, QuotaLimits};

/// Minimum capacity that is kept, so that a few connections do not reallocate the table.
const CAPACITY_MIN: usize = 64;
/// Maximum number of entries without a connection. Beyond it reports of other gateways are ignored.
const IDLE_ENTRIES_MAX: usize = 65_536;

/// All quotas of a gateway.
#[derive(Debug)]
pub struct Quotas {
    pub(super) rules: Arc<QuotaRules>,
    /// The name of the cluster, for the keys.
    cluster: String,
    table: Mutex<HashMap<UsageKey, Arc<Quota>>>,
    /// The id of the newest report of usage that is known.
    pub(super) newest_report: Mutex<String>,
}

impl Quotas {
    /// Quotas of a gateway in the cluster of this name.
    #[must_use]
    pub fn new(cluster: &str, limits: Reloadable<Arc<QuotaLimits>>) -> Self {
        Self {
            rules: Arc::new(QuotaRules { began: Instant::now(), limits }),
            cluster: cluster.to_owned(),
            table: Mutex::default(),
            newest_report: Mutex::default(),
        }
    }

    /// Adds a connection to an address. Returns `None` if it has `count` of them in the cluster, as far as the other
    /// gateways have reported.
    pub fn take_seat(&self, address: ClientAddress, count: usize) -> Option<Arc<Quota>> {
        let now_us = self.rules.micros(Instant::now());
        let mut table = self.lock();
        let quota = self.entry(&mut table, (LimitOwner::Address, Some(address)), self.address_key(address));
        let mut state = quota.lock();
        if (state.seats.saturating_add(state.seats_elsewhere(now_us))) as usize >= count {
            let is_idle = state.seats == 0 && state.is_idle(now_us);
            drop(state);
            if is_idle {
                table.remove(&quota.key);
            }
            return None;
        }
        state.seats += 1;
        drop(state);
        Some(quota)
    }

    /// Removes a connection from an address.
    pub fn release_seat(&self, quota: &Quota) {
        let now_us = self.rules.micros(Instant::now());
        let mut table = self.lock();
        let mut state = quota.lock();
        state.seats = state.seats.saturating_sub(1);
        if state.seats > 0 || !state.is_idle(now_us) {
            return;
        }
        drop(state);
        table.remove(&quota.key);
        shrink(&mut table);
    }

    /// Returns the quota of a user.
    pub fn of_user(&self, user: &UserId) -> Arc<Quota> {
        let key = UsageKey::of(&self.cluster, LimitOwner::User.slug(), user.as_str());
        self.entry(&mut self.lock(), (LimitOwner::User, None), key)
    }

    /// Returns the quota that another gateway reports; `None` if there are too many.
    pub(super) fn reported(&self, owner: LimitOwner, key: UsageKey) -> Option<Arc<Quota>> {
        let mut table = self.lock();
        let has_space = table.len() < IDLE_ENTRIES_MAX || table.contains_key(&key);
        has_space.then(|| self.entry(&mut table, (owner, None), key))
    }

    /// Removes the quotas that are over, and returns the others.
    pub(super) fn swept(&self, now_us: u64) -> Vec<Arc<Quota>> {
        let mut table = self.lock();
        table.retain(|_, quota| {
            let mut state = quota.lock();
            !state.is_idle(now_us) || state.seats > 0 || Arc::strong_count(quota) > 1
        });
        shrink(&mut table);
        let has_usage = |quota: &&Arc<Quota>| {
            let state = quota.lock();
            state.activity.is_some() || state.seats > 0
        };
        table.values().filter(has_usage).cloned().collect()
    }

    fn address_key(&self, address: ClientAddress) -> UsageKey {
        UsageKey::of(&self.cluster, LimitOwner::Address.slug(), &address.to_string())
    }

    /// Returns the entry, and creates it if there is none. An entry that another gateway has reported gets its address.
    fn entry(
        &self,
        table: &mut HashMap<UsageKey, Arc<Quota>>,
        named: (LimitOwner, Option<ClientAddress>),
        key: UsageKey,
    ) -> Arc<Quota> {
        match table.entry(key) {
            Entry::Occupied(mut known) => {
                if named.1.is_some() && known.get().address().is_none() {
                    let state = std::mem::take(&mut *known.get().lock());
                    known.insert(Quota::new(key, named, &self.rules, state));
                }
                Arc::clone(known.get())
            }
            Entry::Vacant(free) => Arc::clone(free.insert(Quota::new(key, named, &self.rules, QuotaState::default()))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UsageKey, Arc<Quota>>> {
        // Held for a few instructions each entry; a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let table = self.lock();
        (table.len(), table.capacity())
    }
}

/// Releases the memory of a burst once few entries are left.
fn shrink(table: &mut HashMap<UsageKey, Arc<Quota>>) {
    if table.len() < table.capacity() / 8 {
        table.shrink_to(table.len().max(CAPACITY_MIN) * 2);
    }
}
