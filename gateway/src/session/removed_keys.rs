//! The end of sessions that are admitted no more: their key was removed, by a reload or from the set at a URL, or they
//! are guests and a reload asks for tokens.
//!
//! One task per gateway. It reads the sessions once after each change of the mode or the keys, so keys cost nothing at
//! rest. A session that begins or refreshes meanwhile compares its key itself, after it was noted.

use std::sync::Arc;

use presence::host::client_address::ClientAddress;
use presence::model::Owner;
use presence::model::codes::CloseCode;

use crate::identity::UserToken;
use crate::lease::local_claims::ClientNotes;

use super::performer::Performer;
use super::services::Services;

/// Ends the connections of sessions that are admitted no more, for as long as it is polled. Their clients may return
/// with a token of a key in use.
pub async fn end_sessions(services: Arc<Services>) {
    loop {
        services.identity.keys_changed().await;
        let ended = services.claims.not_admitted(|key| services.identity.admits(key));
        for session in &ended {
            services.hub.close_session(session, CloseCode::TokenExpired);
        }
        if !ended.is_empty() {
            let reason = "key was removed, or tokens are required now";
            tracing::info!(event = "auth_failed", reason, sessions = ended.len(), "sessions ended");
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
        if !services.identity.admits(key) {
            self.outbox.close(CloseCode::TokenExpired);
        }
    }
}
