//! Sanctions of the cluster on this gateway: the list of bans, mutes, kicks and revocations, in memory.
//!
//! [`ClusterSanctions`] answers every question without the store. Beats and the gateway's channel name the version of
//! the list in the store; a task of `lease` then reads the changes. Invariant: a list that was read once stays in force
//! while the store is away. Ends no session itself.

mod list;
mod refusals;

pub use self::list::{SanctionEffects, SanctionList, SanctionedClient};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use presence::host::client_address::ClientAddress;
use presence::model::codes::CloseCode;
use presence::model::{NickKey, SanctionChange, UserId};
use tokio::sync::Notify;

use self::refusals::BanRefusals;

/// The list of sanctions of this gateway.
#[derive(Debug)]
pub struct ClusterSanctions {
    list: RwLock<SanctionList>,
    /// True while any client is muted: without mutes a message costs no lock.
    has_mutes: AtomicBool,
    /// The newest version that the store has named.
    named: AtomicU64,
    /// The time since which the list here is not the one of that version.
    behind_since: Mutex<Option<Instant>>,
    changed: Notify,
    refusals: BanRefusals,
}

/// Changes read from the store, to apply together.
#[derive(Debug, Default)]
pub struct ReadChanges {
    /// The version of the list after them.
    pub version: u64,
    /// True if they are the whole list.
    pub is_whole: bool,
    /// The changes, in their order.
    pub changes: Vec<SanctionChange>,
}

/// A ban, as the banned client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanNotice {
    /// The moderator's reason. Empty for none.
    pub reason: String,
}

impl ClusterSanctions {
    /// Creates an empty list; `names_addresses` is `log.addresses`.
    #[must_use]
    pub fn new(names_addresses: bool) -> Self {
        Self {
            list: RwLock::default(),
            has_mutes: AtomicBool::new(false),
            named: AtomicU64::new(0),
            behind_since: Mutex::default(),
            changed: Notify::new(),
            refusals: BanRefusals::new(names_addresses),
        }
    }

    /// Returns the version of the list here.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.read().version()
    }

    /// Returns true once the list here was that of the store.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.read().is_known()
    }

    /// Notes the version of the list in the store. If it is another one, the task that waits for it reads the list.
    pub fn note_version(&self, version: u64) {
        self.named.store(version, Ordering::Relaxed);
        let mut behind = self.behind_since.lock().unwrap_or_else(PoisonError::into_inner);
        if self.version() == version {
            *behind = None;
            if version == 0 {
                self.write().confirm();
            }
        } else {
            behind.get_or_insert_with(Instant::now);
            self.changed.notify_one();
        }
    }

    /// Waits until the store has named another version. Only one task may wait. Dropping the future loses nothing.
    pub async fn other_version(&self) {
        self.changed.notified().await;
    }

    /// Returns the time since which the list here is not the one in the store.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let behind = self.behind_since.lock().unwrap_or_else(PoisonError::into_inner);
        behind.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Applies changes of the store. Returns their effects on the sessions of this gateway.
    pub fn apply(&self, read: ReadChanges) -> SanctionEffects {
        let mut list = self.write();
        let effects = list.apply(unix_ms(), read);
        self.has_mutes.store(list.has_mutes(), Ordering::Relaxed);
        let version = list.version();
        drop(list);
        if version == self.named.load(Ordering::Relaxed) {
            *self.behind_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        effects
    }

    /// Returns the changes after a version, in their order, for a store that has lost them.
    #[must_use]
    pub fn changes_after(&self, version: u64) -> Vec<SanctionChange> {
        self.read().changes_after(unix_ms(), version)
    }

    /// Returns the number of entries in force.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.read().entries()
    }

    /// Returns true if clients of this address may not connect.
    #[must_use]
    pub fn bans_address(&self, address: ClientAddress) -> bool {
        self.read().bans_address(unix_ms(), address)
    }

    /// Returns the ban of a client that registers.
    #[must_use]
    pub fn ban_of(&self, client: &SanctionedClient<'_>) -> Option<BanNotice> {
        let list = self.read();
        list.ban_of(unix_ms(), client).map(|ban| BanNotice { reason: ban.order.reason.clone() })
    }

    /// Returns true if nobody may have this nickname.
    #[must_use]
    pub fn bans_nick(&self, nick: &NickKey) -> bool {
        self.read().bans_nick(unix_ms(), nick)
    }

    /// Returns true if a client may not send messages.
    #[must_use]
    pub fn mutes(&self, nick: &NickKey, user: Option<&UserId>) -> bool {
        self.has_mutes.load(Ordering::Relaxed) && self.read().mutes(unix_ms(), nick, user)
    }

    /// Returns true if a token of the user that was issued at this time, in Unix milliseconds, is refused.
    #[must_use]
    pub fn revokes(&self, user: &UserId, issued: u64) -> bool {
        self.read().revokes(unix_ms(), user, issued)
    }

    /// Returns the code with which a session is to end; `None` if it may stay.
    #[must_use]
    pub fn verdict(&self, client: &SanctionedClient<'_>) -> Option<CloseCode> {
        self.read().verdict(unix_ms(), client)
    }

    /// Notes in the log that a banned client was refused, once a minute for an address.
    pub fn note_refusal(&self, address: Option<ClientAddress>) {
        self.refusals.record(address);
    }

    fn write(&self) -> RwLockWriteGuard<'_, SanctionList> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, SanctionList> {
        // Every change leaves the list consistent, so a panic elsewhere does not spoil it.
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the gateway's clock in Unix milliseconds.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
