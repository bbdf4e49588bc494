//! Orders about rooms, as the session's gateway carries them out: the removal by a moderator, and the entry that an
//! application orders.
//!
//! Of a removal the store has ended the membership already, and the hub delivers the room no more. Here the connection
//! forgets the room and its client receives `left`. An entry is a join like the client's own, whose `joined` answers no
//! request. Invariant: a membership that began again before its removal arrives ends as well, in the store too, so that
//! both agree.

use presence::model::codes::CloseCode;
use presence::model::moderation::RoomRemoval;
use presence::model::{LeftReason, RoomName};
use presence::registry::{LeaveIntent, LeaveRequest};

use crate::outbound::outbox::{Broadcast, MembershipOrder};
use crate::wire::Event;

use super::core::Effect;
use super::driver::Driver;
use super::retry::answered;
use super::verbs::OperationOutcome;

impl Driver {
    /// Carries out the orders about rooms that have arrived. Must run to its end.
    pub async fn apply_room_orders(&mut self) {
        self.conclude().await;
        for order in self.performer.outbox.take_orders() {
            match order {
                MembershipOrder::Leave(removal) => self.apply_removal(removal).await,
                MembershipOrder::Enter(room) => self.apply_entry(room).await,
            }
        }
    }

    async fn apply_entry(&mut self, room: RoomName) {
        let Some(operation) = self.core.enter_by_order(room.clone()) else { return };
        let joined = match self.perform(operation).await {
            Ok(OperationOutcome::Joined(joined)) => joined,
            Ok(outcome) => return debug_assert!(false, "{outcome:?} is no outcome of a join"),
            Err(refusal) => {
                return tracing::info!(room = room.as_str(), code = refusal.code.slug(), "ordered entry refused");
            }
        };
        for effect in self.core.entered_by_order(joined) {
            match effect {
                Effect::Reply(reply) => self.reply(reply),
                Effect::Enter(entry) => self.enter(entry).await,
                effect => debug_assert!(false, "{effect:?} is no effect of a join"),
            }
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
