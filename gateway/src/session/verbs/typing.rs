//! `typing`: publishes a typing notice to a room or to a nickname.
//!
//! A notice expires within seconds, so it is rate-limited, never retried and never stored.

use std::time::Instant;

use presence::model::codes::ErrorCode;

use crate::message::Target;
use crate::session::state::{SessionIdentity, SessionState};
use crate::wire::Answer;

use super::{Decision, Operation};

/// Publishes a typing notice.
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
            // A retry would arrive too late.
            performer.services.backplane.typing(&to, &sender.nick, &sender.owner.session).await?;
            Ok(answer(&requested))
        }
    }
}
