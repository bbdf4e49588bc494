//! `read`: records how far the client has read its inbox. A resume without an inbox position replays from there.

use presence::model::SessionId;

/// Records a position in an inbox.
#[derive(Debug)]
pub struct MarkRead {
    pub(super) session: SessionId,
    pub(super) seq: u64,
}

mod perform {
    use super::MarkRead;
    use crate::session::performer::Performer;
    use crate::session::refusal::unavailable;
    use crate::session::retry::answered;
    use crate::wire::{Answer, Refusal};

    impl MarkRead {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            let (registry, Self { session, seq }) = (&performer.services.registry, self);
            let kept = answered(|| registry.read(&session, seq)).await?;
            kept.map(|seq| Answer::Read { seq }).ok_or_else(unavailable)
        }
    }
}
