//! `rooms`: lists the rooms that have members, page by page.

use presence::model::ROOM_BYTES;

/// Reads a page of rooms.
#[derive(Debug)]
pub struct ListRooms {
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
}

/// Bytes reserved for one room: its name and its number of members.
const ROW_BYTES_MAX: usize = ROOM_BYTES + 64;

mod perform {
    use super::{ListRooms, ROW_BYTES_MAX};
    use crate::session::performer::Performer;
    use crate::session::refusal::unread;
    use crate::wire::{Answer, Refusal, RoomItem};

    impl ListRooms {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Answer, Refusal> {
            let bytes = performer.reserve_reply(self.limit.saturating_mul(ROW_BYTES_MAX)).await?;
            let limit = self.limit.min(bytes / ROW_BYTES_MAX);
            let page = performer.services.registry.rooms(self.cursor.as_deref(), limit).await.map_err(unread)?;
            let items = page.items.into_iter();
            let items = items.map(|room| RoomItem { room: room.room, member_count: room.member_count });
            Ok(Answer::Rooms { items: items.collect(), next_cursor: page.next_cursor })
        }
    }
}
