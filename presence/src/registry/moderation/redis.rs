//! The moderation list in Redis: the calls of the scripts beside this file.

use std::time::Duration;

use crate::model::keys::{Keys, NodeUnit, ScriptKeys};
use crate::model::{MODERATION_MAX, ModerationChange, ModerationEntry, ModerationKind, ModerationOrder};
use crate::registry::redis::{self, RedisRegistry, ScriptCall, did_change, done, json, millis, refused};
use crate::registry::reply::malformed;
use crate::registry::{RegistryError, script};

use super::{Moderation, ModerationPage};

/// The order of all writes of the list.
const LANE: &str = "moderation";

impl Moderation for RedisRegistry {
    async fn moderate(
        &self,
        order: &ModerationOrder,
        lasts: Option<Duration>,
    ) -> Result<Option<ModerationEntry>, RegistryError> {
        let keys = list_keys(self.redis.keys()).crossing_in_script::<NodeUnit>();
        let (id, lasts, maximum) = (order.id(), lasts.map(millis).unwrap_or_default(), MODERATION_MAX.to_string());
        let key = order.key.as_deref().unwrap_or_default();
        let args = [&id, order.kind.as_str(), &lasts, &json(order), &maximum, key];
        let mut reply = self.write(LANE, &script::MODERATE, keys, &args).await?;
        match reply.text()?.as_str() {
            "OK" => {
                let change = ModerationChange::parse(&id, &reply.text()?);
                change.and_then(|change| change.entry).map(Some).ok_or_else(|| malformed("a line of the list"))
            }
            "FULL" => Ok(None),
            refusal => Err(refused(refusal)),
        }
    }

    async fn lift(&self, kind: ModerationKind, id: &str) -> Result<bool, RegistryError> {
        let keys = list_keys(self.redis.keys()).crossing_in_script::<NodeUnit>();
        did_change(&mut self.write(LANE, &script::LIFT, keys, &[id, kind.as_str()]).await?)
    }

    async fn moderation_since(&self, version: u64, limit: usize) -> Result<ModerationPage, RegistryError> {
        let keys = self.redis.keys();
        let keys = ScriptKeys::of(keys).partition([keys.moderation(), keys.moderation_order()]);
        let args = [&*version.to_string(), &limit.to_string()];
        let call = ScriptCall { script: &script::MODERATION, keys, args: &args };
        let mut reply = redis::read(&self.redis, call).await?;
        let (version, is_whole, more) = (reply.number()?, reply.flag()?, reply.flag()?);
        let mut changes = Vec::new();
        for row in reply.array()?.arrays() {
            let mut row = row?;
            changes.extend(ModerationChange::parse(&row.text()?, &row.text()?));
        }
        Ok(ModerationPage { version, is_whole, more, changes })
    }

    async fn restore_moderation(
        &self,
        changes: &[ModerationChange],
        version: Option<u64>,
    ) -> Result<(), RegistryError> {
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        let lines = changes.iter().flat_map(|change| [change.id.as_str(), &change.line]);
        let args: Vec<&str> = [version.as_str()].into_iter().chain(lines).collect();
        let keys = list_keys(self.redis.keys());
        done(&mut self.write(LANE, &script::RESTORE_MODERATION, keys, &args).await?)
    }
}

fn list_keys(keys: &Keys) -> ScriptKeys<&Keys> {
    let list = [keys.moderation(), keys.moderation_order(), keys.moderation_ends(), keys.moderation_lifted()];
    ScriptKeys::of(keys).partition(list)
}
