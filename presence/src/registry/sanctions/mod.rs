//! Sanctions of the cluster: the list of bans, mutes, kicks and revocations that every gateway holds in memory.
//!
//! The list has a version, which each beat returns and each change sends to all gateways. A gateway reads the changes
//! since its own version, and writes back what a store has lost. Nothing here enforces an order: gateways do.

mod memory;
mod redis;

use std::time::Duration;

use crate::model::{SanctionChange, SanctionEntry, SanctionKind, SanctionOrder, SanctionSubject, SubjectFields};

use super::RegistryError;

/// Maximum number of changes in one page.
pub const SANCTION_PAGE: usize = 1000;

/// The place of a reader in the changes of the list of sanctions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SanctionCursor {
    /// The reader has every change up to this version that is not forgotten.
    after: u64,
    /// The version of the list that the reader had, or at the start of its reading of the whole list: changes up to it
    /// may be forgotten.
    as_of: u64,
}

impl From<u64> for SanctionCursor {
    /// The place of a reader that has the list of a version; 0 for none.
    fn from(version: u64) -> Self {
        Self { after: version, as_of: version }
    }
}

impl SanctionCursor {
    /// Returns the place behind a page that was read from this one.
    #[must_use]
    pub fn behind(self, page: &SanctionPage) -> Self {
        let after = page.changes.last().map_or(page.version, |change| change.version);
        Self { after, as_of: if page.is_whole { page.version } else { self.as_of } }
    }
}

/// A page of the changes of the list of sanctions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanctionPage {
    /// The version of the list.
    pub version: u64,
    /// True if earlier changes may have been forgotten: the page is then the first one of the whole list.
    pub is_whole: bool,
    /// True if there are further changes.
    pub more: bool,
    /// The changes, in their order. Unreadable ones are left out.
    pub changes: Vec<SanctionChange>,
}

/// An entry of the list of sanctions as operators and programs see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SanctionRow {
    /// The id, with which it can be lifted.
    pub id: String,
    /// Of an entry about a nickname: the nickname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nick: Option<String>,
    /// Of an entry about a user: the user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Of an entry about addresses: the address, or the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Of an entry about a session: the session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The reason. Absent if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The moderator.
    pub by: String,
    /// The time of the order, in Unix milliseconds.
    pub time: u64,
    /// The end, in Unix milliseconds; `null` for never.
    pub until: Option<u64>,
    /// Of a revocation: tokens issued before this time are refused, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

impl From<SanctionEntry> for SanctionRow {
    fn from(entry: SanctionEntry) -> Self {
        let before = (entry.order.kind == SanctionKind::Revocation).then(|| entry.revoked_before());
        let SanctionEntry { id, order, until, time, .. } = entry;
        let SubjectFields { nick, user, session, address } = order.subject.into();
        Self { id, nick, user, address, session, reason: order.reason, by: order.by, time, until, before }
    }
}

contract! {
    /// The list of sanctions.
    Sanctions {
        /// Puts an order in force, for a time or for good, in place of an earlier one of its kind and subject. Sends
        /// the new version to all gateways. While an order with the same key is in force, it changes nothing and
        /// returns that one. Returns `None` if the list is full:
        /// [`SANCTIONS_MAX`](crate::model::SANCTIONS_MAX) entries of a kind.
        ///
        /// # Errors
        /// `Unavailable`, also while a generation recovers, or `Unknown`; call it again.
        async fn sanction(
            &self,
            order: &SanctionOrder,
            lasts: Option<Duration>,
        ) -> Result<Option<SanctionEntry>, RegistryError>;

        /// Ends an entry of this kind before its time. Returns true if it was in force.
        ///
        /// # Errors
        /// As for [`Registry::sanction`](super::Registry::sanction).
        async fn lift(&self, kind: SanctionKind, id: &str) -> Result<bool, RegistryError>;

        /// Reads the next page of changes behind a place.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn sanctions_since(&self, place: SanctionCursor, limit: usize) -> Result<SanctionPage, RegistryError>;

        /// Writes changes again that the store has lost, and with the last batch the version after them. A newer change
        /// of the same entry stays. Idempotent.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; call it again.
        async fn restore_sanctions(
            &self,
            changes: &[SanctionChange],
            version: Option<u64>,
        ) -> Result<(), RegistryError>;
    }
}

impl super::Registry {
    /// Puts an order in force as [`Registry::sanction`](super::Registry::sanction) does. If it names a nickname whose
    /// session has another one now, the same order about that one is in force too, as an entry of its own.
    ///
    /// # Errors
    /// As for [`Registry::sanction`](super::Registry::sanction): the second order may be missing. Call it again.
    pub async fn sanction_person(
        &self,
        order: &SanctionOrder,
        lasts: Option<Duration>,
    ) -> Result<Option<SanctionEntry>, RegistryError> {
        let entry = self.sanction(order, lasts).await?;
        // After the order: a session that is renamed from now on meets it at its gateway.
        if let (Some(_), SanctionSubject::Nick(nick)) = (&entry, &order.subject)
            && let Some(present) = self.renamed(nick.key()).await?
        {
            let order = SanctionOrder { subject: SanctionSubject::Nick(present), ..order.clone() };
            self.sanction(&order, lasts).await?;
        }
        Ok(entry)
    }

    /// Reads every entry of a kind that is in force at a time, in Unix milliseconds; the oldest first.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn sanction_entries(&self, kind: SanctionKind, now: u64) -> Result<Vec<SanctionEntry>, RegistryError> {
        let (mut entries, mut place, mut more) = (Vec::new(), SanctionCursor::from(0), true);
        while more {
            let page = self.sanctions_since(place, SANCTION_PAGE).await?;
            if page.is_whole {
                entries.clear();
            }
            more = page.more;
            place = place.behind(&page);
            let found = page.changes.into_iter().filter_map(|change| change.entry);
            entries.extend(found.filter(|entry| entry.order.kind == kind && entry.is_in_force(now)));
        }
        Ok(entries)
    }
}
