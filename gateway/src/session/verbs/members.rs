//! `members`: lists the members of a room, page by page.

use presence::model::codes::ErrorCode;
use presence::model::{ListCursor, RoomName};

use crate::identity::RoomRight;
use crate::session::state::SessionState;

/// Reads a page of a room's members.
#[derive(Debug)]
pub struct ListMembers {
    pub(super) room: RoomName,
    pub(super) limit: usize,
    pub(super) cursor: Option<ListCursor>,
}

pub(super) fn decide(state: &SessionState, list: ListMembers) -> Result<ListMembers, ErrorCode> {
    if state.may(&list.room, RoomRight::Join) { Ok(list) } else { Err(ErrorCode::Forbidden) }
}

/// Bytes reserved for one member: a nickname, a user id, a status with a text, and their names.
const MEMBER_BYTES_MAX: usize = 768;

mod perform {
    use super::{ListMembers, MEMBER_BYTES_MAX};
    use crate::session::performer::Performer;
    use crate::session::refusal::unread;
    use crate::wire::{Answer, Refusal};

    impl ListMembers {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Answer, Refusal> {
            let Self { room, limit, cursor } = self;
            let bytes = performer.reserve_reply(limit.saturating_mul(MEMBER_BYTES_MAX)).await?;
            let limit = limit.min(bytes / MEMBER_BYTES_MAX);
            let page = performer.services.registry.members(room.key(), cursor, limit).await.map_err(unread)?;
            let room = room.as_str().to_owned();
            Ok(Answer::Members { room, items: page.items, next_cursor: page.next_cursor })
        }
    }
}
