//! The calls of the scripts for webhooks.

use std::time::Duration;

use crate::model::keys::{ScriptKeys, WebhookKeys, WebhookUnit};
use crate::registry::redis::{RedisRegistry, ScriptCall, did_change, millis, read};
use crate::registry::reply::ScriptReply;
use crate::registry::{RegistryError, script};

use super::{
    DEAD_LETTERS_MAX, LoggedEvent, TakenEvents, WebhookLead, WebhookRow, WebhookRows, WebhookSettlement, Webhooks,
};

/// The connection of all calls.
const LANE: &str = "webhooks";

impl Webhooks for RedisRegistry {
    async fn lead_webhooks(
        &self,
        lead: &WebhookLead<'_>,
        wanted: &str,
        webhooks: &[&str],
    ) -> Result<bool, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own).partition([
            own.webhook_lead(),
            own.webhook_log(),
            own.webhook_events(),
            own.webhook_cursors(),
        ]);
        let lasts = millis(lead.lasts);
        let args = [&[lead.process, &lasts, wanted], webhooks].concat();
        did_change(&mut self.write(LANE, &script::LEAD_WEBHOOKS, keys, &args).await?)
    }

    async fn resign_webhooks(&self, process: &str) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys()).partition([self.redis.keys().webhook_lead()]);
        did_change(&mut self.write(LANE, &script::RESIGN_WEBHOOKS, keys, &[process]).await?)
    }

    async fn forget_webhooks(&self, after: Duration) -> Result<bool, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own).partition([own.webhook_lead(), own.webhook_log()]);
        did_change(&mut self.write(LANE, &script::FORGET_WEBHOOKS, keys, &[&millis(after)]).await?)
    }

    async fn take_webhook_events(
        &self,
        process: &str,
        webhook: &str,
        [events, bytes]: [usize; 2],
    ) -> Result<Option<TakenEvents>, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own).partition([
            own.webhook_lead(),
            own.webhook_log(),
            own.webhook_events(),
            own.webhook_cursors(),
        ]);
        let (events, bytes) = (events.to_string(), bytes.to_string());
        let args = [process, webhook, &events, &bytes];
        let mut reply =
            read(&self.redis, ScriptCall { script: &script::TAKE_WEBHOOK_EVENTS, keys, args: &args }).await?;
        if !reply.flag()? {
            return Ok(None);
        }
        let (cursor, newest, now) = (reply.number()?, reply.number()?, reply.number()?);
        let events = reply.arrays().map(|event| logged_event(event?)).collect::<Result<_, _>>()?;
        Ok(Some(TakenEvents { cursor, newest, now, events }))
    }

    async fn settle_webhook(
        &self,
        process: &str,
        WebhookSettlement { webhook, from, to, about, dead }: &WebhookSettlement<'_>,
    ) -> Result<bool, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own.webhook(webhook))
            .partition([own.webhook_lead(), own.webhook_cursors(), own.webhook_states()])
            .own([WebhookKeys::dead_letters]);
        let mut args: Vec<String> = [process, webhook].map(str::to_owned).into();
        args.extend([from.to_string(), to.to_string(), (*about).to_owned(), DEAD_LETTERS_MAX.to_string()]);
        for LoggedEvent { original, kind, time, at, data, .. } in *dead {
            args.extend([original.to_string(), kind.clone(), time.to_string(), at.clone(), data.clone()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        did_change(&mut self.write(LANE, &script::SETTLE_WEBHOOK, keys, &args).await?)
    }

    async fn replay_webhook(&self, webhook: &str, limit: usize) -> Result<u64, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own.webhook(webhook)).own([WebhookKeys::dead_letters]);
        let limit = limit.to_string();
        let mut reply = self.write(LANE, &script::REPLAY_WEBHOOK, keys, &[webhook, &limit]).await?;
        crate::registry::redis::done(&mut reply)?;
        reply.number()
    }

    async fn show_webhooks(&self) -> Result<WebhookRows, RegistryError> {
        let own = self.redis.keys();
        let keys = ScriptKeys::of(own)
            .partition([own.webhook_lead(), own.webhook_log(), own.webhook_cursors(), own.webhook_states()])
            .crossing_in_script::<WebhookUnit>();
        let mut reply = read(&self.redis, ScriptCall { script: &script::SHOW_WEBHOOKS, keys, args: &[] }).await?;
        let (leader, newest) = (reply.text()?, reply.number()?);
        let row = |mut row: ScriptReply| {
            let (webhook, cursor) = (row.text()?, row.number()?);
            let waiting = newest.saturating_sub(cursor);
            Ok(WebhookRow { webhook, waiting, dead: row.number()?, about: row.text()? })
        };
        let mut rows = reply.arrays().map(|reply| row(reply?)).collect::<Result<Vec<_>, RegistryError>>()?;
        rows.sort_by(|one, other| one.webhook.cmp(&other.webhook));
        Ok(WebhookRows { leader: Some(leader).filter(|leader| !leader.is_empty()), rows })
    }
}

fn logged_event(mut event: ScriptReply) -> Result<LoggedEvent, RegistryError> {
    let number = event.number()?;
    let (kind, time, at, data) = (event.text()?, event.number()?, event.text()?, event.text()?);
    let (original, logged, only) = (event.text()?, event.text()?, event.text()?);
    let (original, logged) = (original.parse().unwrap_or(number), logged.parse().unwrap_or(time));
    let only = Some(only).filter(|only| !only.is_empty());
    Ok(LoggedEvent { number, original, kind, time, logged, at, data, only })
}
