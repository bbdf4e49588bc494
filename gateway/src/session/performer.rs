//! The performing side of one session: its outbox, and what registry and hub hold for it.
//!
//! [`Performer`] is shared by the performing halves of all verbs and by the end of the connection. Invariant:
//! everything that the store may hold for this session is noted here until the store has confirmed its release. Decides
//! only about claims: to retry, keep or release them, and to close a connection whose lease was lost.

use std::sync::Arc;
use std::time::SystemTime;

use presence::host::client_address::ClientAddress;
use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::stream::StreamEnd;
use presence::model::{Incarnation, Nick, Owner, RoomKey, RoomName, SessionId, TokenHash, UserId};
use presence::registry::{ClaimError, ClaimRequest, LocalClaim, RegistryError, ReleaseCause, ResumeTicket};

use crate::identity::{Introduction, TokenFault, UserToken};
use crate::outbound::Outbox;
use crate::outbound::reply_budget::ReplyReservation;
use crate::sanctions::SanctionedClient;
use crate::wire::{Dialect, Refusal, Token};

use super::own_messages::OwnMessages;
use super::retry::{answered, until_answered};
use super::services::Services;
use super::small_map::SmallMap;

/// A claim of a nickname, as it is asked of the registry.
#[derive(Debug)]
pub(super) struct ClaimAttempt {
    pub(super) incarnation: Incarnation,
    pub(super) session: SessionId,
    pub(super) nick: Nick,
    pub(super) token: TokenHash,
    pub(super) user: Option<UserId>,
}

impl ClaimAttempt {
    fn request(&self) -> ClaimRequest<'_> {
        let Self { incarnation, session, nick, token, user } = self;
        ClaimRequest { incarnation, session, nick, token, user: user.as_ref() }
    }
}

/// A resume whose outcome is unknown. Its repetition gets the same new token.
#[derive(Debug)]
pub(super) struct UnansweredResume {
    pub(super) ticket: ResumeTicket,
    pub(super) token: Token,
    pub(super) hash: TokenHash,
}

/// Remains of what a connection tried before it had a session.
#[derive(Debug, Default)]
struct LoginRemains {
    /// Claims whose outcome is unknown.
    unresolved: Vec<ClaimAttempt>,
    unanswered: Option<UnansweredResume>,
    /// The token of the connection's `Authorization` header, until the client has registered.
    bearer: Option<Token>,
}

/// The performing side of one session.
#[derive(Debug)]
pub(super) struct Performer {
    pub(super) services: Arc<Services>,
    pub(super) outbox: Outbox,
    /// Nicknames that the store holds for this session; more than one only during a change of nickname.
    pub(super) claims: Vec<(Nick, Owner)>,
    /// Rooms that the store may hold for this session.
    pub(super) rooms: SmallMap<RoomKey, RoomName>,
    /// Rooms that the hub delivers to this connection.
    pub(super) received: SmallMap<RoomKey, ()>,
    /// The client's own messages that it may not have received yet.
    pub(super) own_messages: OwnMessages,
    /// Boxed: few connections have any.
    remains: Option<Box<LoginRemains>>,
    /// The hash of the client's token.
    pub(super) token: Option<TokenHash>,
    /// The part of the reply budget for the request that is being performed.
    pub(super) reservation: Option<ReplyReservation>,
}

impl Performer {
    /// A connection without a session.
    pub(super) fn new(services: Arc<Services>, dialect: Dialect) -> Self {
        Self {
            services,
            outbox: Outbox::new(dialect),
            claims: Vec::new(),
            rooms: SmallMap::default(),
            received: SmallMap::default(),
            own_messages: OwnMessages::default(),
            remains: None,
            token: None,
            reservation: None,
        }
    }

    /// Notes the token of the connection, for a `register` without one.
    pub(super) fn present(&mut self, token: Token) {
        self.remains.get_or_insert_default().bearer = Some(token);
    }

    /// Notes a resume whose outcome is unknown.
    pub(super) fn note_unanswered(&mut self, resume: UnansweredResume) {
        self.remains.get_or_insert_default().unanswered = Some(resume);
    }

    pub(super) fn take_unanswered(&mut self) -> Option<UnansweredResume> {
        self.remains.as_mut()?.unanswered.take()
    }

    fn take_unresolved(&mut self) -> Vec<ClaimAttempt> {
        self.remains.as_mut().map(|remains| std::mem::take(&mut remains.unresolved)).unwrap_or_default()
    }

    /// Reserves a part of the reply budget for a list of up to `wanted` bytes. Returns the bytes that it may have.
    pub(super) async fn reserve_reply(&mut self, wanted: usize) -> Result<usize, Refusal> {
        let reservation = self.services.replies.reserve(wanted).await?;
        Ok(self.reservation.insert(reservation).bytes())
    }

    /// Admits the user: by the token of its `register`, or else by that of its connection. Returns the nickname to
    /// claim, and the token.
    pub(super) async fn introduce(
        &mut self,
        nick: Option<Nick>,
        token: Option<Token>,
        address: Option<ClientAddress>,
    ) -> Result<(Nick, Option<UserToken>), Refusal> {
        let bearer = self.remains.as_ref().and_then(|remains| remains.bearer.as_ref());
        let token = token.as_ref().or(bearer).map(Token::reveal);
        // Boxed: its state while it fetches keys would otherwise be part of every connection.
        let introduced = Box::pin(self.services.identity.introduce(token, nick)).await;
        let Introduction { nick, token } = introduced.inspect_err(|fault| self.note_refused_token(fault, address))?;
        let nick = nick.ok_or_else(|| Refusal::from(ErrorCode::BadRequest).with_detail("`nick` is missing"))?;
        self.check_sanctions(&nick, token.as_ref(), address)?;
        if let Some(remains) = &mut self.remains {
            remains.bearer = None;
        }
        Ok((nick, token))
    }

    /// Refuses a client that is banned, and a token that is revoked.
    fn check_sanctions(
        &self,
        nick: &Nick,
        token: Option<&UserToken>,
        address: Option<ClientAddress>,
    ) -> Result<(), Refusal> {
        let sanctions = &self.services.sanctions;
        let user = token.map(|token| (&token.grant.user, token.grant.issued));
        if let Some(ban) = sanctions.ban_of(&SanctionedClient { nick: nick.key(), user, session: None, address }) {
            sanctions.note_refusal(address);
            return Err(ban.into());
        }
        if user.is_some_and(|(user, issued)| sanctions.revokes(user, issued)) {
            self.note_refused_token(&TokenFault::Revoked, address);
            return Err(TokenFault::Revoked.into());
        }
        Ok(())
    }

    /// Notes in the log that a token was refused, with the address of the client if the log names addresses.
    pub(super) fn note_refused_token(&self, reason: &impl ToString, address: Option<ClientAddress>) {
        self.services.identity.note_refusal(reason, address.filter(|_| self.services.log_addresses));
    }

    /// Claims a nickname and finds the end of the session's inbox.
    pub(super) async fn claim(&mut self, attempt: ClaimAttempt) -> Result<(Owner, StreamEnd), ClaimError> {
        match answered(|| self.services.registry.claim(attempt.request())).await {
            Ok((fence, inbox)) => {
                let ClaimAttempt { incarnation, session, .. } = attempt;
                Ok((Owner { incarnation, session, fence }, inbox))
            }
            Err(error) => {
                if matches!(error, ClaimError::Registry(RegistryError::Unknown(_))) {
                    self.remains.get_or_insert_default().unresolved.push(attempt);
                }
                Err(error)
            }
        }
    }

    /// Releases what unresolved claims of this connection may have taken, as far as the store answers; the rest is left
    /// to the end. Without it a client would find its own nickname in use.
    pub(super) async fn release_unresolved(&mut self) {
        let services = Arc::clone(&self.services);
        for attempt in self.take_unresolved() {
            match answered(|| services.registry.claim(attempt.request())).await {
                Ok((fence, _)) => {
                    let ClaimAttempt { incarnation, session, nick, .. } = attempt;
                    let owner = Owner { incarnation, session, fence };
                    if answered(|| services.registry.release(&nick, &owner, ReleaseCause::CLOSED)).await.is_err() {
                        self.claims.push((nick, owner));
                    }
                }
                Err(ClaimError::Registry(RegistryError::Unknown(_) | RegistryError::Unavailable(_))) => {
                    self.remains.get_or_insert_default().unresolved.push(attempt);
                }
                Err(_) => {}
            }
        }
    }

    /// Finds out which unresolved claims were made, so that they can be released.
    pub(super) async fn resolve_claims(&mut self) {
        let unresolved = self.take_unresolved();
        let registry = &self.services.registry;
        for attempt in unresolved {
            if let Ok((fence, _)) = until_answered(|| registry.claim(attempt.request())).await {
                let ClaimAttempt { incarnation, session, nick, .. } = attempt;
                self.claims.push((nick, Owner { incarnation, session, fence }));
            }
        }
    }

    /// Attaches the session to this connection.
    pub(super) fn attach(&mut self, claim: LocalClaim) {
        let (services, nick, owner) = (Arc::clone(&self.services), claim.nick.clone(), claim.owner.clone());
        self.token = Some(claim.token.clone());
        self.remains = self.remains.take().filter(|remains| !remains.unresolved.is_empty());
        services.hub.register_session(&owner, &nick, &self.outbox);
        services.claims.insert(claim);
        self.record_claim(nick, owner);
    }

    /// Notes a claim, in place of an older note of it.
    pub(super) fn record_claim(&mut self, nick: Nick, owner: Owner) {
        // The lease may have been lost during the claim: then this session was not closed with the others.
        if self.services.health.incarnation().as_ref() != Some(&owner.incarnation) {
            self.outbox.close(CloseCode::Restart);
        }
        self.claims.retain(|(_, known)| *known != owner);
        // Usually the only entry for the life of the session.
        self.claims.reserve_exact(1);
        self.claims.push((nick, owner));
    }

    /// Ends the delivery of a room to this connection.
    pub(super) fn stop_receiving(&mut self, room: &RoomKey, session: &SessionId) {
        if self.received.remove(room).is_some() {
            self.services.hub.leave_room(room, session, &self.outbox);
            self.services.backplane.unsubscribe(room);
        }
    }

    /// Detaches the session from this connection: the hub delivers nothing to it any more.
    pub(super) fn stop_receiving_everything(&mut self, owner: &Owner) {
        self.services.hub.unregister_session(owner);
        let received: Vec<RoomKey> = self.received.keys().cloned().collect();
        for room in &received {
            self.stop_receiving(room, &owner.session);
        }
    }

    /// Forgets a room that the store no longer holds for this session.
    pub(super) fn forget_room(&mut self, room: &RoomName, owner: &Owner) {
        self.rooms.remove(room.key());
        self.services.claims.change(owner, |claim| claim.rooms.retain(|held| held.key() != room.key()));
    }
}

/// Returns the gateway's clock in Unix milliseconds.
pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
