//! The lease table in memory. The rules on it are in `registry/leases/memory.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Incarnation, LeftReason, NickKey, RoomKey};
use crate::registry::{GatewayInfo, Lease, LeaseState, MailboxOrder, RegistryError};

use super::now;

/// The lease table with the index of each gateway's nicks and memberships.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) rows: BTreeMap<Incarnation, LeaseRecord>,
    pub(crate) opened: u64,
}

#[derive(Debug)]
pub(crate) struct LeaseRecord {
    pub(crate) info: GatewayInfo,
    /// The order of opening: of two incarnations of a node the higher one is newer.
    pub(crate) opened: u64,
    pub(crate) counter: u64,
    pub(crate) state: LeaseState,
    /// The time of fencing, or the end of a drained lease's hold.
    pub(crate) ended: u64,
    pub(crate) nicks: BTreeSet<NickKey>,
    pub(crate) members: BTreeSet<(RoomKey, NickKey)>,
    pub(crate) mailbox: Vec<MailboxOrder>,
}

impl LeaseRecord {
    /// Returns true if it must not be reaped yet.
    pub(crate) fn holds(&self) -> bool {
        self.state.serves() || self.state == LeaseState::Drained && self.ended > now()
    }

    pub(crate) fn lease(&self, incarnation: &Incarnation) -> Lease {
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
    /// Returns true if a lease may write and own. A lease that is not in the table counts as fenced.
    pub(crate) fn serves(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.serves())
    }

    pub(crate) fn is_drained(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state == LeaseState::Drained)
    }

    /// Returns true if a gateway's sessions are shown as online.
    pub(crate) fn shows(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.shows())
    }

    /// Returns the leave reason of a gateway's users: `gateway_lost` if its lease is fenced or unknown, else `closed`.
    pub(crate) fn leave_reason(&self, incarnation: &Incarnation) -> LeftReason {
        let known = self.rows.get(incarnation).map(|row| row.state);
        if known.is_none_or(|state| state == LeaseState::Fenced) { LeftReason::GatewayLost } else { LeftReason::Closed }
    }

    pub(crate) fn row(&mut self, incarnation: &Incarnation) -> Option<&mut LeaseRecord> {
        self.rows.get_mut(incarnation)
    }

    pub(crate) fn serving(&mut self, incarnation: &Incarnation) -> Result<&mut LeaseRecord, RegistryError> {
        self.rows.get_mut(incarnation).filter(|row| row.state.serves()).ok_or(RegistryError::Fenced)
    }
}
