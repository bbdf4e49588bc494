//! [`SanctionList`]: the entries in force and the questions about them. Pure: the time is passed in.
//!
//! A nickname, a user and a session are one lookup, an address one lookup for each prefix length in use. Lifted entries
//! are kept too, so that a store which lost them can be told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use presence::host::client_address::ClientAddress;
use presence::model::codes::CloseCode;
use presence::model::{
    NickKey, SanctionChange, SanctionEntry, SanctionKind, SanctionSubject, SanctionedNetwork, SessionId, UserId,
};

use super::ReadChanges;

/// Maximum number of lifted entries that are kept, as in the store.
const LIFTED_MAX: usize = 1000;

/// A client, as far as moderators can name it.
#[derive(Debug, Clone, Copy)]
pub struct SanctionedClient<'a> {
    /// Its nickname.
    pub nick: &'a NickKey,
    /// The user of its token, with the time of its issue in Unix milliseconds; `None` for a guest.
    pub user: Option<(&'a UserId, u64)>,
    /// Its session; `None` before it has one.
    pub session: Option<&'a SessionId>,
    /// Its address, if it is known.
    pub address: Option<ClientAddress>,
}

/// Entries of one kind by their subject.
#[derive(Debug, Default)]
struct SubjectIndex {
    nicks: HashMap<NickKey, Arc<SanctionEntry>>,
    users: HashMap<UserId, Arc<SanctionEntry>>,
    sessions: HashMap<SessionId, Arc<SanctionEntry>>,
    /// By prefix length.
    networks: BTreeMap<u8, HashMap<SanctionedNetwork, Arc<SanctionEntry>>>,
}

impl SubjectIndex {
    fn insert(&mut self, entry: Arc<SanctionEntry>) {
        match &entry.order.subject {
            SanctionSubject::Nick(nick) => drop(self.nicks.insert(nick.key().clone(), entry)),
            SanctionSubject::User(user) => drop(self.users.insert(user.clone(), entry)),
            SanctionSubject::Session(session) => drop(self.sessions.insert(session.clone(), entry)),
            SanctionSubject::Network(network) => {
                self.networks.entry(network.prefix()).or_default().insert(*network, entry);
            }
        }
    }

    fn remove(&mut self, entry: &SanctionEntry) {
        match &entry.order.subject {
            SanctionSubject::Nick(nick) => drop(self.nicks.remove(nick.key())),
            SanctionSubject::User(user) => drop(self.users.remove(user)),
            SanctionSubject::Session(session) => drop(self.sessions.remove(session)),
            SanctionSubject::Network(network) => {
                if let Some(of_prefix) = self.networks.get_mut(&network.prefix()) {
                    of_prefix.remove(network);
                    if of_prefix.is_empty() {
                        self.networks.remove(&network.prefix());
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.nicks.is_empty() && self.users.is_empty() && self.sessions.is_empty() && self.networks.is_empty()
    }

    fn of_address(&self, now: u64, address: ClientAddress) -> Option<&SanctionEntry> {
        let ip = address.ip();
        let mut found = self.networks.iter().filter_map(|(prefix, networks)| {
            networks.get(&SanctionedNetwork::around(ip, *prefix)?).filter(|entry| entry.is_in_force(now))
        });
        found.next().map(Arc::as_ref)
    }

    fn of_client(&self, now: u64, client: &SanctionedClient<'_>) -> Option<&SanctionEntry> {
        let in_force = |entry: &&Arc<SanctionEntry>| entry.is_in_force(now);
        let named = self.nicks.get(client.nick).filter(in_force);
        let user = || client.user.and_then(|(user, _)| self.users.get(user)).filter(in_force);
        let session = || client.session.and_then(|session| self.sessions.get(session)).filter(in_force);
        let found = named.or_else(user).or_else(session).map(Arc::as_ref);
        found.or_else(|| client.address.and_then(|address| self.of_address(now, address)))
    }
}

/// The effects of changes on sessions.
#[derive(Debug, Default)]
pub struct SanctionEffects {
    /// Kicks that were ordered since the list was read before.
    kicks: SubjectIndex,
    /// True if a ban or a revocation came into force.
    has_new_rules: bool,
}

impl SanctionEffects {
    /// Returns true if no session is to end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_new_rules && self.kicks.is_empty()
    }

    /// Returns true if a session was kicked.
    #[must_use]
    pub fn kicks(&self, client: &SanctionedClient<'_>) -> bool {
        // Whenever it arrives: the time of a kick only bounds its place in the list.
        self.kicks.of_client(0, client).is_some()
    }
}

/// The list of sanctions.
#[derive(Debug, Default)]
pub struct SanctionList {
    version: u64,
    /// True once this is the list of the store, which may be empty.
    is_known: bool,
    changes: HashMap<String, SanctionChange>,
    bans: SubjectIndex,
    mutes: SubjectIndex,
    revocations: SubjectIndex,
}

impl SanctionList {
    /// Returns its version; 0 before it was read.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns true once this was the list of the store.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Notes that the store has this version too.
    pub fn confirm(&mut self) {
        self.is_known = true;
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.changes.values().filter(|change| change.entry.is_some()).count()
    }

    /// Returns true if it has a mute.
    #[must_use]
    pub fn has_mutes(&self) -> bool {
        !self.mutes.is_empty()
    }

    /// Applies changes, and forgets entries that have ended.
    pub fn apply(&mut self, now: u64, read: ReadChanges) -> SanctionEffects {
        let mut effects = SanctionEffects::default();
        let is_news = self.is_known && !read.is_whole;
        if read.is_whole {
            *self = Self::default();
        }
        for change in read.changes {
            self.forget(&change.id);
            if let Some(entry) = change.entry.as_ref().filter(|entry| entry.is_in_force(now)) {
                let entry = Arc::new(entry.clone());
                match entry.order.kind {
                    SanctionKind::Kick if is_news => effects.kicks.insert(entry),
                    SanctionKind::Kick => {}
                    kind => {
                        effects.has_new_rules |= kind != SanctionKind::Mute;
                        self.index(kind).into_iter().for_each(|index| index.insert(Arc::clone(&entry)));
                    }
                }
            }
            self.changes.insert(change.id.clone(), change);
        }
        self.forget_ended(now);
        (self.version, self.is_known) = (read.version, true);
        effects
    }

    /// Returns the changes after a version that still matter, in their order.
    #[must_use]
    pub fn changes_after(&self, now: u64, version: u64) -> Vec<SanctionChange> {
        let matters = |change: &&SanctionChange| {
            change.version > version && change.entry.as_ref().is_none_or(|entry| entry.is_in_force(now))
        };
        let mut changes: Vec<SanctionChange> = self.changes.values().filter(matters).cloned().collect();
        changes.sort_unstable_by_key(|change| change.version);
        changes
    }

    /// Returns true if clients of this address are banned.
    #[must_use]
    pub fn bans_address(&self, now: u64, address: ClientAddress) -> bool {
        self.bans.of_address(now, address).is_some()
    }

    /// Returns true if a nickname is banned.
    #[must_use]
    pub fn bans_nick(&self, now: u64, nick: &NickKey) -> bool {
        self.bans.nicks.get(nick).is_some_and(|entry| entry.is_in_force(now))
    }

    /// Returns the ban of a client.
    #[must_use]
    pub fn ban_of(&self, now: u64, client: &SanctionedClient<'_>) -> Option<&SanctionEntry> {
        self.bans.of_client(now, client)
    }

    /// Returns true if a client may not send messages.
    #[must_use]
    pub fn mutes(&self, now: u64, nick: &NickKey, user: Option<&UserId>) -> bool {
        let user = user.map(|user| (user, 0));
        self.mutes.of_client(now, &SanctionedClient { nick, user, session: None, address: None }).is_some()
    }

    /// Returns true if a token of the user that was issued at this time is refused.
    #[must_use]
    pub fn revokes(&self, now: u64, user: &UserId, issued: u64) -> bool {
        let revocation = self.revocations.users.get(user).filter(|entry| entry.is_in_force(now));
        revocation.is_some_and(|entry| issued < entry.revoked_before())
    }

    /// Returns the code with which a session is to end.
    #[must_use]
    pub fn verdict(&self, now: u64, client: &SanctionedClient<'_>) -> Option<CloseCode> {
        if self.ban_of(now, client).is_some() {
            return Some(CloseCode::Banned);
        }
        let is_revoked = client.user.is_some_and(|(user, issued)| self.revokes(now, user, issued));
        is_revoked.then_some(CloseCode::TokenExpired)
    }

    fn index(&mut self, kind: SanctionKind) -> Option<&mut SubjectIndex> {
        match kind {
            SanctionKind::Ban => Some(&mut self.bans),
            SanctionKind::Mute => Some(&mut self.mutes),
            SanctionKind::Revocation => Some(&mut self.revocations),
            SanctionKind::Kick => None,
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(entry) = self.changes.remove(id).and_then(|change| change.entry)
            && let Some(index) = self.index(entry.order.kind)
        {
            index.remove(&entry);
        }
    }

    fn forget_ended(&mut self, now: u64) {
        let has_ended = |change: &SanctionChange| change.entry.as_ref().is_some_and(|entry| !entry.is_in_force(now));
        let ended = self.changes.values().filter(|change| has_ended(change));
        let mut lifted: Vec<&SanctionChange> = self.changes.values().filter(|change| change.entry.is_none()).collect();
        lifted.sort_unstable_by_key(|change| change.version);
        let oldest = lifted[..lifted.len().saturating_sub(LIFTED_MAX)].iter().copied();
        let ids: Vec<String> = ended.chain(oldest).map(|change| change.id.clone()).collect();
        ids.iter().for_each(|id| self.forget(id));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
