//! `whois`: reads whether another user is online, and their status.

use presence::model::Nick;

/// Looks up one user.
#[derive(Debug)]
pub struct LookUpUser {
    pub(super) nick: Nick,
}

mod perform {
    use presence::model::codes::ErrorCode;

    use super::LookUpUser;
    use crate::session::performer::Performer;
    use crate::session::refusal::unread;
    use crate::wire::{Answer, Refusal};

    impl LookUpUser {
        pub(in crate::session) async fn perform(self, performer: &Performer) -> Result<Answer, Refusal> {
            // A lookup takes its turn among the listings, so that no flood of them delays a message.
            let nick = std::slice::from_ref(self.nick.key());
            let found = performer.services.registry.lookup(nick).await.map_err(unread)?;
            let user = found.into_iter().next().flatten().ok_or(ErrorCode::NoSuchUser)?;
            Ok(Answer::Whois { nick: user.nick, user: user.user, status: user.online.then_some(user.status) })
        }
    }
}
