//! `ctl webhooks`: the state of the webhooks, and the replay of dead letters.

use std::time::{SystemTime, UNIX_EPOCH};

use presence::registry::WebhookRow;
use presence::webhooks::DeliveryReport;
use serde::Serialize;
use serde_json::json;

use super::table::{duration, table};
use super::{CommandAccess, CtlAnswer, CtlError};

/// Maximum number of dead letters of one step of a replay.
const REPLAY_STEP: usize = 100;

#[derive(Serialize)]
struct WebhooksReport {
    /// The process that sends.
    leader: Option<String>,
    webhooks: Vec<ShownWebhook>,
}

#[derive(Serialize)]
struct ShownWebhook {
    webhook: String,
    /// Number of events that wait.
    waiting: u64,
    /// Number of dead letters.
    dead: u64,
    #[serde(flatten)]
    deliveries: DeliveryReport,
}

/// Shows all webhooks.
pub(super) async fn show(cluster: &CommandAccess) -> Result<CtlAnswer, CtlError> {
    let shown = cluster.registry.show_webhooks().await?;
    // A webhook that has never tried a delivery has no report.
    let row = |WebhookRow { webhook, waiting, dead, about }| ShownWebhook {
        webhook,
        waiting,
        dead,
        deliveries: serde_json::from_str(&about).unwrap_or_default(),
    };
    let report = WebhooksReport { leader: shown.leader, webhooks: shown.rows.into_iter().map(row).collect() };
    Ok(CtlAnswer::new(text(&report), &report))
}

fn text(report: &WebhooksReport) -> String {
    if report.webhooks.is_empty() {
        return "no webhooks\n".to_owned();
    }
    let leader = report.leader.as_deref().map_or("no presence process sends webhooks", |leader| leader);
    let heads = ["WEBHOOK", "STATE", "WAITING", "DEAD", "LAST ERROR"];
    let rows: Vec<[String; 5]> = report.webhooks.iter().map(cells).collect();
    format!("{leader}\n\n{}", table(heads, &rows))
}

fn cells(ShownWebhook { webhook, waiting, dead, deliveries }: &ShownWebhook) -> [String; 5] {
    let state = match deliveries {
        DeliveryReport { failing_since: Some(since), .. } => format!("failing for {}", age(*since)),
        DeliveryReport { accepted: Some(last), .. } => format!("accepted {} ago", age(*last)),
        _ => "nothing sent".to_owned(),
    };
    let error = deliveries.error.clone().unwrap_or_else(|| "-".to_owned());
    [webhook.clone(), state, waiting.to_string(), dead.to_string(), error]
}

fn age(time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    duration(now.saturating_sub(time))
}

/// Sends the dead letters of a webhook again.
pub(super) async fn replay(cluster: &CommandAccess, webhook: &str) -> Result<CtlAnswer, CtlError> {
    let shown = cluster.registry.show_webhooks().await?;
    let Some(row) = shown.rows.into_iter().find(|row| row.webhook == webhook) else {
        return Err(CtlError::Refused(format!("there is no webhook {webhook}")));
    };
    // What dies again meanwhile is not replayed again.
    let mut replayed = 0;
    while replayed < row.dead {
        let left = (row.dead - replayed).min(REPLAY_STEP as u64);
        match cluster.registry.replay_webhook(webhook, left as usize).await? {
            0 => break,
            step => replayed += step,
        }
    }
    Ok(CtlAnswer::new(format!("replayed {replayed}\n"), &json!({ "webhook": webhook, "replayed": replayed })))
}
