//! Leases in memory: opening, beating, fencing, and the clean-up after those that ended.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Incarnation, LeftReason, NickKey, RoomKey};
use crate::registry::{GatewayInfo, Lease, LeaseState, MailboxOrder, RegistryError};

use super::now;

/// The lease table, and beside each lease what its gateway owns.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) rows: BTreeMap<Incarnation, LeaseRecord>,
    pub(crate) opened: u64,
}

#[derive(Debug)]
pub(crate) struct LeaseRecord {
    pub(crate) info: GatewayInfo,
    /// Grows with each lease that is opened: of two incarnations of a node, which is the newer one.
    pub(crate) opened: u64,
    pub(crate) counter: u64,
    pub(crate) state: LeaseState,
    /// When it was fenced, or when the hold of a drained one is over.
    pub(crate) ended: u64,
    pub(crate) nicks: BTreeSet<NickKey>,
    pub(crate) members: BTreeSet<(RoomKey, NickKey)>,
    pub(crate) mailbox: Vec<MailboxOrder>,
}

impl LeaseRecord {
    /// Whether nobody may clean up what it owns yet.
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
    /// Whether a lease may write and own. One that is not in the table is as good as fenced.
    pub(crate) fn serves(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.serves())
    }

    pub(crate) fn is_drained(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state == LeaseState::Drained)
    }

    /// Whether what a gateway owns is shown as there.
    pub(crate) fn shows(&self, incarnation: &Incarnation) -> bool {
        self.rows.get(incarnation).is_some_and(|row| row.state.shows())
    }

    /// Why those are gone who were on a gateway whose lease is not live, or who lost their nick on one that is.
    pub(crate) fn lost(&self, incarnation: &Incarnation) -> LeftReason {
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
