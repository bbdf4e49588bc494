//! The lease table in memory. The rules on it are in `registry/leases/memory.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{Incarnation, NickKey, OfflineReason, RoomKey};
use crate::registry::{GatewayInfo, Lease, LeaseState, MailboxOrder, RegistryError, UsageReport};

use super::now;

/// The lifetime of reported usage.
const USAGE_MS: u64 = 10_000;
/// The age of reported usage that a gateway reads at its first beat.
const FIRST_USAGE_MS: u64 = 2000;

/// The lease table with the index of each gateway's nicks and memberships.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) rows: BTreeMap<Incarnation, LeaseRecord>,
    pub(crate) opened: u64,
    usage: UsageLog,
}

/// The usage of limits that gateways have reported within the last 10 s.
#[derive(Debug, Default)]
struct UsageLog {
    added: u64,
    rows: VecDeque<(u64, UsageReport)>,
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

    /// Returns the reason why a gateway's users went offline: `gateway_lost` if its lease is fenced or unknown, else
    /// `closed`.
    pub(crate) fn offline_reason(&self, incarnation: &Incarnation) -> OfflineReason {
        let known = self.rows.get(incarnation).map(|row| row.state);
        let is_lost = known.is_none_or(|state| state == LeaseState::Fenced);
        if is_lost { OfflineReason::GatewayLost } else { OfflineReason::Closed }
    }

    pub(crate) fn row(&mut self, incarnation: &Incarnation) -> Option<&mut LeaseRecord> {
        self.rows.get_mut(incarnation)
    }

    pub(crate) fn serving(&mut self, incarnation: &Incarnation) -> Result<&mut LeaseRecord, RegistryError> {
        self.rows.get_mut(incarnation).filter(|row| row.state.serves()).ok_or(RegistryError::Fenced)
    }

    /// Adds the usage that a gateway reports, and returns what was reported after the id that it knows: the rule of
    /// `beat.lua`.
    pub(crate) fn exchange_usage(
        &mut self,
        now: u64,
        (by, used): (&Incarnation, &str),
        seen: &str,
    ) -> Vec<UsageReport> {
        let UsageLog { added, rows } = &mut self.usage;
        if !used.is_empty() {
            *added += 1;
            rows.retain(|(time, _)| now.saturating_sub(*time) <= USAGE_MS);
            rows.push_back((now, UsageReport { id: added.to_string(), by: by.clone(), text: used.to_owned() }));
        }
        let seen: Option<u64> = seen.parse().ok();
        let is_new = |(time, report): &&(u64, UsageReport)| match seen {
            Some(seen) => report.id.parse().is_ok_and(|id: u64| id > seen),
            None => now.saturating_sub(*time) <= FIRST_USAGE_MS,
        };
        rows.iter().filter(is_new).map(|(_, report)| report.clone()).collect()
    }
}
