//! `leave`: leaves a room for good.

use presence::model::RoomName;
use presence::model::codes::ErrorCode;

use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::Answer;

use super::Decision;

/// Leaves a room.
#[derive(Debug)]
pub struct LeaveRoom {
    pub(crate) room: RoomName,
    pub(crate) me: SessionIdentity,
}

pub(super) fn decide(state: &SessionState, me: SessionIdentity, room: &RoomName) -> Result<LeaveRoom, ErrorCode> {
    Ok(LeaveRoom { room: state.joined(room)?, me })
}

pub(super) fn conclude(state: &mut SessionState, room: &RoomName) -> Decision {
    state.rooms.remove(room.key());
    Decision::Answer(Answer::Left { room: room.as_str().to_owned() })
}

mod perform {
    use presence::model::stream::StreamId;
    use presence::model::{LeftReason, RoomName};
    use presence::registry::{LeaveIntent, LeaveRequest, RegistryError};

    use super::LeaveRoom;
    use crate::session::performer::Performer;
    use crate::session::retry::answered;
    use crate::wire::Refusal;

    impl LeaveRoom {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<RoomName, Refusal> {
            performer.receive_own_messages_of(StreamId::Room(self.room.key().clone())).await;
            self.remove_member(performer).await?;
            let Self { room, me } = self;
            performer.stop_receiving(room.key(), &me.owner.session);
            performer.forget_room(&room, &me.owner);
            Ok(room)
        }

        pub(in crate::session::verbs) async fn remove_member(
            &self,
            performer: &Performer,
        ) -> Result<bool, RegistryError> {
            let (registry, Self { room, me }) = (&performer.services.registry, self);
            answered(|| {
                registry.leave(LeaveRequest {
                    room,
                    nick: &me.nick,
                    owner: &me.owner,
                    reason: LeftReason::Left,
                    intent: LeaveIntent::ForGood,
                })
            })
            .await
        }
    }
}
