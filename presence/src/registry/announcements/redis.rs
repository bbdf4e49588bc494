//! Announcements in Redis: the call of `announce.lua`.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::keys::{NodeUnit, ScriptKeys};
use crate::registry::redis::{RedisRegistry, json, refused};
use crate::registry::{RegistryError, retry, script};

use super::{ANNOUNCED_FOR, AnnouncementRequest, Announcements, MAILBOX_ORDERS_MAX, SentAnnouncement};

/// The order of announcements of one process.
const LANE: &str = "announcements";

/// The fields of an announcement that its sender knows, named as in `model::AnnouncementOrder`.
#[derive(Serialize)]
struct GivenFields<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [String],
    body: &'a RawValue,
}

impl Announcements for RedisRegistry {
    async fn announce(&self, request: &AnnouncementRequest) -> Result<Option<SentAnnouncement>, RegistryError> {
        retry::answered(|| self.try_announce(request)).await
    }
}

impl RedisRegistry {
    async fn try_announce(&self, request: &AnnouncementRequest) -> Result<Option<SentAnnouncement>, RegistryError> {
        let keys = self.redis.keys();
        let keys = ScriptKeys::of(keys).partition([keys.announced(&request.mark())]).crossing_in_script::<NodeUnit>();
        let fields = json(&GivenFields { tags: &request.tags, body: &request.body });
        // Without its braces, as the script joins it with the others.
        let fields = format!("{},", &fields[1..fields.len() - 1]);
        let (seconds, maximum) = (ANNOUNCED_FOR.as_secs().to_string(), MAILBOX_ORDERS_MAX.to_string());
        let args = [request.id.as_str(), &fields, &seconds, &maximum];
        let mut reply = self.write(LANE, &script::ANNOUNCE, keys, &args).await?;
        match reply.text()?.as_str() {
            "OK" => {
                let (id, time) = (reply.text()?, reply.number()?);
                let duplicate = id != request.id;
                Ok(Some(SentAnnouncement { id, time, duplicate }))
            }
            "FULL" => Ok(None),
            refusal => Err(refused(refusal)),
        }
    }
}
