//! `kick`, `ban`, `mute`, `op`, `invite`, `topic` and their opposites: orders of a moderator for a room.
//!
//! The store decides, at the moment of the change, if the role of the session allows the order. Only the right
//! `moderate` of its token is known here. An order is not repeated after a lost answer: a second kick finds nobody.

use presence::model::codes::ErrorCode;
use presence::model::moderation::ModerationAction;

use crate::identity::RoomRight;
use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::ModerationCommand;

/// Carries out the order of a moderator.
#[derive(Debug)]
pub struct ModerateRoom {
    command: ModerationCommand,
    me: SessionIdentity,
    /// True if the token of the session lets it moderate the room.
    may_moderate: bool,
}

pub(super) fn decide(
    state: &SessionState,
    me: SessionIdentity,
    ModerationCommand { room, order }: ModerationCommand,
) -> Result<Box<ModerateRoom>, ErrorCode> {
    let room = state.joined(&room)?;
    // A topic is a message to the room.
    if order.action == ModerationAction::Topic && !state.may(&room, RoomRight::Send) {
        return Err(ErrorCode::Forbidden);
    }
    let may_moderate = me.moderates(&room);
    Ok(Box::new(ModerateRoom { command: ModerationCommand { room, order }, me, may_moderate }))
}

mod perform {
    use presence::model::codes::ErrorCode;
    use presence::model::moderation::ModerationAction;
    use presence::registry::{ModerationCaller, ModerationRequest};

    use super::ModerateRoom;
    use crate::session::performer::Performer;
    use crate::wire::{Answer, ModerationCommand, Refusal};

    impl ModerateRoom {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            let Self { command: ModerationCommand { room, order }, me, may_moderate } = self;
            if order.action == ModerationAction::Topic && performer.services.sanctions.mutes(me.nick.key(), me.user()) {
                return Err(ErrorCode::Muted.into());
            }
            let caller = ModerationCaller::Member { nick: &me.nick, owner: &me.owner, may_moderate };
            let request = ModerationRequest { room: &room, caller, order: &order };
            let notice = performer.services.registry.moderate(request).await?;
            performer.services.metrics.moderation[notice.action].inc();
            Ok(Answer::Moderated { room: room.as_str().to_owned(), notice: Box::new(notice) })
        }
    }
}
