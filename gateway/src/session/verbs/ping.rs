//! `ping`: the client checks that the gateway is there. Answered at any time, also before `register`.

use crate::wire::Answer;

use super::Decision;

pub(super) fn decide() -> Decision {
    Decision::Answer(Answer::Pong)
}
