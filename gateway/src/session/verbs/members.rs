//! `members`: lists the members of a room, page by page.

use presence::model::RoomName;

/// Reads a page of a room's members.
#[derive(Debug)]
pub struct ListMembers {
    pub(super) room: RoomName,
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
}

mod perform {
    use super::ListMembers;
    use crate::session::performer::Performer;
    use crate::wire::{Answer, Refusal};

    impl ListMembers {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            let (registry, Self { room, limit, cursor }) = (&performer.services.registry, self);
            let page = registry.members(room.key(), cursor.as_deref(), limit).await?;
            let room = room.as_str().to_owned();
            Ok(Answer::Members { room, items: page.items, next_cursor: page.next_cursor })
        }
    }
}
