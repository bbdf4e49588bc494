//! `history`: reads a part of the stream of a room that the session is in.

use presence::model::RoomName;
use presence::model::codes::ErrorCode;

use crate::identity::RoomRight;
use crate::session::state::SessionState;
use crate::wire::Range;

/// Reads a part of a room's history.
#[derive(Debug)]
pub struct ReadHistory {
    room: RoomName,
    range: Range,
    limit: usize,
}

pub(super) fn decide(
    state: &SessionState,
    room: &RoomName,
    range: Range,
    limit: usize,
) -> Result<ReadHistory, ErrorCode> {
    let room = state.joined(room)?;
    if state.may(&room, RoomRight::History) {
        Ok(ReadHistory { room, range, limit })
    } else {
        Err(ErrorCode::Forbidden)
    }
}

/// Bytes reserved for one message: its maximum size and its names.
const MESSAGE_BYTES_MAX: usize = 68 * 1024;

mod perform {
    use super::{MESSAGE_BYTES_MAX, ReadHistory};
    use crate::backplane::PageLimit;
    use crate::session::performer::Performer;
    use crate::session::refusal::unread;
    use crate::wire::{Answer, Refusal};

    impl ReadHistory {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Answer, Refusal> {
            let Self { room, range, limit } = self;
            let limit = PageLimit::of_messages(limit);
            let wanted = limit.bytes.min(limit.messages.saturating_mul(MESSAGE_BYTES_MAX));
            let growth = performer.outbox.dialect().body_growth();
            let reserved = performer.reserve_reply(wanted.saturating_mul(growth)).await?;
            let limit = PageLimit { bytes: reserved / growth, ..limit };
            let page = performer.services.backplane.history(room.key(), range, limit).await.map_err(unread)?;
            Ok(Answer::History { to: room.as_str().to_owned(), items: page.messages, more: page.more })
        }
    }
}
