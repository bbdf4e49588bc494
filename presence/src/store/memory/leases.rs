//! Leases in memory: opening, beating, fencing, and the clean-up after those that ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::nicks::Freed;
use super::{State, now};
use crate::model::{Incarnation, LeftReason, NickKey, Owner, PresenceDelta, RoomKey};
use crate::registry::{
    Beat, Command, Gateway, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, LeaseTransition, Phase, Reaped,
    RegistryError, Stats,
};

/// How long the row of an ended lease stays when nothing is left of it, in milliseconds.
const ENDED_ROWS: u64 = 3600 * 1000;

/// The lease table, and beside each lease what its gateway owns.
#[derive(Debug, Default)]
pub(super) struct Leases {
    rows: BTreeMap<Incarnation, Row>,
    opened: u64,
}

#[derive(Debug)]
pub(super) struct Row {
    info: GatewayInfo,
    /// Grows with each lease that is opened: of two incarnations of a node, which is the newer one.
    opened: u64,
    counter: u64,
    state: LeaseState,
    /// When it was fenced, or when the hold of a drained one is over.
    ended: u64,
    pub(super) nicks: BTreeSet<NickKey>,
    pub(super) members: BTreeSet<(RoomKey, NickKey)>,
    pub(super) mailbox: Vec<Command>,
}

impl Row {
    /// Whether nobody may clean up what it owns yet.
    fn holds(&self) -> bool {
        self.state.serves() || self.state == LeaseState::Drained && self.ended > now()
    }

    fn lease(&self, incarnation: &Incarnation) -> Lease {
        Lease {
            incarnation: incarnation.clone(),
            node: self.info.node.clone(),
            counter: self.counter,
            state: self.state,
            owns: !self.nicks.is_empty() || !self.members.is_empty(),
        }
    }
}

impl Leases {
    /// Whether a lease may write and own. One that is not in the table is as good as fenced.
    pub(super) fn serves(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.serves())
    }

    pub(super) fn is_drained(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state == LeaseState::Drained)
    }

    /// Whether what a gateway owns is shown as there.
    pub(super) fn shows(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.shows())
    }

    /// Why those are gone who were on a gateway whose lease is not live, or who lost their nick on one that is.
    pub(super) fn lost(&self, incarnation: &Incarnation) -> LeftReason {
        let known = self.rows.get(incarnation).map(|row| row.state);
        if known.is_none_or(|state| state == LeaseState::Fenced) { LeftReason::GatewayLost } else { LeftReason::Closed }
    }

    pub(super) fn row(&mut self, incarnation: &Incarnation) -> Option<&mut Row> {
        self.rows.get_mut(incarnation)
    }

    fn serving(&mut self, incarnation: &Incarnation) -> Result<&mut Row, RegistryError> {
        self.rows.get_mut(incarnation).filter(|row| row.state.serves()).ok_or(RegistryError::Fenced)
    }
}

impl State {
    /// Another incarnation of the node that serves and is not over.
    pub(crate) fn twin(&self, incarnation: &Incarnation, node: &str, over: &[Incarnation]) -> Option<Incarnation> {
        let mut rows = self.leases.rows.iter();
        let twin = rows.find(|(other, row)| {
            row.info.node == node && row.state.serves() && *other != incarnation && !over.contains(other)
        });
        twin.map(|(other, _)| other.clone())
    }

    pub(crate) fn open_lease(&mut self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        if let Some(row) = self.leases.rows.get(incarnation) {
            return if row.state.serves() { Ok(()) } else { Err(RegistryError::Fenced) };
        }
        self.leases.opened += 1;
        let row = Row {
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

    pub(crate) fn beat(&mut self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        let row = self.leases.serving(incarnation)?;
        row.counter += 1;
        let counter = row.counter;
        let mailbox = std::mem::take(&mut row.mailbox);
        let now = now();
        for nick in active {
            self.nicks.stamp(nick, incarnation, now);
        }
        self.forget(now);
        self.channels.publish(&self.keys.gateway_channel(incarnation), format!("E {counter}").as_bytes());
        let LeaseTable { generation, leases } = self.lease_table();
        Ok(Beat { generation, asserted: true, counter, leases, mailbox })
    }

    pub(crate) fn reassert(&mut self, incarnation: &Incarnation) -> Result<Vec<Owner>, RegistryError> {
        self.leases.serving(incarnation).map(|_| Vec::new())
    }

    /// Memory goes with its process, so it has one history.
    pub(crate) fn lease_table(&self) -> LeaseTable {
        let leases = self.leases.rows.iter().map(|(incarnation, row)| row.lease(incarnation)).collect();
        LeaseTable { generation: Generation { number: 1, phase: Phase::Open }, leases }
    }

    pub(crate) fn set_lease(
        &mut self,
        incarnation: &Incarnation,
        farewell: LeaseTransition,
    ) -> Result<(), RegistryError> {
        let row = self.leases.rows.get_mut(incarnation).ok_or(RegistryError::Fenced)?;
        if row.state == farewell.state() {
            return Ok(());
        }
        if !row.state.serves() {
            return Err(RegistryError::Fenced);
        }
        row.state = farewell.state();
        if let LeaseTransition::Drained { hold } = farewell {
            row.ended = now() + hold.as_millis() as u64;
        }
        Ok(())
    }

    pub(crate) fn drain(&mut self, incarnation: &Incarnation) -> bool {
        let Ok(row) = self.leases.serving(incarnation) else { return false };
        row.mailbox.push(Command::Drain);
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

    pub(crate) fn reap(&mut self, incarnation: &Incarnation, limit: usize) -> Reaped {
        let mut reaped = Reaped::default();
        let Some(row) = self.leases.rows.get_mut(incarnation).filter(|row| !row.holds()) else { return reaped };
        let reason = if row.state == LeaseState::Drained { LeftReason::Closed } else { LeftReason::GatewayLost };
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
            if let Some(departure) = self.drop_member(&room, &nick, reason) {
                left.entry(room).or_default().push(departure);
                reaped.members += 1;
            }
        }
        for (room, left) in left {
            self.announce(&room, &PresenceDelta { left, ..Default::default() });
        }
        for nick in nicks {
            if !self.nicks.owner(&nick).is_some_and(is_theirs) {
                continue;
            }
            self.free_nick(&nick, Freed::ForAnybody);
            self.log_offline(&nick, reason);
            reaped.nicks += 1;
        }

        let Some(row) = self.leases.rows.get(incarnation) else { return reaped };
        reaped.more = row.lease(incarnation).owns;
        if !reaped.more && now().saturating_sub(row.ended) > ENDED_ROWS {
            self.leases.rows.remove(incarnation);
        }
        reaped
    }

    pub(crate) fn gateways(&self) -> Vec<Gateway> {
        let mut newest: BTreeMap<&str, (&Incarnation, &Row)> = BTreeMap::new();
        for (incarnation, row) in &self.leases.rows {
            match newest.get(row.info.node.as_str()) {
                Some((_, other)) if other.opened > row.opened => {}
                _ => drop(newest.insert(&row.info.node, (incarnation, row))),
            }
        }
        let gateway = |(incarnation, row): (&Incarnation, &Row)| Gateway {
            node: row.info.node.clone(),
            incarnation: incarnation.as_str().to_owned(),
            version: row.info.version.clone(),
            state: row.state,
            beat: row.counter,
            users: if row.state.serves() { row.nicks.len() as u64 } else { 0 },
        };
        newest.into_values().filter(|(_, row)| row.state != LeaseState::Drained).map(gateway).collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        let rows = || self.leases.rows.values();
        Stats {
            users_online: rows().filter(|row| row.state.shows()).map(|row| row.nicks.len() as u64).sum(),
            rooms: self.rooms.listed(),
            gateways: rows().filter(|row| row.state.serves()).count() as u64,
        }
    }
}
