//! [`BanRefusals`]: refused clients that are banned, in the log: one line a minute for an address.
//!
//! Invariant: addresses are in the log only if `log.addresses` allows it; then all refusals share one line a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::host::line_pace::LinePace;

/// Maximum number of addresses with a pace of their own; further ones share one.
const ADDRESSES_MAX: usize = 1000;

/// The record of refused clients.
#[derive(Debug)]
pub(super) struct BanRefusals {
    paces: Mutex<HashMap<Option<ClientAddress>, LinePace>>,
    names_addresses: bool,
}

impl BanRefusals {
    pub(super) fn new(names_addresses: bool) -> Self {
        Self { paces: Mutex::default(), names_addresses }
    }

    /// Records a refusal.
    pub(super) fn record(&self, address: Option<ClientAddress>) {
        let address = address.filter(|_| self.names_addresses);
        let Some(refused) = self.due(address, Instant::now()) else { return };
        let address = address.map(tracing::field::display);
        tracing::info!(event = "banned", address, refused, "banned client refused");
    }

    fn due(&self, address: Option<ClientAddress>, now: Instant) -> Option<u64> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = paces.contains_key(&address) || paces.len() < ADDRESSES_MAX;
        paces.entry(address.filter(|_| is_known)).or_default().record(now)
    }
}
