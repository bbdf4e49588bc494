//! How a gateway tells the store what it holds, for a store that may have forgotten it.

use serde::Serialize;

use super::reply::Reply;
use super::{RedisRegistry, done, json, member_info, scripts};
use crate::model::{Incarnation, Owner, Status};
use crate::registry::{GatewayInfo, LocalClaim, RegistryError};

/// A holding as the script reads it.
#[derive(Serialize)]
pub(super) struct Said<'a> {
    nick: &'a str,
    display: &'a str,
    skeleton: &'a str,
    ascii: u8,
    owner: String,
    status: String,
    info: String,
    token: &'a str,
    detached: bool,
    rooms: Vec<[&'a str; 2]>,
}

impl<'a> From<&'a LocalClaim> for Said<'a> {
    fn from(holding: &'a LocalClaim) -> Self {
        let LocalClaim { nick, owner, status, rooms, token, detached } = holding;
        Self {
            nick: nick.key().as_str(),
            display: nick.as_str(),
            skeleton: nick.skeleton(),
            ascii: u8::from(nick.is_ascii()),
            owner: owner.token(),
            status: if *status == Status::default() { String::new() } else { json(status) },
            info: member_info(nick, status),
            token: token.as_str(),
            detached: *detached,
            rooms: rooms.iter().map(|room| [room.key().as_str(), room.as_str()]).collect(),
        }
    }
}

impl RedisRegistry {
    pub(in crate::registry) async fn reassert(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        generation: u64,
        holdings: &[LocalClaim],
        last: bool,
    ) -> Result<Vec<Owner>, RegistryError> {
        let keys = self.redis.keys();
        let named = [keys.beats(), keys.gateways(), keys.fence(), keys.asserted()];
        let mut args = vec![
            incarnation.to_string(),
            json(info),
            generation.to_string(),
            u8::from(last).to_string(),
            uuid::Uuid::new_v4().simple().to_string(),
        ];
        args.extend(holdings.iter().map(|holding| json(&Said::from(holding))));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut reply = self.write(&scripts::REASSERT, incarnation.as_str(), &named, &args).await?;
        done(&mut reply)?;
        claims(&mut reply, holdings)
    }
}

/// The claims among those of `holdings` whose tokens are left in a reply.
pub(super) fn claims(reply: &mut Reply, holdings: &[LocalClaim]) -> Result<Vec<Owner>, RegistryError> {
    let mut claims = Vec::new();
    while !reply.is_empty() {
        let token = reply.text()?;
        claims.extend(holdings.iter().map(|holding| &holding.owner).find(|owner| owner.token() == token).cloned());
    }
    Ok(claims)
}
