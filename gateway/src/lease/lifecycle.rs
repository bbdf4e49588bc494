//! The life of a gateway's leases: one incarnation after another, each with a channel of its own.
//!
//! [`run`] opens a lease, keeps it with `heartbeat` and audits its claims meanwhile. After a lost lease it
//! closes every session of that incarnation before the next one opens. A node id conflict at the first lease ends the
//! gateway.

use std::sync::Arc;

use presence::lease::OwnLease;
use presence::lease::audit::{AuditIntervals, ClaimAudit};
use presence::lease::node_id::{self, NodeIdConflict};
use presence::model::Incarnation;

use super::context::LeaseContext;
use super::heartbeat;

/// Opens the first lease at the start of the process. Returns false if the store did not answer; [`run`] then opens it
/// later. `former` are the earlier incarnations of this node, if the store could be asked for them.
///
/// # Errors
/// Another live gateway has this node id.
pub async fn open_first(lease: &OwnLease, former: Option<&[Incarnation]>) -> Result<bool, NodeIdConflict> {
    let Some(former) = former else { return Ok(false) };
    match node_id::open_first(lease, former).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(conflict)) => Err(conflict),
        Err(_) => Ok(false),
    }
}

/// Holds a lease for as long as it is polled. `is_open` is the result of [`open_first`].
pub async fn run(context: Arc<LeaseContext>, mut lease: OwnLease, is_open: bool) {
    if !is_open && let Err(conflict) = node_id::open_first_when_answered(&lease).await {
        context.stop.report_conflict(conflict);
        return;
    }
    loop {
        context.backplane.subscribe_own_channel(&lease.incarnation).await;
        if lease.open().await {
            tokio::select! {
                () = heartbeat::keep(&context, &lease) => {}
                () = audit_claims(&context, &lease) => {}
            }
            context.metrics.leases_lost.inc();
            context.orders.end_incarnation(&lease.incarnation);
        }
        lease.start_new_incarnation();
    }
}

/// Audits the lease's claims for as long as it is polled.
async fn audit_claims(context: &LeaseContext, lease: &OwnLease) {
    let mut audit = ClaimAudit::new(lease, AuditIntervals::default());
    loop {
        for owner in audit.next(|| context.claims.all()).await {
            context.orders.end_superseded(&owner);
        }
    }
}
