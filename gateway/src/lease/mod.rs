//! The gateway's side of its lease: what it does with beats, with orders of the cluster, and with its local claims.
//!
//! One heartbeat, by file: [`lifecycle`] opens a lease, `heartbeat` pulls its beats, [`context`] carries out the
//! mailbox with [`orders`], and [`deliveries`] receives the echo. [`local_claims`] lists what this gateway owns in the
//! registry. [`sanctions`] follows the list of bans. [`expiry`] ends detached sessions, and [`failure_detector`]
//! fences and reaps failed gateways. After a lost lease no claim of its incarnation is kept. No file here knows a wire
//! format or a Redis command.

pub mod context;
pub mod lifecycle;
mod heartbeat;
pub mod orders;
pub mod deliveries;
pub mod local_claims;
pub mod sanctions;
pub mod expiry;
pub mod failure_detector;

pub use self::context::{LeaseContext, StopRequest};
pub use self::deliveries::DeliveryRouter;
pub use self::local_claims::LocalClaims;
pub use self::orders::SessionOrders;
