//! Channels of the in-memory store and their listeners.
//!
//! The table has its own lock inside the store's, because a subscription may be dropped anywhere, even by a listener
//! during its call.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Receives published texts. Called under the store's lock: must neither call the store nor block.
pub type ChannelListener = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Ends a subscription when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct ListenerGuard {
    channels: Channels,
    channel: String,
    number: u64,
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        let mut table = self.channels.lock();
        let Some(listeners) = table.listeners.get_mut(&self.channel) else { return };
        let gone = listeners.iter().position(|(number, _)| *number == self.number).map(|at| listeners.remove(at));
        if listeners.is_empty() {
            table.listeners.remove(&self.channel);
        }
        // The listener may own a subscription, so it is dropped outside the lock.
        drop(table);
        drop(gone);
    }
}

/// The table of channels. Cheap to clone: clones share it.
#[derive(Clone, Default)]
pub(crate) struct Channels(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    listeners: HashMap<String, Vec<(u64, ChannelListener)>>,
    next: u64,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Channels {
    pub(crate) fn listen(&self, channel: &str, listener: ChannelListener) -> ListenerGuard {
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
        table.listeners.entry(channel.to_owned()).or_default().push((number, listener));
        ListenerGuard { channels: self.clone(), channel: channel.to_owned(), number }
    }

    /// Calls the listeners of a channel in the order of their subscriptions.
    pub(crate) fn publish(&self, channel: &str, text: &[u8]) {
        let listeners: Vec<ChannelListener> = match self.lock().listeners.get(channel) {
            Some(listeners) => listeners.iter().map(|(_, listener)| Arc::clone(listener)).collect(),
            None => return,
        };
        for listener in listeners {
            listener(text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; listeners are called outside.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
