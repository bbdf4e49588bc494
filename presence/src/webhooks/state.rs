//! The state of the webhooks, and the replay of dead letters, for `gateway ctl` and the API.

use serde::Serialize;
use utoipa::ToSchema;

use super::DeliveryReport;
use crate::registry::{Registry, RegistryError, WebhookRow};

/// Maximum number of dead letters of one step of a replay.
const REPLAY_STEP: u64 = 100;

/// The state of all webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookStates {
    /// The process that sends; null if there is none.
    pub leader: Option<String>,
    /// The webhooks, also those that no process has any more.
    pub webhooks: Vec<WebhookState>,
}

/// The state of a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookState {
    /// Its name.
    pub webhook: String,
    /// Number of events that wait.
    pub waiting: u64,
    /// Number of dead letters.
    pub dead: u64,
    /// Its deliveries; absent before the first one.
    #[serde(flatten)]
    pub deliveries: Option<DeliveryReport>,
}

impl WebhookStates {
    /// Reads the state of all webhooks.
    ///
    /// # Errors
    /// Those of [`Registry::show_webhooks`].
    pub async fn read(registry: &Registry) -> Result<Self, RegistryError> {
        let shown = registry.show_webhooks().await?;
        let state = |WebhookRow { webhook, waiting, dead, about }| WebhookState {
            webhook,
            waiting,
            dead,
            deliveries: serde_json::from_str(&about).ok(),
        };
        Ok(Self { leader: shown.leader, webhooks: shown.rows.into_iter().map(state).collect() })
    }
}

/// Puts the dead letters of a webhook at the end of its events, so that they are sent again. Returns their number, and
/// `None` for a webhook that is not known. What dies again meanwhile stays dead. If the call is dropped or fails, some
/// of them are sent.
///
/// # Errors
/// Those of [`Registry::replay_webhook`].
pub async fn replay_dead_letters(registry: &Registry, webhook: &str) -> Result<Option<u64>, RegistryError> {
    let shown = registry.show_webhooks().await?;
    let Some(row) = shown.rows.into_iter().find(|row| row.webhook == webhook) else { return Ok(None) };
    let mut replayed = 0;
    while replayed < row.dead {
        let step = (row.dead - replayed).min(REPLAY_STEP);
        match registry.replay_webhook(webhook, usize::try_from(step).expect("at most a step")).await? {
            0 => break,
            sent => replayed += sent,
        }
    }
    Ok(Some(replayed))
}
