//! `refresh`: renews the token of the session's user, before it expires.
//!
//! The new token is verified as at `register`, and must be of the same user. Its rights are in effect at once: rooms
//! that it does not allow are left, one after another. If one cannot be left, the connection ends.

use std::collections::VecDeque;
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::{RoomName, UserId};

use crate::identity::RoomRight;
use crate::session::state::{SessionIdentity, SessionState};
use crate::session::token_expiry::lifetime_ms;
use crate::wire::{Answer, Token};

use super::leave::LeaveRoom;
use super::{Decision, Flow, Operation, OperationOutcome};

/// Verifies a newer token of the session's user.
#[derive(Debug)]
pub struct RefreshToken {
    pub(crate) token: Token,
    /// The address of the client, for a line of the log about a refused token.
    pub(crate) address: Option<ClientAddress>,
    pub(crate) me: SessionIdentity,
    /// The user of the session; `None` for a guest.
    pub(crate) user: Option<UserId>,
}

/// The progress of a refresh.
#[derive(Debug)]
pub(in crate::session) struct RefreshFlow {
    me: SessionIdentity,
    /// The lifetime of the new token, once it is verified. `None` inside if tokens are no longer in use.
    renewed: Option<Option<u64>>,
    /// The rooms that the new token does not allow.
    forbidden: VecDeque<RoomName>,
    left: Vec<String>,
}

pub(super) fn decide(state: &SessionState, me: SessionIdentity, token: Token) -> Decision {
    let user = me.user().cloned();
    let flow = RefreshFlow { me: me.clone(), renewed: None, forbidden: VecDeque::new(), left: Vec::new() };
    Decision::PerformStep(
        Flow::Refresh(Box::new(flow)),
        Operation::Refresh(RefreshToken { token, address: state.address(), me, user }),
    )
}

impl RefreshFlow {
    pub(super) fn conclude(
        mut self: Box<Self>,
        state: &mut SessionState,
        now: Instant,
        outcome: OperationOutcome,
    ) -> Option<Decision> {
        match outcome {
            OperationOutcome::Refreshed(token) => {
                self.renewed = Some(token.as_ref().map(|token| lifetime_ms(token.lifetime)));
                state.sign_in(now, token);
                let rooms = state.rooms.values().map(|joined| &joined.room);
                self.forbidden = rooms.filter(|room| !state.may(room, RoomRight::Join)).cloned().collect();
                Some(self.next())
            }
            OperationOutcome::Left(room) => {
                state.rooms.remove(room.key());
                self.left.push(room.as_str().to_owned());
                Some(self.next())
            }
            _ => None,
        }
    }

    /// Returns true if a refused operation leaves the session in a room that its token does not allow.
    pub(super) fn is_half_done(&self) -> bool {
        self.renewed.is_some()
    }

    fn next(mut self: Box<Self>) -> Decision {
        if let Some(room) = self.forbidden.pop_front() {
            let leave = Operation::Leave(LeaveRoom { room, me: self.me.clone() });
            return Decision::PerformStep(Flow::Refresh(self), leave);
        }
        Decision::Answer(Answer::Refreshed { expires_in_ms: self.renewed.flatten(), left: self.left })
    }
}

mod perform {
    use presence::model::codes::ErrorCode;

    use super::RefreshToken;
    use crate::identity::UserToken;
    use crate::session::performer::Performer;
    use crate::wire::Refusal;

    impl RefreshToken {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<Option<UserToken>, Refusal> {
            let Self { token, address, me, user } = self;
            let refused = |detail| Err(Refusal::from(ErrorCode::TokenInvalid).with_detail(detail));
            let Some(user) = user else { return refused("this session began without a token: register with one") };
            let (_, renewed) = performer.introduce(Some(me.nick.clone()), Some(token), address).await?;
            if renewed.as_ref().is_some_and(|renewed| renewed.grant.user != user) {
                performer.note_refused_token(&"token is for another user", address);
                return refused("the token is for another user");
            }
            performer.note_client(&me.owner, renewed.as_ref(), address);
            Ok(renewed)
        }
    }
}
