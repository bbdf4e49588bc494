//! `register` without a token: begins a session under a nickname. With a token it is handled by `resume`.
//!
//! Every attempt has a session id of its own, so that tidying up after a lost answer affects no other session.

use std::sync::Arc;
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::stream::{StreamEnd, StreamId};
use presence::model::{Nick, Owner, Status};

use crate::identity::UserToken;
use crate::quota::{LimitKind, QuotaHold};
use crate::session::state::{SessionIdentity, SessionState};
use crate::session::stream_entry::StreamEntry;
use crate::session::token_expiry::lifetime_ms;
use crate::wire::{Answer, RestoredRoom, Since, Token};

use super::Decision;

/// Begins a session.
#[derive(Debug)]
pub struct BeginSession {
    /// The nickname to claim, unless the user's token names it.
    pub(crate) nick: Option<Nick>,
    /// The token of the user.
    pub(crate) token: Option<Token>,
    /// The address of the client, for a line of the log about a refused token.
    pub(crate) address: Option<ClientAddress>,
    /// The registration of its address, which counts only if the session begins or the application was asked.
    pub(crate) registration: Option<QuotaHold>,
}

/// A session that has begun.
#[derive(Debug)]
pub struct SessionBegun {
    pub(crate) nick: Nick,
    /// The token of its user; `None` for a guest.
    pub(crate) user_token: Option<UserToken>,
    pub(crate) grant: SessionGrant,
    /// The end of its inbox: direct messages may have arrived already.
    pub(crate) inbox: StreamEnd,
}

/// The claim and the token of a session on this connection.
#[derive(Debug)]
pub(crate) struct SessionGrant {
    /// The claim to the nickname.
    pub(crate) owner: Owner,
    /// The token to resume with.
    pub(crate) token: Token,
    /// The gateway's clock, Unix milliseconds.
    pub(crate) time: u64,
}

/// Everything that the `registered` reply reports.
#[derive(Debug)]
pub(super) struct RegisteredSession {
    pub(super) grant: SessionGrant,
    /// The lifetime of the user's token.
    pub(super) expires_in_ms: Option<u64>,
    pub(super) me: SessionIdentity,
    pub(super) rooms: Vec<RestoredRoom>,
    pub(super) inbox: StreamEnd,
    /// The client's position in its inbox; `None` enters it at the beginning.
    pub(super) inbox_read: Option<Since>,
    /// The rooms that the client enters at once.
    pub(super) entries: Vec<StreamEntry>,
}

pub(super) fn decide(state: &SessionState, nick: Option<Nick>, token: Option<Token>) -> BeginSession {
    let registration = state.quotas.address.as_ref().map(|quota| quota.hold(LimitKind::Registrations));
    BeginSession { nick, token, address: state.address(), registration }
}

pub(super) fn conclude(
    state: &mut SessionState,
    now: Instant,
    SessionBegun { nick, user_token, grant, inbox }: SessionBegun,
) -> Decision {
    let user_grant = user_token.as_ref().map(|token| Arc::clone(&token.grant));
    let me = SessionIdentity { nick, owner: grant.owner.clone(), grant: user_grant, status: Status::default() };
    state.begin(now, me.clone(), false);
    let expires_in_ms = user_token.as_ref().map(|token| lifetime_ms(token.lifetime));
    state.sign_in(now, user_token);
    let (rooms, entries) = (Vec::new(), Vec::new());
    RegisteredSession { grant, expires_in_ms, me, rooms, inbox, inbox_read: None, entries }.answer(state)
}

impl RegisteredSession {
    /// Answers `registered`, then lets the client into its inbox and its rooms.
    pub(super) fn answer(self, state: &SessionState) -> Decision {
        let Self { grant, expires_in_ms, me, rooms, inbox, inbox_read, mut entries } = self;
        let SessionGrant { owner, token, time } = grant;
        let answer = Answer::Registered {
            nick: me.nick.as_str().to_owned(),
            user: me.user().cloned(),
            expires_in_ms,
            session: owner.session.to_string(),
            resume: token,
            rooms,
            inbox: Since { epoch: inbox.epoch.clone(), seq: inbox.seq },
            heartbeat_ms: state.liveness.heartbeat_ms(),
            node: state.node.to_string(),
            time,
        };
        let inbox_read = inbox_read.unwrap_or_else(|| Since { epoch: inbox.epoch.clone(), seq: 0 });
        let stream = StreamId::Inbox(owner.session);
        entries.insert(0, StreamEntry::new(stream, me.nick.as_str(), inbox, Some(inbox_read)));
        Decision::AnswerAndEnter(answer, entries)
    }
}

mod perform {
    use std::sync::Arc;

    use presence::model::codes::ErrorCode;
    use presence::model::{SessionId, Status, TokenHash};
    use presence::registry::{ClaimError, LocalClaim, RegistryError};

    use super::{BeginSession, SessionBegun, SessionGrant};
    use crate::metrics::RegistrationOutcome;
    use crate::quota::QuotaHold;
    use crate::session::performer::{ClaimAttempt, Performer, unix_ms};
    use crate::session::refusal::unavailable;
    use crate::session::token;
    use crate::wire::{Refusal, Token};

    impl BeginSession {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<SessionBegun, Refusal> {
            let Self { nick, token, address, registration } = self;
            let (nick, mut user_token) = performer.introduce(nick, token, address).await?;
            let services = Arc::clone(&performer.services);
            if let Err(refusal) = services.ask_register(&nick, user_token.as_mut(), address).await {
                // A refused question counts as a registration, or a client could ask without end. A failure is the
                // application's: after it everybody comes again.
                registration.filter(|_| refusal.code == ErrorCode::NotAllowed).into_iter().for_each(QuotaHold::keep);
                return Err(refusal);
            }
            performer.release_unresolved().await;
            let session = SessionId::random();
            let incarnation = services.health.incarnation().ok_or_else(unavailable)?;
            // A text client cannot present a token.
            let (token, hash) = match performer.outbox.dialect().is_line() {
                true => (Token::new(""), TokenHash::none()),
                false => token::issue(&session, user_token.as_ref().map(|token| &token.grant.user)),
            };
            services.hub.open_inbox(&session, &nick, &performer.outbox);
            let user = user_token.as_ref().map(|token| token.grant.user.clone());
            let attempt = ClaimAttempt {
                incarnation,
                session: session.clone(),
                nick: nick.clone(),
                token: hash.clone(),
                user: user.clone(),
            };
            let claimed = performer.claim(attempt).await;
            services.metrics.registrations[result(&claimed)].inc();
            let may_be_done = matches!(claimed, Ok(_) | Err(ClaimError::Registry(RegistryError::Unknown(_))));
            if let Some(registration) = registration.filter(|_| may_be_done) {
                registration.keep();
            }
            let (owner, inbox) = claimed.inspect_err(|_| services.hub.discard_inbox(&session))?;
            performer.attach(LocalClaim {
                nick: nick.clone(),
                owner: owner.clone(),
                user: user.map(Box::new),
                status: Status::default(),
                rooms: Vec::new(),
                token: hash,
                detached: false,
            });
            performer.note_client(&owner, user_token.as_ref(), address);
            Ok(SessionBegun { nick, user_token, grant: SessionGrant { owner, token, time: unix_ms() }, inbox })
        }
    }

    fn result<T>(claimed: &Result<T, ClaimError>) -> RegistrationOutcome {
        match claimed {
            Ok(_) => RegistrationOutcome::Registered,
            Err(ClaimError::InUse { .. }) => RegistrationOutcome::InUse,
            Err(ClaimError::Confusable) => RegistrationOutcome::Confusable,
            Err(ClaimError::Registry(_)) => RegistrationOutcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use presence::host::reloadable::Reloadable;
    use presence::lease::OwnLease;
    use presence::model::codes::ErrorCode;
    use presence::registry::{GatewayInfo, HoldTerms, MemoryRegistry, Registry};
    use presence::store::memory::Store;

    use super::*;
    use crate::backplane::{Backplane, Delivery, MemoryBackplane};
    use crate::hooks::{ApplicationHooks, HookSettings};
    use crate::hub::Hub;
    use crate::identity::{AuthConfig, IdentityGate};
    use crate::metrics::Metrics;
    use crate::outbound::reply_budget::ReplyBudget;
    use crate::quota::Quotas;
    use crate::sanctions::ClusterSanctions;
    use crate::session::performer::Performer;
    use crate::session::send_rates::SendRates;
    use crate::session::services::Services;
    use crate::wire::Dialect;

    #[tokio::test]
    async fn refused_register_leaves_nothing_in_the_hub() {
        let (store, metrics) = (Store::default(), Arc::new(Metrics::new()));
        let services = Arc::new(Services {
            node: "g1".into(),
            identity: IdentityGate::new(&AuthConfig::default()),
            registry: Registry::Memory(MemoryRegistry::new(store.clone())),
            backplane: Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_: Delivery| {}))),
            hub: Arc::new(Hub::new(metrics.counts.clone())),
            claims: Arc::default(),
            sanctions: Arc::new(ClusterSanctions::new(true)),
            hooks: Arc::new(ApplicationHooks::new("g1", &HookSettings::default(), &metrics.registry)),
            hold: HoldTerms::default(),
            health: Arc::default(),
            replies: ReplyBudget::new(4 * 1024 * 1024),
            session_limits: Reloadable::default(),
            quotas: Arc::new(Quotas::new("parley", Reloadable::default())),
            log_addresses: true,
            send_rates: SendRates::new(Reloadable::from(65_536)),
            metrics,
        });
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        let lease = OwnLease::new(services.registry.clone(), Arc::clone(&services.health), info);
        assert!(lease.open().await);
        let mut performers = [(); 2].map(|()| Performer::new(Arc::clone(&services), Dialect::Json));
        let begin =
            || BeginSession { nick: Some(Nick::parse("ann").unwrap()), token: None, address: None, registration: None };
        begin().perform(&mut performers[0]).await.unwrap();
        let refused = begin().perform(&mut performers[1]).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NickInUse);
        assert_eq!(services.hub.stream_count(), 1, "refused session left a stream in the hub");
        let nameless = BeginSession { nick: None, ..begin() }.perform(&mut performers[1]).await.unwrap_err();
        assert_eq!((nameless.code, nameless.message()), (ErrorCode::BadRequest, "`nick` is missing"));
    }
}
