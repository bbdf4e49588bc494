//! The removal of a session from a room by a moderator, as its gateway carries it out.
//!
//! The store has ended the membership already, and the hub delivers the room no more. Here the connection forgets the
//! room and its client receives `left`. Invariant: a membership that began again meanwhile ends as well, in the store
//! too, so that both agree.

use presence::model::LeftReason;
use presence::model::codes::CloseCode;
use presence::model::moderation::RoomRemoval;
use presence::registry::{LeaveIntent, LeaveRequest};

use crate::outbound::outbox::Broadcast;
use crate::wire::Event;

use super::driver::Driver;
use super::retry::answered;

impl Driver {
    /// Leaves the rooms from which a moderator has removed the session. Must run to its end.
    pub async fn apply_removals(&mut self) {
        self.conclude().await;
        for removal in self.performer.outbox.take_removals() {
            self.apply_removal(removal).await;
        }
    }

    async fn apply_removal(&mut self, RoomRemoval { room, reason, by, text, .. }: RoomRemoval) {
        let Some(me) = self.core.identity().cloned() else { return };
        let Some(room) = self.core.forget_room(&room) else { return };
        self.performer.stop_receiving(room.key(), &me.owner.session);
        let event = Event::Left { room: room.as_str().to_owned(), reason, by, text };
        self.performer.outbox.push_event(&Broadcast::new(event));
        let registry = &self.performer.services.registry;
        let request = LeaveRequest {
            room: &room,
            nick: &me.nick,
            owner: &me.owner,
            reason: LeftReason::Kicked,
            intent: LeaveIntent::ForGood,
        };
        if answered(|| registry.leave(request)).await.is_err() {
            // The session may have joined again: only its end is certain to remove it.
            return self.performer.outbox.close(CloseCode::Restart);
        }
        self.performer.forget_room(&room, &me.owner);
    }
}
