//! Claims as scripts read them, and the calls that write them again (`reassert.lua`) in a store that lost them.

use serde::Serialize;

use crate::model::keys::{NickUnit, NodeUnit, RoomUnit, ScriptKeys, SessionUnit, SkeletonUnit, UserUnit};
use crate::model::{Owner, Status, UserId};
use crate::registry::redis::{RedisRegistry, done, json, member_info};
use crate::registry::reply::ScriptReply;
use crate::registry::{RegistryError, script};

use super::{LocalClaim, ReassertBatch};

/// A claim as scripts read it.
#[derive(Serialize)]
pub(super) struct ScriptClaim<'a> {
    nick: &'a str,
    display: &'a str,
    skeletons: &'a str,
    ascii: u8,
    owner: String,
    status: String,
    info: String,
    token: &'a str,
    detached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    rooms: Vec<[&'a str; 2]>,
}

impl<'a> From<&'a LocalClaim> for ScriptClaim<'a> {
    fn from(claim: &'a LocalClaim) -> Self {
        let LocalClaim { nick, owner, user, status, rooms, token, detached } = claim;
        Self {
            nick: nick.key().as_str(),
            display: nick.as_str(),
            skeletons: nick.skeletons().as_str(),
            ascii: u8::from(nick.is_ascii()),
            owner: owner.token(),
            status: if *status == Status::default() { String::new() } else { json(status) },
            info: member_info(nick, user.as_deref(), status),
            token: token.as_str(),
            detached: *detached,
            user: user.as_deref().map(UserId::as_str),
            rooms: rooms.iter().map(|room| [room.key().as_str(), room.as_str()]).collect(),
        }
    }
}

impl RedisRegistry {
    pub(super) async fn write_claims_again(&self, batch: ReassertBatch<'_>) -> Result<Vec<Owner>, RegistryError> {
        let ReassertBatch { incarnation, info, generation, claims, last } = batch;
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys)
            .partition([keys.beats(), keys.gateways(), keys.fence(), keys.asserted()])
            .crossing_in_script::<SkeletonUnit>()
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<RoomUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut args = vec![
            incarnation.to_string(),
            json(info),
            generation.to_string(),
            u8::from(last).to_string(),
            uuid::Uuid::new_v4().simple().to_string(),
        ];
        args.extend(claims.iter().map(|claim| json(&ScriptClaim::from(claim))));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut reply = self.write(incarnation.as_str(), &script::REASSERT, script_keys, &args).await?;
        done(&mut reply)?;
        named_claims(&mut reply, claims)
    }
}

/// Returns the claims whose tokens the rest of a reply names.
pub(super) fn named_claims(reply: &mut ScriptReply, claims: &[LocalClaim]) -> Result<Vec<Owner>, RegistryError> {
    let mut named = Vec::new();
    while !reply.is_empty() {
        let token = reply.text()?;
        named.extend(claims.iter().map(|claim| &claim.owner).find(|owner| owner.token() == token).cloned());
    }
    Ok(named)
}
