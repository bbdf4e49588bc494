//! The list of sanctions in Redis: the calls of the scripts beside this file.

use std::time::Duration;

use crate::model::keys::{Keys, NodeUnit, ScriptKeys};
use crate::model::{SANCTIONS_MAX, SanctionChange, SanctionEntry, SanctionKind, SanctionOrder};
use crate::registry::redis::{self, RedisRegistry, ScriptCall, did_change, done, json, millis, refused};
use crate::registry::reply::malformed;
use crate::registry::{RegistryError, script};

use super::{SanctionCursor, SanctionPage, Sanctions};

/// The order of all writes of the list.
const LANE: &str = "sanctions";

impl Sanctions for RedisRegistry {
    async fn sanction(
        &self,
        order: &SanctionOrder,
        lasts: Option<Duration>,
    ) -> Result<Option<SanctionEntry>, RegistryError> {
        let keys = list_keys(self.redis.keys()).crossing_in_script::<NodeUnit>();
        let (id, lasts, maximum) = (order.id(), lasts.map(millis).unwrap_or_default(), SANCTIONS_MAX.to_string());
        let key = order.key.as_deref().unwrap_or_default();
        let args = [&id, order.kind.as_str(), &lasts, &json(order), &maximum, key];
        let mut reply = self.write(LANE, &script::SANCTION, keys, &args).await?;
        match reply.text()?.as_str() {
            "OK" => {
                let change = SanctionChange::parse(&id, &reply.text()?);
                change.and_then(|change| change.entry).map(Some).ok_or_else(|| malformed("a line of the list"))
            }
            "FULL" => Ok(None),
            refusal => Err(refused(refusal)),
        }
    }

    async fn lift(&self, kind: SanctionKind, id: &str) -> Result<bool, RegistryError> {
        let keys = list_keys(self.redis.keys()).crossing_in_script::<NodeUnit>();
        did_change(&mut self.write(LANE, &script::LIFT, keys, &[id, kind.as_str()]).await?)
    }

    async fn sanctions_since(&self, place: SanctionCursor, limit: usize) -> Result<SanctionPage, RegistryError> {
        let keys = self.redis.keys();
        let keys = ScriptKeys::of(keys).partition([keys.sanctions(), keys.sanction_order()]);
        let SanctionCursor { after, as_of } = place;
        let args = [&*after.to_string(), &limit.to_string(), &as_of.to_string()];
        let call = ScriptCall { script: &script::SANCTIONS, keys, args: &args };
        let mut reply = redis::read(&self.redis, call).await?;
        let (version, is_whole, more) = (reply.number()?, reply.flag()?, reply.flag()?);
        let mut changes = Vec::new();
        for row in reply.array()?.arrays() {
            let mut row = row?;
            changes.extend(SanctionChange::parse(&row.text()?, &row.text()?));
        }
        Ok(SanctionPage { version, is_whole, more, changes })
    }

    async fn restore_sanctions(&self, changes: &[SanctionChange], version: Option<u64>) -> Result<(), RegistryError> {
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        let lines = changes.iter().flat_map(|change| [change.id.as_str(), &change.line]);
        let args: Vec<&str> = [version.as_str()].into_iter().chain(lines).collect();
        let keys = list_keys(self.redis.keys());
        done(&mut self.write(LANE, &script::RESTORE_SANCTIONS, keys, &args).await?)
    }
}

fn list_keys(keys: &Keys) -> ScriptKeys<&Keys> {
    let list = [keys.sanctions(), keys.sanction_order(), keys.sanction_ends(), keys.sanctions_lifted()];
    ScriptKeys::of(keys).partition(list)
}
