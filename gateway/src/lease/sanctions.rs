//! Keeps the list of sanctions of this gateway like the one in the store, and ends the sessions that it bans.
//!
//! Beats and the gateway's channel name the version of the store. A higher one is read here. A lower one means that the
//! store has lost changes: they are written again, before the gateway reasserts its claims. Decides no ban.

use presence::model::SessionId;
use presence::model::codes::CloseCode;
use presence::registry::{RegistryError, SANCTION_PAGE, SanctionCursor};

use crate::sanctions::{ReadChanges, SanctionEffects};

use super::context::LeaseContext;

/// Changes in one batch of a restore.
const RESTORE_BATCH: usize = 500;

/// Follows the list in the store for as long as it is polled.
pub async fn run(context: std::sync::Arc<LeaseContext>) {
    loop {
        context.sanctions.other_version().await;
        synchronize(&context).await;
    }
}

/// Reads what is newer in the store, or writes back what it has lost. A failure is repeated after the next beat.
pub(super) async fn synchronize(context: &LeaseContext) {
    if let Err(error) = try_synchronize(context).await {
        tracing::debug!(%error, "list of sanctions not read, retrying with the next beat");
    }
}

async fn try_synchronize(context: &LeaseContext) -> Result<(), RegistryError> {
    let known = context.sanctions.version();
    let (mut read, mut place) = (ReadChanges::default(), SanctionCursor::from(known));
    loop {
        let page = context.registry.sanctions_since(place, SANCTION_PAGE).await?;
        if page.version < known {
            return restore(context, page.version, known).await;
        }
        if page.is_whole {
            read = ReadChanges { is_whole: true, ..ReadChanges::default() };
        }
        place = place.behind(&page);
        read.version = page.version;
        read.changes.extend(page.changes);
        if !page.more {
            break;
        }
    }
    let version = read.version;
    let effects = context.sanctions.apply(read);
    end_sessions(context, version, &effects);
    Ok(())
}

/// Writes the changes after version `lost_after` again.
async fn restore(context: &LeaseContext, lost_after: u64, known: u64) -> Result<(), RegistryError> {
    let changes = context.sanctions.changes_after(lost_after);
    let (batches, last) = changes.split_at(changes.len() - changes.len().min(RESTORE_BATCH));
    for batch in batches.chunks(RESTORE_BATCH) {
        context.registry.restore_sanctions(batch, None).await?;
    }
    context.registry.restore_sanctions(last, Some(known)).await?;
    tracing::info!(version = known, changes = changes.len(), "list of sanctions restored in the store");
    Ok(())
}

fn end_sessions(context: &LeaseContext, version: u64, effects: &SanctionEffects) {
    if effects.is_empty() {
        return;
    }
    let ended: Vec<(SessionId, CloseCode)> = context.claims.verdicts(|client| {
        let kicked = effects.kicks(client).then_some(CloseCode::Kicked);
        kicked.or_else(|| context.sanctions.verdict(client))
    });
    for (session, code) in &ended {
        context.orders.end(session, *code);
    }
    if !ended.is_empty() {
        tracing::info!(event = "moderated", version, sessions = ended.len(), "sessions ended by moderators");
    }
}
