//! The end of sessions whose key was removed: by a reload, or from the set at a URL.
//!
//! One task per gateway. It reads the sessions once after each change of the keys, so keys cost nothing at rest. A
//! session that begins or refreshes meanwhile compares its key itself, after it was noted.

use std::sync::Arc;

use presence::model::Owner;
use presence::model::codes::CloseCode;

use crate::identity::UserToken;

use super::performer::Performer;
use super::services::Services;

/// Ends the connections of sessions whose key is out of use, for as long as it is polled. Their clients may return with
/// a token of another key.
pub async fn end_sessions(services: Arc<Services>) {
    loop {
        services.identity.keys_changed().await;
        let ended = services.claims.with_removed_keys(|key| services.identity.is_in_use(key));
        for session in &ended {
            services.hub.close_session(session, CloseCode::TokenExpired);
        }
        if !ended.is_empty() {
            tracing::info!(event = "auth_failed", reason = "key was removed", sessions = ended.len(), "sessions ended");
        }
    }
}

impl Performer {
    /// Notes the key of the token of the session's user.
    pub(super) fn note_key(&self, owner: &Owner, token: Option<&UserToken>) {
        let (services, key) = (&self.services, token.map(|token| token.grant.key));
        services.claims.note_key(owner, key);
        if key.is_some_and(|key| !services.identity.is_in_use(key)) {
            self.outbox.close(CloseCode::TokenExpired);
        }
    }
}
