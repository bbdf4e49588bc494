//! [`IdentityGate`]: the rule of `auth.mode` for a client that introduces itself.
//!
//! Sessions ask it once, at `register`. Invariant: a token that is presented is valid, or the client is refused; in no
//! mode does a bad token make a guest. Without tokens (`open`) it knows no user.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use presence::host::client_address::ClientAddress;
use presence::host::reloadable::Reloadable;
use presence::model::Nick;
use tokio::sync::Notify;

use super::fault::TokenFault;
use super::grant::Grant;
use super::keys::KeyFingerprint;
use super::mode::AuthMode;
use super::refusals::IdentityRefusals;
use super::settings::AuthConfig;
use super::verifier::{LEEWAY_SECONDS, TokenVerifier};

/// A client that is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Its nickname; `None` if neither the client nor its token named one.
    pub nick: Option<Nick>,
    /// Its token; `None` for a guest.
    pub token: Option<UserToken>,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserToken {
    /// The rights and names that it grants.
    pub grant: Arc<Grant>,
    /// The time until it expires, with the allowed difference between clocks.
    pub lifetime: Duration,
}

impl UserToken {
    fn new(grant: Grant) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // It is refused from the second after the allowed difference on.
        let expires = Duration::from_secs(grant.expires.saturating_add(LEEWAY_SECONDS + 1));
        Self { grant: Arc::new(grant), lifetime: expires.saturating_sub(now) }
    }
}

/// Time between two looks at the age of the set of keys.
const REFRESH_TICK: Duration = Duration::from_secs(5);

/// Admits clients. All clones follow a reload.
#[derive(Debug, Clone)]
pub struct IdentityGate {
    rules: Reloadable<Arc<GateRules>>,
    refusals: IdentityRefusals,
    /// Notified after each change of the mode or the keys.
    keys_changed: Arc<Notify>,
}

#[derive(Debug)]
struct GateRules {
    mode: AuthMode,
    verifier: TokenVerifier,
    /// The age at which the set of a URL is fetched again.
    refresh: Duration,
}

impl GateRules {
    fn new(config: &AuthConfig, verifier: TokenVerifier) -> Arc<Self> {
        Arc::new(Self { mode: config.mode, verifier, refresh: config.jwks_refresh })
    }
}

impl IdentityGate {
    /// Creates the gate of these settings.
    #[must_use]
    pub fn new(config: &AuthConfig) -> Self {
        let keys_changed = Arc::default();
        let rules = GateRules::new(config, config.verifier(None, &keys_changed));
        Self { rules: Reloadable::from(rules), refusals: IdentityRefusals::default(), keys_changed }
    }

    /// Applies other settings. Keys that were fetched from the same URL stay in use while they are fetched again.
    pub fn reload(&self, config: &AuthConfig) {
        let verifier = config.verifier(self.rules.get().verifier.jwks.as_ref(), &self.keys_changed);
        if let Some(jwks) = &verifier.jwks {
            jwks.refetch();
        }
        self.rules.set(GateRules::new(config, verifier));
        self.keys_changed.notify_one();
    }

    /// Waits for a change of the mode or the keys. One that no task awaited counts for the next call; only one task may
    /// wait.
    pub async fn keys_changed(&self) {
        self.keys_changed.notified().await;
    }

    /// Returns true if a session with this key may go on: the key is in use, or the session is a guest's (`None`) and
    /// guests are admitted. While tokens are ignored every session may.
    #[must_use]
    pub fn admits(&self, key: Option<KeyFingerprint>) -> bool {
        let rules = self.rules.get();
        match (rules.mode, key) {
            (AuthMode::Open, _) | (AuthMode::Mixed, None) => true,
            (AuthMode::Token, None) => false,
            (AuthMode::Token | AuthMode::Mixed, Some(key)) => rules.verifier.uses(key),
        }
    }

    /// Fetches the set of a URL again each time it has the age of `auth.jwks_refresh_seconds`, for as long as it is
    /// polled.
    pub async fn keep_keys_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH_TICK).await;
            let rules = self.rules.get();
            if let Some(jwks) = &rules.verifier.jwks {
                jwks.refresh_after(rules.refresh).await;
            }
        }
    }

    /// Notes in the log that a client was refused, at an address if the log is to name it.
    pub fn note_refusal(&self, reason: &impl ToString, address: Option<ClientAddress>) {
        self.refusals.record(&reason.to_string(), address);
    }

    /// Admits a client, or refuses it.
    ///
    /// # Errors
    /// [`TokenFault`]: the reason.
    pub async fn introduce(&self, token: Option<&str>, nick: Option<Nick>) -> Result<Introduction, TokenFault> {
        let rules = self.rules.get();
        let token = match (rules.mode, token) {
            (AuthMode::Open, _) | (AuthMode::Mixed, None) => return Ok(Introduction { nick, token: None }),
            (AuthMode::Token, None) => return Err(TokenFault::Missing),
            (AuthMode::Token | AuthMode::Mixed, Some(token)) => token,
        };
        let grant = rules.verifier.verify(token).await?;
        let nick = match (&grant.nick, nick) {
            (Some(granted), Some(nick)) if granted.key() != nick.key() => return Err(TokenFault::WrongNick),
            (Some(granted), _) => Some(granted.clone()),
            (None, nick) => nick,
        };
        Ok(Introduction { nick, token: Some(UserToken::new(grant)) })
    }
}
