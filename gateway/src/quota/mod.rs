//! Limits of addresses and users over the whole cluster.
//!
//! [`Quotas`] has the [`Quota`] of each address and user that is in use, which all its connections share. Requests are
//! counted here in memory; what the other gateways have admitted arrives with the heartbeat (`usage`). Invariant: no
//! request and no connection waits for the store. It does not know sessions, the store or the wire formats.

mod holder;
mod limits;
pub(crate) mod rate_limit;
mod table;
mod usage;

#[cfg(test)]
mod tests;

pub use self::holder::{Quota, QuotaHold, QuotaRefusal, SessionQuotas};
pub(crate) use self::limits::SESSION_KINDS;
pub use self::limits::{LimitKind, LimitOwner, OwnerLimits, QuotaLimits};
pub use self::rate_limit::RateLimit;
pub use self::table::Quotas;
