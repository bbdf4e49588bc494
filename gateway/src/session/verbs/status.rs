//! `status`: records the user's availability and announces it in the session's rooms.

use presence::model::{RoomKey, Status};

use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::Answer;

use super::Decision;

/// Records a status and announces it.
#[derive(Debug)]
pub struct SetStatus {
    pub(crate) me: SessionIdentity,
    pub(crate) status: Status,
    /// The rooms to announce it in.
    pub(crate) rooms: Vec<RoomKey>,
}

pub(super) fn decide(state: &SessionState, me: SessionIdentity, status: Status) -> SetStatus {
    SetStatus { me, status, rooms: state.rooms.keys().cloned().collect() }
}

pub(super) fn conclude(state: &mut SessionState, status: Status) -> Decision {
    if let Some(me) = &mut state.identity {
        me.status = status.clone();
    }
    Decision::Answer(Answer::Status(status))
}

mod perform {
    use presence::model::Status;

    use super::SetStatus;
    use crate::session::performer::Performer;
    use crate::session::refusal::unavailable;
    use crate::session::retry::answered;
    use crate::wire::Refusal;

    impl SetStatus {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Status, Refusal> {
            let (services, Self { me, status, rooms }) = (&performer.services, self);
            let member = me.member(&status);
            let set = || services.registry.set_status(me.nick.key(), &me.owner, &member, &rooms);
            let is_owned = answered(set).await?;
            if !is_owned {
                return Err(unavailable());
            }
            services.claims.change(&me.owner, |claim| claim.status = status.clone());
            Ok(status)
        }
    }
}
