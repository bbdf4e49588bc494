//! `rooms`: lists the rooms that have members, page by page.

/// Reads a page of rooms.
#[derive(Debug)]
pub struct ListRooms {
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
}

mod perform {
    use super::ListRooms;
    use crate::session::performer::Performer;
    use crate::wire::{Answer, Refusal, RoomItem};

    impl ListRooms {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            let page = performer.services.registry.rooms(self.cursor.as_deref(), self.limit).await?;
            let items = page.items.into_iter();
            let items = items.map(|room| RoomItem { room: room.room, member_count: room.member_count });
            Ok(Answer::Rooms { items: items.collect(), next_cursor: page.next_cursor })
        }
    }
}
