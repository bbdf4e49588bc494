//! `typing`: passes on that the client's user is writing, to a room or to a nickname.
//!
//! Worth nothing a few seconds later: passed on at a limited rate, never repeated, stored nowhere.

use std::time::Instant;

use presence::model::codes::ErrorCode;

use crate::message::Target;
use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::Answer;

use super::{Decision, Operation};

/// Passes on that a user is writing.
#[derive(Debug)]
pub struct AnnounceTyping {
    /// The target as the client wrote it.
    requested: Target,
    to: Target,
    sender: SessionIdentity,
}

pub(super) fn decide(
    state: &mut SessionState,
    now: Instant,
    sender: SessionIdentity,
    requested: Target,
) -> Result<Decision, ErrorCode> {
    let to = state.destination(&requested)?;
    if !state.typing.admit(now, &to) {
        return Ok(Decision::Answer(answer(&requested)));
    }
    Ok(Decision::Perform(Operation::Typing(AnnounceTyping { requested, to, sender })))
}

fn answer(requested: &Target) -> Answer {
    Answer::Typing { to: requested.as_str().to_owned() }
}

mod perform {
    use super::{AnnounceTyping, answer};
    use crate::session::performer::Performer;
    use crate::wire::{Answer, Refusal};

    impl AnnounceTyping {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            let Self { requested, to, sender } = self;
            // Not repeated: a second attempt would arrive too late to be true.
            performer.services.backplane.typing(&to, &sender.nick, &sender.owner.session).await?;
            Ok(answer(&requested))
        }
    }
}
