//! `options`: what the client wants of its connection. Answered at any time, also before `register`.

/// A request to set options.
#[derive(Debug, Clone, Copy)]
pub struct SetOptions {
    /// True if the gateway may compress what it sends.
    pub(super) snappy: bool,
}

mod perform {
    use presence::model::codes::ErrorCode;

    use super::SetOptions;
    use crate::session::performer::Performer;
    use crate::wire::{Answer, Dialect, PackedDialect, Refusal};

    impl SetOptions {
        /// Sets the options from the next event on.
        ///
        /// # Errors
        /// The dialect of the connection has no compression.
        pub(in crate::session) fn perform(self, performer: &mut Performer) -> Result<Answer, Refusal> {
            let Self { snappy } = self;
            match performer.outbox.dialect() {
                Dialect::Packed(dialect) => {
                    performer.outbox.set_dialect(Dialect::Packed(PackedDialect { compresses: snappy, ..dialect }));
                }
                Dialect::Json | Dialect::Line if snappy => {
                    return Err(Refusal::from(ErrorCode::BadRequest).with_detail("compression needs binary frames"));
                }
                Dialect::Json | Dialect::Line => {}
            }
            Ok(Answer::Options { snappy })
        }
    }
}
