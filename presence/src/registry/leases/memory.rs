//! Leases in memory: the rules of the lease scripts. Nothing is lost here, so there is one generation and nothing to
//! reassert.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Incarnation, NickKey, OfflineReason, Owner, PresenceDelta, RoomKey};
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{FreedFor, LeaseRecord, StoreState, now};

use super::{
    Beat, BeatReport, CarriedOut, Differences, GatewayInfo, Generation, LeaseState, LeaseTable, LeaseTransition,
    Leases, LocalClaim, MailboxOrder, Phase, ReapedBatch, ReassertBatch,
};

/// The lifetime of an empty row of an ended lease.
const ENDED_ROW_MS: u64 = 3600 * 1000;

impl Leases for MemoryRegistry {
    async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        self.store.lock().open_lease(incarnation, info)
    }

    async fn open_first_lease(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        ended: &[Incarnation],
    ) -> Result<Option<Incarnation>, RegistryError> {
        let mut state = self.store.lock();
        match state.other_live_incarnation(incarnation, &info.node, ended) {
            Some(other) => Ok(Some(other)),
            None => state.open_lease(incarnation, info).map(|()| None),
        }
    }

    async fn send_beat(&self, incarnation: &Incarnation, report: BeatReport<'_>) -> Result<Beat, RegistryError> {
        self.store.lock().beat(incarnation, report)
    }

    async fn reassert(&self, batch: ReassertBatch<'_>) -> Result<Vec<Owner>, RegistryError> {
        self.store.lock().reassert(batch.incarnation)
    }

    async fn audit(&self, _: &Incarnation, _: &[LocalClaim]) -> Result<Differences, RegistryError> {
        Ok(Differences::default())
    }

    async fn leases(&self) -> Result<LeaseTable, RegistryError> {
        Ok(self.store.lock().lease_table())
    }

    async fn observe(&self) -> Result<LeaseTable, RegistryError> {
        self.leases().await
    }

    async fn set_lease(&self, incarnation: &Incarnation, transition: LeaseTransition) -> Result<(), RegistryError> {
        self.store.lock().set_lease(incarnation, transition)
    }

    async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        Ok(self.store.lock().fence(incarnation, counter))
    }

    async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<ReapedBatch, RegistryError> {
        Ok(self.store.lock().reap(incarnation, limit))
    }

    async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError> {
        Ok(self.store.lock().drain(incarnation))
    }
}

impl StoreState {
    /// Returns another serving incarnation of the node that is not in `ended`.
    pub(crate) fn other_live_incarnation(
        &self,
        incarnation: &Incarnation,
        node: &str,
        ended: &[Incarnation],
    ) -> Option<Incarnation> {
        let mut rows = self.leases.rows.iter();
        let other = rows.find(|(other, row)| {
            row.info.node == node && row.state.serves() && *other != incarnation && !ended.contains(other)
        });
        other.map(|(other, _)| other.clone())
    }

    pub(crate) fn open_lease(&mut self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        if let Some(row) = self.leases.rows.get(incarnation) {
            return if row.state.serves() { Ok(()) } else { Err(RegistryError::Fenced) };
        }
        self.leases.opened += 1;
        let row = LeaseRecord {
            info: info.clone(),
            opened: self.leases.opened,
            counter: 0,
            state: LeaseState::Live,
            ended: 0,
            nicks: BTreeSet::new(),
            members: BTreeSet::new(),
            mailbox: Vec::new(),
        };
        self.leases.rows.insert(incarnation.clone(), row);
        Ok(())
    }

    pub(crate) fn beat(
        &mut self,
        incarnation: &Incarnation,
        BeatReport { active, usage, usage_seen, carried_out }: BeatReport<'_>,
    ) -> Result<Beat, RegistryError> {
        let row = self.leases.serving(incarnation)?;
        row.counter += 1;
        let counter = row.counter;
        if let Some(done) = carried_out.filter(|done| counter == done.counter + 1) {
            row.mailbox.drain(..done.orders.min(row.mailbox.len()));
        }
        let mailbox = if carried_out.is_some() { row.mailbox.clone() } else { std::mem::take(&mut row.mailbox) };
        let handed_out = CarriedOut { counter, orders: mailbox.len() };
        let now = now();
        for nick in active {
            self.nicks.mark_active(nick, incarnation, now);
        }
        self.delete_expired(now);
        self.channels.publish(&self.keys.node(incarnation).channel(), format!("E {counter}").as_bytes());
        let usage = self.leases.exchange_usage(now, (incarnation, usage), usage_seen);
        let LeaseTable { generation, leases } = self.lease_table();
        let sanctions = self.sanctions.version;
        Ok(Beat { generation, asserted: true, counter, leases, mailbox, handed_out, usage, sanctions })
    }

    pub(crate) fn reassert(&mut self, incarnation: &Incarnation) -> Result<Vec<Owner>, RegistryError> {
        self.leases.serving(incarnation).map(|_| Vec::new())
    }

    /// Memory has one generation, because it ends with its process.
    pub(crate) fn lease_table(&self) -> LeaseTable {
        let leases = self.leases.rows.iter().map(|(incarnation, row)| row.lease(incarnation)).collect();
        LeaseTable { generation: Generation { number: 1, phase: Phase::Open }, leases }
    }

    pub(crate) fn set_lease(
        &mut self,
        incarnation: &Incarnation,
        transition: LeaseTransition,
    ) -> Result<(), RegistryError> {
        let row = self.leases.rows.get_mut(incarnation).ok_or(RegistryError::Fenced)?;
        if row.state == transition.state() {
            return Ok(());
        }
        if !row.state.serves() {
            return Err(RegistryError::Fenced);
        }
        row.state = transition.state();
        if let LeaseTransition::Drained { hold } = transition {
            row.ended = now() + hold.as_millis() as u64;
        }
        Ok(())
    }

    pub(crate) fn drain(&mut self, incarnation: &Incarnation) -> bool {
        let Ok(row) = self.leases.serving(incarnation) else { return false };
        row.mailbox.push(MailboxOrder::Drain);
        true
    }

    pub(crate) fn fence(&mut self, incarnation: &Incarnation, counter: u64) -> bool {
        match self.leases.serving(incarnation) {
            Ok(row) if row.counter == counter => {
                row.state = LeaseState::Fenced;
                row.ended = now();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn reap(&mut self, incarnation: &Incarnation, limit: usize) -> ReapedBatch {
        let mut reaped = ReapedBatch::default();
        let Some(row) = self.leases.rows.get_mut(incarnation).filter(|row| !row.holds()) else { return reaped };
        let reason = if row.state == LeaseState::Drained { OfflineReason::Closed } else { OfflineReason::GatewayLost };
        let members: Vec<(RoomKey, NickKey)> = (0..limit).map_while(|_| row.members.pop_first()).collect();
        let nicks: Vec<NickKey> = (members.len()..limit).map_while(|_| row.nicks.pop_first()).collect();
        let is_theirs = |owner: &Owner| owner.incarnation == *incarnation;

        let mut left: HashMap<RoomKey, Vec<_>> = HashMap::new();
        for (room, nick) in members {
            // The record decides, not the index.
            let Some(owner) = self.rooms.member(&room, &nick).map(|member| member.owner.clone()).filter(is_theirs)
            else {
                continue;
            };
            if let Some(newer) = self.live_owner(&nick).filter(|newer| newer.succeeds(&owner)).cloned() {
                self.hand_over(&room, &nick, newer);
                continue;
            }
            if let Some(departure) = self.drop_member(&room, &nick, reason.left()) {
                left.entry(room).or_default().push(departure);
                reaped.members += 1;
            }
        }
        for (room, left) in left {
            self.announce(&room, &PresenceDelta { left, ..Default::default() });
            self.end_room(&room);
        }
        for nick in nicks {
            if !self.nicks.owner(&nick).is_some_and(is_theirs) {
                continue;
            }
            self.free_nick(&nick, FreedFor::AnySession);
            self.log_offline(&nick, reason);
            reaped.nicks += 1;
        }

        let Some(row) = self.leases.rows.get(incarnation) else { return reaped };
        reaped.more = row.lease(incarnation).owns;
        if !reaped.more && now().saturating_sub(row.ended) > ENDED_ROW_MS {
            self.leases.rows.remove(incarnation);
        }
        reaped
    }
}
