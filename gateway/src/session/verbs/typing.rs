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
    /// True if the sender's token lets it moderate the room.
    moderates: bool,
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
    let moderates = matches!(&to, Target::Room(room) if sender.moderates(room));
    Ok(Decision::Perform(Operation::Typing(AnnounceTyping { requested, to, sender, moderates })))
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
            let (Self { requested, to, sender, moderates }, services) = (self, &performer.services);
            // Clients send notices without a look at the answer, so one that may not be sent is dropped.
            if !services.sanctions.mutes(sender.nick.key(), sender.user()) {
                // A retry would arrive too late.
                services.backplane.typing(&to, &sender.nick, &sender.owner.session, moderates).await?;
            }
            Ok(answer(&requested))
        }
    }
}
