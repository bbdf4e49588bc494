//! Leases in Redis: the calls of the scripts beside this file.

use std::time::Duration;

use ::redis::aio::ConnectionLike;

use crate::model::keys::{NickUnit, NodeKeys, NodeUnit, RoomUnit, ScriptKeys, SessionUnit, SkeletonUnit, UserUnit};
use crate::model::{Incarnation, NickKey, Owner};
use crate::registry::RegistryError;
use crate::registry::redis::{self, RedisRegistry, ScriptCall, did_change, done, json, millis, refused};
use crate::registry::reply::{ScriptReply, from_json, malformed};
use crate::registry::script;
use crate::store::redis::{CallKind, RedisStore};

use super::{
    Beat, BeatReport, CarriedOut, Differences, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, LeaseTransition,
    Leases, LocalClaim, Phase, ReapedBatch, ReassertBatch, UsageReport,
};

/// A row of the lease table with everything that listings show.
pub(in crate::registry) struct LeaseRow {
    pub(in crate::registry) lease: Lease,
    pub(in crate::registry) opened: u64,
    pub(in crate::registry) info: GatewayInfo,
}

impl Leases for RedisRegistry {
    async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        done(&mut self.call_open_lease(&[incarnation.as_str(), &json(info), ""]).await?)
    }

    async fn open_first_lease(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        ended: &[Incarnation],
    ) -> Result<Option<Incarnation>, RegistryError> {
        let json = json(info);
        let mut args = vec![incarnation.as_str(), &json, &info.node];
        args.extend(ended.iter().map(Incarnation::as_str));
        let mut reply = self.call_open_lease(&args).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(None),
            "NODE_IN_USE" => Ok(Some(Incarnation::from_store(&reply.text()?))),
            refusal => Err(refused(refusal)),
        }
    }

    async fn send_beat(&self, incarnation: &Incarnation, report: BeatReport<'_>) -> Result<Beat, RegistryError> {
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys.node(incarnation))
            .partition([keys.beats(), keys.gateways(), keys.ended(), keys.usage()])
            .own([NodeKeys::mailbox])
            .partition([keys.sanctions()])
            .crossing_in_script::<NodeUnit>()
            .crossing_in_script::<NickUnit>();
        let BeatReport { active, usage, usage_seen, carried_out } = report;
        let (answered, orders) = carried_out
            .map_or_else(Default::default, |CarriedOut { counter, orders }| (counter.to_string(), orders.to_string()));
        let words = [incarnation.as_str(), usage, usage_seen, &answered, &orders].into_iter();
        let args: Vec<&str> = words.chain(active.iter().map(NickKey::as_str)).collect();
        let lane = &mut self.redis.lane(incarnation.as_str());
        let call = ScriptCall { script: &script::BEAT, keys: script_keys, args: &args };
        let mut reply = redis::call(&self.redis, CallKind::Beat, lane, call).await?;
        done(&mut reply)?;
        let generation = generation(&mut reply)?;
        let asserted = reply.flag()?;
        let counter = reply.number()?;
        let leases = leases(reply.array()?)?;
        let (mut mailbox, commands) = (Vec::new(), reply.array()?.texts()?);
        let handed_out = CarriedOut { counter, orders: commands.len() };
        for command in commands {
            match serde_json::from_str(&command) {
                Ok(command) => mailbox.push(command),
                // A newer version wrote it: no reason to stop beating.
                Err(_) => tracing::warn!(%incarnation, "unknown order in the mailbox"),
            }
        }
        let mut usage = Vec::new();
        for row in reply.array()?.arrays() {
            let mut row = row?;
            let (id, by) = (row.text()?, Incarnation::from_store(&row.text()?));
            usage.push(UsageReport { id, by, text: row.text()? });
        }
        let sanctions = reply.number()?;
        Ok(Beat { generation, asserted, counter, leases, mailbox, handed_out, usage, sanctions })
    }

    async fn reassert(&self, batch: ReassertBatch<'_>) -> Result<Vec<Owner>, RegistryError> {
        self.write_claims_again(batch).await
    }

    async fn audit(&self, incarnation: &Incarnation, claims: &[LocalClaim]) -> Result<Differences, RegistryError> {
        self.differences(incarnation, claims).await
    }

    async fn leases(&self) -> Result<LeaseTable, RegistryError> {
        // Over a lane: failure detection and readiness never wait for a connection of the query pool.
        let (generation, rows) = lease_rows_over(&self.redis, &mut self.redis.lane("leases")).await?;
        Ok(LeaseTable { generation, leases: rows.into_iter().map(|row| row.lease).collect() })
    }

    async fn observe(&self) -> Result<LeaseTable, RegistryError> {
        let keys = self.redis.keys();
        let keys = ScriptKeys::of(keys).partition([keys.beats(), keys.gateways()]).crossing_in_script::<NodeUnit>();
        let mut reply = self.write("observer", &script::OBSERVE, keys, &[]).await?;
        done(&mut reply)?;
        let generation = generation(&mut reply)?;
        Ok(LeaseTable { generation, leases: leases(reply.array()?)? })
    }

    async fn set_lease(&self, incarnation: &Incarnation, transition: LeaseTransition) -> Result<(), RegistryError> {
        let hold = match transition {
            LeaseTransition::Draining => Duration::ZERO,
            LeaseTransition::Drained { hold } => hold,
        };
        let keys = ScriptKeys::of(self.redis.keys()).partition([self.redis.keys().ended()]);
        let args = [incarnation.as_str(), transition.state().as_str(), &millis(hold)];
        done(&mut self.write(incarnation.as_str(), &script::SET_LEASE, keys, &args).await?)
    }

    async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys).partition([keys.beats(), keys.ended()]);
        let args = [incarnation.as_str(), &counter.to_string()];
        did_change(&mut self.write(incarnation.as_str(), &script::FENCE, script_keys, &args).await?)
    }

    async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<ReapedBatch, RegistryError> {
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys.node(incarnation))
            .partition([keys.beats(), keys.gateways(), keys.ended()])
            .own([NodeKeys::owned_members, NodeKeys::owned_nicks, NodeKeys::mailbox])
            .crossing_in_script::<NodeUnit>()
            .crossing_in_script::<SkeletonUnit>()
            .crossing_in_script::<RoomUnit>()
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<SessionUnit>();
        let args = [incarnation.as_str(), &limit.to_string()];
        let mut reply = self.write(incarnation.as_str(), &script::REAP, script_keys, &args).await?;
        done(&mut reply)?;
        Ok(ReapedBatch { nicks: reply.number()?, members: reply.number()?, more: reply.flag()? })
    }

    async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().node(incarnation)).own([NodeKeys::mailbox]);
        did_change(&mut self.write(incarnation.as_str(), &script::DRAIN, keys, &[incarnation.as_str()]).await?)
    }
}

impl RedisRegistry {
    async fn call_open_lease(&self, args: &[&str]) -> Result<ScriptReply, RegistryError> {
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys)
            .partition([keys.beats(), keys.gateways(), keys.fence(), keys.asserted()])
            .crossing_in_script::<NodeUnit>();
        self.write(args[0], &script::OPEN_LEASE, script_keys, args).await
    }
}

/// Reads number and phase of the generation from a reply.
pub(in crate::registry) fn generation(reply: &mut ScriptReply) -> Result<Generation, RegistryError> {
    let number = reply.number()?;
    let phase = match reply.text()?.as_str() {
        "open" => Phase::Open,
        "recovering" => Phase::Recovering,
        _ => return Err(malformed("a phase")),
    };
    Ok(Generation { number, phase })
}

/// Reads the rows of a lease table from a reply.
pub(in crate::registry) fn leases(rows: ScriptReply) -> Result<Vec<Lease>, RegistryError> {
    Ok(readable(rows)?.into_iter().map(|row| row.lease).collect())
}

/// Reads the whole lease table with its generation.
pub(in crate::registry) async fn lease_rows(redis: &RedisStore) -> Result<(Generation, Vec<LeaseRow>), RegistryError> {
    lease_rows_over(redis, &mut redis.query().await?).await
}

async fn lease_rows_over(
    redis: &RedisStore,
    connection: &mut impl ConnectionLike,
) -> Result<(Generation, Vec<LeaseRow>), RegistryError> {
    let keys = redis.keys();
    let keys = ScriptKeys::of(keys).partition([keys.beats(), keys.gateways()]).crossing_in_script::<NodeUnit>();
    let call = ScriptCall { script: &script::LEASES, keys, args: &[] };
    let mut reply = redis::call(redis, CallKind::Read, connection, call).await?;
    done(&mut reply)?;
    let generation = generation(&mut reply)?;
    Ok((generation, readable(reply.array()?)?))
}

/// Reads the rows, skipping unreadable ones. Every beat returns the whole table, so one foreign row must not stop all
/// gateways.
fn readable(rows: ScriptReply) -> Result<Vec<LeaseRow>, RegistryError> {
    let mut read = Vec::new();
    for row in rows.arrays() {
        match lease_row(row?) {
            Ok(row) => read.push(row),
            Err(error) => tracing::debug!(%error, "row of the lease table skipped"),
        }
    }
    Ok(read)
}

fn lease_row(mut row: ScriptReply) -> Result<LeaseRow, RegistryError> {
    let incarnation = Incarnation::from_store(&row.text()?);
    let state = lease_state(&row.text()?).ok_or_else(|| malformed("a lease state"))?;
    let counter = row.number()?;
    let description = row.text()?;
    let (opened, info) = description.split_once(' ').ok_or_else(|| malformed("a gateway's description"))?;
    let opened = opened.parse().map_err(|_| malformed("a time"))?;
    let info: GatewayInfo = from_json(info)?;
    let lease = Lease { incarnation, node: info.node.clone(), counter, state, owns: row.flag()? };
    Ok(LeaseRow { lease, opened, info })
}

fn lease_state(word: &str) -> Option<LeaseState> {
    [LeaseState::Live, LeaseState::Draining, LeaseState::Drained, LeaseState::Fenced]
        .into_iter()
        .find(|state| state.as_str() == word)
}
