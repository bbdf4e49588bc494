//! Deliveries: everything that arrives at a node, from other nodes and from itself by the same path.
//!
//! Both arms pass them to one [`DeliverySink`]. A delivery carries decoded values and nothing about its recipients.

use std::sync::Arc;
use std::vec::Drain;

use presence::model::moderation::RoomRemoval;
use presence::model::stream::StreamId;
use presence::model::{AnnouncementOrder, Fence, Incarnation, PresenceDelta, RoomEntryOrder, RoomKey, SessionId};

use crate::message::ChatMessage;

/// Something that arrived at this node.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A message in a room.
    Room {
        /// The room's key.
        room: RoomKey,
        /// The epoch of its seq.
        epoch: String,
        /// The decoded message.
        message: ChatMessage,
    },
    /// A change of a room's members.
    Presence {
        /// The room.
        room: RoomKey,
        /// The members version after the change; dense, so a jump means a missed change.
        version: u64,
        /// The change.
        delta: PresenceDelta,
    },
    /// A direct message for a session of this gateway. `to` is the nick's key; the hub writes the receiver's shown
    /// name.
    Direct {
        /// The receiving session.
        session: SessionId,
        /// The epoch of its seq.
        epoch: String,
        /// The message.
        message: ChatMessage,
    },
    /// A typing notice, which is kept nowhere.
    Typing {
        /// The room, or the inbox of the session of this gateway that it is for.
        stream: StreamId,
        /// The typing session, if it may be among the recipients.
        by: Option<SessionId>,
        /// The typing user's shown name.
        from: String,
    },
    /// An order to end a session of this gateway.
    Kick {
        /// The session.
        session: SessionId,
    },
    /// A session of this gateway was resumed elsewhere: the connection with this claim ends, one with a newer claim
    /// stays.
    Taken {
        /// The session.
        session: SessionId,
        /// The claim's number.
        fence: Fence,
    },
    /// An order to end the membership of a session of this gateway in a room.
    Remove(RoomRemoval),
    /// An order to let a session of this gateway enter a room.
    Enter(RoomEntryOrder),
    /// An announcement for the sessions of this gateway. Boxed: it is rare and large.
    Announcement(Box<AnnouncementOrder>),
    /// The list of sanctions has changed.
    SanctionChanged {
        /// Its version.
        version: u64,
    },
    /// The echo of this gateway's own beat.
    Echo {
        /// The beat's counter.
        counter: u64,
        /// The incarnation that sent it.
        incarnation: Incarnation,
    },
    /// The subscription was lost and is whole again: anything may be missing.
    SubscriptionRestored,
}

/// Receives deliveries, in order. It must neither block nor call the backplane, because it runs where they are read.
pub trait ReceiveDeliveries: Send + Sync {
    /// Receives one delivery. May be called under a lock, so another task writes it to sockets.
    fn deliver(&self, delivery: Delivery);

    /// Receives deliveries that arrived together. Called by a task without a lock, which may write some of them itself.
    fn deliver_batch(&self, deliveries: Drain<'_, Delivery>) {
        deliveries.for_each(|delivery| self.deliver(delivery));
    }
}

impl<F: Fn(Delivery) + Send + Sync> ReceiveDeliveries for F {
    fn deliver(&self, delivery: Delivery) {
        self(delivery);
    }
}

/// The destination of a backplane's deliveries.
pub type DeliverySink = Arc<dyn ReceiveDeliveries>;
