//! The end of sessions whose key was removed: by a reload, or from the set at a URL.
//!
//! One task per gateway. It reads the sessions once after each change of the keys, so keys cost nothing at rest. A
//! session that begins or refreshes meanwhile compares its key itself, after it was noted.

use std::sync::Arc;

use presence::host::client_address::ClientAddress;
use presence::model::Owner;
use presence::model::codes::CloseCode;

use crate::identity::UserToken;
use crate::lease::local_claims::ClientNotes;

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
    /// Notes the client of the session. Ends the session if its client was banned or its token was revoked meanwhile.
    pub(super) fn note_client(&self, owner: &Owner, token: Option<&UserToken>, address: Option<ClientAddress>) {
        let (services, key) = (&self.services, token.map(|token| token.grant.key));
        let notes = ClientNotes { key, issued: token.map_or(0, |token| token.grant.issued), address };
        // Noted first: a change of the list of sanctions from now on finds the session.
        if let Some(code) = services.claims.note_client(owner, notes, |client| services.sanctions.verdict(client)) {
            self.outbox.close(code);
        }
        services.hub.tag_session(owner, &token.map_or_else(Arc::default, |token| Arc::clone(&token.grant.tags)));
        if key.is_some_and(|key| !services.identity.is_in_use(key)) {
            self.outbox.close(CloseCode::TokenExpired);
        }
    }
}
