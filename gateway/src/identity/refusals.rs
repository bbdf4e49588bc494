//! [`IdentityRefusals`]: refused tokens in the log, each reason at most once a minute.
//!
//! A client may send bad tokens as fast as its limits allow, and may connect again; the log stays short. The line has
//! the number of refusals for this reason since the line before, and the address of the newest. Invariant: no part of a
//! token is in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::host::line_pace::LinePace;

/// The record of refused tokens. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct IdentityRefusals(Arc<Mutex<HashMap<String, LinePace>>>);

impl IdentityRefusals {
    /// Records a refusal. The reasons are a few texts of this program.
    pub(super) fn record(&self, reason: &str, address: Option<ClientAddress>) {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paces.entry(reason.to_owned()).or_default().record(Instant::now());
        drop(paces);
        if let Some(refused) = due {
            let address = address.map(tracing::field::display);
            tracing::info!(event = "auth_failed", reason, address, refused, "client refused");
        }
    }
}
