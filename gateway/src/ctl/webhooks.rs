//! `ctl webhooks`: the state of the webhooks, and the replay of dead letters.

use std::time::{SystemTime, UNIX_EPOCH};

use presence::webhooks::{DeliveryReport, WebhookState, WebhookStates, replay_dead_letters};
use serde_json::json;

use super::table::{duration, table};
use super::{CommandAccess, CtlAnswer, CtlError};

/// Shows all webhooks.
pub(super) async fn show(cluster: &CommandAccess) -> Result<CtlAnswer, CtlError> {
    let states = WebhookStates::read(&cluster.registry).await?;
    Ok(CtlAnswer::new(text(&states), &states))
}

fn text(states: &WebhookStates) -> String {
    if states.webhooks.is_empty() {
        return "no webhooks\n".to_owned();
    }
    let leader = states.leader.as_deref().map_or("no presence process sends webhooks", |leader| leader);
    let heads = ["WEBHOOK", "STATE", "WAITING", "DEAD", "LAST ERROR"];
    let rows: Vec<[String; 5]> = states.webhooks.iter().map(cells).collect();
    format!("{leader}\n\n{}", table(heads, &rows))
}

fn cells(WebhookState { webhook, waiting, dead, deliveries }: &WebhookState) -> [String; 5] {
    let state = match deliveries {
        Some(DeliveryReport { failing_since: Some(since), .. }) => format!("failing for {}", age(*since)),
        Some(DeliveryReport { accepted: Some(last), .. }) => format!("accepted {} ago", age(*last)),
        _ => "nothing sent".to_owned(),
    };
    let error = deliveries.as_ref().and_then(|report| report.error.clone()).unwrap_or_else(|| "-".to_owned());
    [webhook.clone(), state, waiting.to_string(), dead.to_string(), error]
}

fn age(time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    duration(now.saturating_sub(time))
}

/// Sends the dead letters of a webhook again.
pub(super) async fn replay(cluster: &CommandAccess, webhook: &str) -> Result<CtlAnswer, CtlError> {
    let Some(replayed) = replay_dead_letters(&cluster.registry, webhook).await? else {
        return Err(CtlError::Refused(format!("there is no webhook {webhook}")));
    };
    Ok(CtlAnswer::new(format!("replayed {replayed}\n"), &json!({ "webhook": webhook, "replayed": replayed })))
}
