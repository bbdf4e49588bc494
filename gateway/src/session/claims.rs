//! How a session gets its nickname: it begins, it goes on over this connection, or it takes another name.
//!
//! A part of the driver, which performs these steps when the core asks for them. What was taken is entered into the hub and
//! into what this node holds; what may have been taken without our knowing is remembered until the store has answered.

use std::sync::Arc;
use std::time::SystemTime;

use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::stream::StreamEnd;
use presence::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use presence::registry::{ClaimError, InboxState, LocalClaim, RegistryError, ResumeError, ResumedSession};

use crate::metrics::{Registration, Return};
use crate::wire::{Refusal, Since, Token};

use super::core::{Beginning, Done, Resumption};
use super::driver::{Driver, refusal, unavailable};
use super::retry::{answered, until_answered};
use super::token;

/// A claim that may have been done.
#[derive(Debug)]
pub(super) struct Doubt {
    incarnation: Incarnation,
    session: SessionId,
    nick: Nick,
    token: TokenHash,
}

impl Driver {
    /// Finds out what became of claims whose answer was lost, so that it can be given back.
    pub(super) async fn claim_doubtful(&mut self) {
        let registry = &self.services.registry;
        for Doubt { incarnation, session, nick, token } in std::mem::take(&mut self.doubtful) {
            if let Ok((fence, _)) = until_answered(|| registry.claim(&incarnation, &session, &nick, &token)).await {
                self.names.push((nick, Owner { incarnation, session, fence }));
            }
        }
    }

    /// Gives back what a claim of this connection may have taken without our knowing, as far as the store answers; what
    /// stays in doubt is left to the end. Without it a client would find its own nickname in use.
    async fn settle_doubtful(&mut self) {
        let services = Arc::clone(&self.services);
        for doubt in std::mem::take(&mut self.doubtful) {
            let Doubt { incarnation, session, nick, token } = &doubt;
            match answered(|| services.registry.claim(incarnation, session, nick, token)).await {
                Ok((fence, _)) => {
                    let (incarnation, session) = (incarnation.clone(), session.clone());
                    let owner = Owner { incarnation, session, fence };
                    if answered(|| services.registry.release(nick, &owner, None)).await.is_err() {
                        self.names.push((doubt.nick, owner));
                    }
                }
                Err(ClaimError::Registry(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                    self.doubtful.push(doubt);
                }
                Err(_) => {}
            }
        }
    }

    /// A new session gets a new id for every attempt of its client, so that tidying up a doubtful one hits no other.
    pub(super) async fn begin(&mut self, nick: Nick) -> Result<Done, Refusal> {
        self.settle_doubtful().await;
        let services = Arc::clone(&self.services);
        let session = SessionId::random();
        let incarnation = services.tenure.incarnation().ok_or_else(unavailable)?;
        let (token, hash) = token::issue(&session);
        services.hub.expect(&session, &nick, &self.outbox);
        let claimed = self.claim(&incarnation, &session, &nick, &hash).await;
        services.metrics.registrations[registration(&claimed)].inc();
        let (owner, inbox) = claimed.map_err(|error| {
            services.hub.forget(&session);
            claim_refusal(error)
        })?;
        self.attach(owner.clone(), nick, Status::default(), hash);
        Ok(Done::Begun(Beginning { owner, token, time: unix_ms() }, inbox))
    }

    pub(super) async fn rename(&mut self, nick: Nick, session: SessionId) -> Result<Done, Refusal> {
        let services = Arc::clone(&self.services);
        let before = self.core.identity().map(|me| me.owner.clone());
        let (Some(before), Some(token)) = (before, self.token.clone()) else { return Err(unavailable()) };
        let (owner, _) = self.claim(&before.incarnation, &session, &nick, &token).await.map_err(claim_refusal)?;
        services.hub.rename(&owner, &nick);
        services.holdings.change(&before, |holding| {
            holding.nick = nick.clone();
            holding.owner = owner.clone();
        });
        self.own(nick, owner.clone());
        Ok(Done::Claimed(owner))
    }

    async fn claim(
        &mut self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        token: &TokenHash,
    ) -> Result<(Owner, StreamEnd), ClaimError> {
        let (incarnation, session) = (incarnation.clone(), session.clone());
        match answered(|| self.services.registry.claim(&incarnation, &session, nick, token)).await {
            Ok((fence, inbox)) => Ok((Owner { incarnation, session, fence }, inbox)),
            Err(error) => {
                if matches!(error, ClaimError::Registry(RegistryError::Unknown(_))) {
                    self.doubtful.push(Doubt { incarnation, session, nick: nick.clone(), token: token.clone() });
                }
                Err(error)
            }
        }
    }

    /// Goes on with a session, from wherever it was. A resume that is asked for again after its answer was lost is the same
    /// one; if it is not asked for again, the session waits in the store for whoever has its tokens.
    pub(super) async fn resume(&mut self, nick: Nick, presented: Token) -> Result<Done, Refusal> {
        self.settle_doubtful().await;
        let resumed = self.take_over(&nick, &presented).await;
        self.services.metrics.resumes[returned(&resumed)].inc();
        let (owner, token, hash, ResumedSession { was, status, rooms, inbox: InboxState { epoch, read, .. }, .. }) =
            resumed.map_err(|error| match error {
                ResumeError::UnknownToken => ErrorCode::ResumeFailed.into(),
                ResumeError::Claim(error) => claim_refusal(error),
            })?;
        let rooms: Vec<RoomName> = rooms.into_iter().map(|restored| restored.room).collect();
        self.rooms = rooms.iter().map(|room| (room.key().clone(), room.clone())).collect();
        self.attach(owner.clone(), nick, status.clone(), hash);
        let (beginning, read) = (Beginning { owner, token, time: unix_ms() }, Since { epoch, seq: read });
        Ok(Done::Resumed(beginning, Resumption { was, status, rooms, read }))
    }

    async fn take_over(
        &mut self,
        nick: &Nick,
        presented: &Token,
    ) -> Result<(Owner, Token, TokenHash, ResumedSession), ResumeError> {
        let services = Arc::clone(&self.services);
        let ticket = token::ticket(presented).ok_or(ResumeError::UnknownToken)?;
        let incarnation = services.tenure.incarnation().ok_or(ClaimError::Registry(RegistryError::Fenced))?;
        let (next, hash) = match self.unanswered.take().map(|unanswered| *unanswered) {
            Some((before, next, hash)) if before == ticket => (next, hash),
            _ => token::issue(&ticket.session),
        };
        match answered(|| services.registry.resume(&incarnation, &ticket, nick, &hash)).await {
            Ok(resumed) => {
                let owner = Owner { incarnation, session: ticket.session, fence: resumed.fence };
                Ok((owner, next, hash, resumed))
            }
            Err(error) => {
                if matches!(error, ResumeError::Claim(ClaimError::Registry(RegistryError::Unknown(_)))) {
                    self.unanswered = Some(Box::new((ticket, next, hash)));
                }
                Err(error)
            }
        }
    }

    /// From here on the session has this connection.
    fn attach(&mut self, owner: Owner, nick: Nick, status: Status, token: TokenHash) {
        let (services, rooms) = (Arc::clone(&self.services), self.rooms.values().cloned().collect());
        self.token = Some(token.clone());
        services.hub.attach(&owner, &nick, &self.outbox);
        let (mine, claim) = (nick.clone(), owner.clone());
        services.holdings.hold(LocalClaim { nick: mine, owner: claim, status, rooms, token, detached: false });
        self.own(nick, owner);
    }

    fn own(&mut self, nick: Nick, owner: Owner) {
        // The lease may have been lost while the claim was under way: then nobody has closed this session yet.
        if self.services.tenure.incarnation().as_ref() != Some(&owner.incarnation) {
            self.outbox.close(CloseCode::Restart);
        }
        self.names.retain(|(_, known)| *known != owner);
        // Mostly the only one for as long as the session lives.
        self.names.reserve_exact(1);
        self.names.push((nick, owner));
    }
}

fn registration<T>(claimed: &Result<T, ClaimError>) -> Registration {
    match claimed {
        Ok(_) => Registration::Registered,
        Err(ClaimError::InUse { .. }) => Registration::InUse,
        Err(ClaimError::Confusable) => Registration::Confusable,
        Err(ClaimError::Registry(_)) => Registration::Failed,
    }
}

fn returned<T>(resumed: &Result<T, ResumeError>) -> Return {
    match resumed {
        Ok(_) => Return::Resumed,
        Err(ResumeError::UnknownToken) => Return::UnknownToken,
        Err(ResumeError::Claim(ClaimError::InUse { .. } | ClaimError::Confusable)) => Return::InUse,
        Err(ResumeError::Claim(ClaimError::Registry(_))) => Return::Failed,
    }
}

fn claim_refusal(error: ClaimError) -> Refusal {
    match error {
        ClaimError::InUse { retry_after } => {
            let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            Refusal { retry_after_ms, ..ErrorCode::NickInUse.into() }
        }
        ClaimError::Confusable => ErrorCode::NickConfusable.into(),
        ClaimError::Registry(error) => refusal(error),
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::lease::OwnLease;
    use presence::registry::{GatewayInfo, MemoryRegistry, Registry};
    use presence::store::memory::Store;

    use super::*;
    use crate::backplane::{Backplane, MemoryBackplane};
    use crate::hub::Hub;
    use crate::metrics::Metrics;
    use crate::session::driver::Services;
    use crate::wire::Dialect;

    #[tokio::test]
    async fn whoever_is_refused_a_name_leaves_nothing_in_the_hub() {
        let (store, metrics) = (Store::default(), Arc::new(Metrics::new()));
        let services = Arc::new(Services {
            node: "g1".into(),
            registry: Registry::Memory(MemoryRegistry::new(store.clone())),
            backplane: Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_| {}))),
            hub: Arc::new(Hub::new(metrics.counts.clone())),
            holdings: Arc::default(),
            hold: std::time::Duration::ZERO,
            tenure: Arc::default(),
            metrics,
        });
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        assert!(OwnLease::new(services.registry.clone(), Arc::clone(&services.tenure), info).open().await);
        let mut guests = [(); 2].map(|()| Driver::new(&services, Dialect::Json));
        let ann = Nick::parse("ann").unwrap();
        assert!(matches!(guests[0].begin(ann.clone()).await, Ok(Done::Begun(..))));
        let refused = guests[1].begin(ann).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NickInUse);
        assert_eq!(services.hub.logs(), 1, "the inbox of the one who has it");
    }
}
