//! [`QuotaSettings`]: the settings of the limits of addresses and users.
//!
//! Most of their limits are multiples of those of a session; what fills the store has limits of its own.

use std::fmt;

use presence::host::settings::{Settings, SettingsError};

use super::{GatewayConfig, LimitsProfile, MIB, limit_keys, profile, rate_limit};
use crate::quota::{LimitKind, OwnerLimits, QuotaLimits, RateLimit};

/// Maximum value of `limits.address_sessions` and `limits.user_sessions`.
const SESSIONS_MAX: u64 = 1_000_000;
/// The settings of the bytes of an address.
const ADDRESS_BYTES: (&str, &str) = ("limits.address_bytes_per_second", "limits.address_bytes_burst");

/// The settings of the limits of addresses and users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSettings {
    /// `limits.address_sessions`: the limits of an address, in those of a session.
    pub address_sessions: u64,
    /// `limits.user_sessions`: the limits of a user, in those of a session.
    pub user_sessions: u64,
    /// `limits.address_bytes_*`: bytes of messages of an address.
    pub bytes: RateLimit,
    /// `limits.registrations_*`: registrations of an address.
    pub registrations: RateLimit,
    /// `limits.creations_*`: rooms that an address creates.
    pub creations: RateLimit,
}

impl Default for QuotaSettings {
    fn default() -> Self {
        Self {
            address_sessions: 8,
            user_sessions: 4,
            bytes: RateLimit::bytes_per_second(20 * 1024, 4 * MIB as u64),
            registrations: RateLimit::per_minute(30, 30),
            creations: RateLimit::per_minute(10, 10),
        }
    }
}

impl QuotaSettings {
    pub(super) fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let is_open = profile(settings)? == LimitsProfile::Open;
        let rate = |keys, known: RateLimit| rate_limit(settings, keys, if is_open { known.lifted() } else { known });
        let sessions = |key| settings.number(key, 0..=SESSIONS_MAX, "expected a whole number from 0 to 1000000");
        let default = Self::default();
        Ok(Self {
            address_sessions: sessions("limits.address_sessions")?,
            user_sessions: sessions("limits.user_sessions")?,
            bytes: rate(ADDRESS_BYTES, default.bytes)?,
            registrations: rate(limit_keys(LimitKind::Registrations), default.registrations)?,
            creations: rate(limit_keys(LimitKind::Creations), default.creations)?,
        })
    }
}

impl GatewayConfig {
    /// Returns the limits of addresses and users.
    #[must_use]
    pub fn quota_limits(&self) -> QuotaLimits {
        let QuotaSettings { address_sessions, user_sessions, bytes, registrations, creations } = self.quotas;
        QuotaLimits {
            address: OwnerLimits::from_each(|limit| match limit {
                LimitKind::Bytes => bytes,
                LimitKind::Registrations => registrations,
                LimitKind::Creations => creations,
                limit => self.session_limits.of(limit).times(address_sessions),
            }),
            user: OwnerLimits::from_each(|limit| self.session_limits.of(limit).times(user_sessions)),
            seats: self.limits.addresses.connections,
        }
    }
}

impl fmt::Display for QuotaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "limits.address_sessions = {}", self.address_sessions)?;
        writeln!(f, "limits.user_sessions = {}", self.user_sessions)?;
        for ((rate_key, burst_key), limit) in [
            (ADDRESS_BYTES, self.bytes),
            (limit_keys(LimitKind::Registrations), self.registrations),
            (limit_keys(LimitKind::Creations), self.creations),
        ] {
            writeln!(f, "{rate_key} = {}\n{burst_key} = {}", limit.units(), limit.burst())?;
        }
        Ok(())
    }
}
