//! Questions to the application about requests of a session, where hooks are set.
//!
//! Each is asked after everything that this gateway can decide, and before anything is done. Returns of a session are
//! not asked: a resume, and the rooms that it joins again. [`crate::hooks`] asks, bounds and remembers.

use std::future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use presence::host::client_address::ClientAddress;
use presence::model::codes::ErrorCode;
use presence::model::{Nick, RoomName};
use tokio_util::task::AbortOnDropHandle;

use crate::hooks::{AskedRequest, HookKind, HookQuestion, HookRefusal};
use crate::identity::UserToken;
use crate::outbound::Outbox;
use crate::wire::Refusal;

use super::refusal::unavailable;
use super::services::Services;
use super::state::SessionIdentity;
use super::verbs::send::SendMessage;

/// The answer to a question.
pub(super) type Permission = Result<(), Refusal>;

impl Services {
    /// Asks before a session begins under a nickname. The lifetime of the token goes on meanwhile.
    pub(super) async fn ask_register(
        &self,
        nick: &Nick,
        token: Option<&mut UserToken>,
        address: Option<ClientAddress>,
    ) -> Permission {
        if !self.hooks.asks(HookKind::Register) {
            return Ok(());
        }
        let (began, grant) = (Instant::now(), token.as_ref().map(|token| Arc::clone(&token.grant)));
        let request = AskedRequest::Register;
        self.ask(HookQuestion { request, session: None, nick: nick.clone(), grant, address }).await?;
        if let Some(token) = token {
            token.lifetime = token.lifetime.saturating_sub(began.elapsed());
        }
        Ok(())
    }

    /// Asks before a session enters a room.
    pub(super) async fn ask_join(
        &self,
        me: &SessionIdentity,
        room: &RoomName,
        address: Option<ClientAddress>,
        outbox: &Outbox,
    ) -> Permission {
        if !self.hooks.asks(HookKind::Join) {
            return Ok(());
        }
        let mut asked = Box::pin(self.ask(HookQuestion {
            request: AskedRequest::Join(room.clone()),
            session: Some(me.owner.session.clone()),
            nick: me.nick.clone(),
            grant: me.grant.clone(),
            address,
        }));
        // The connection polls the request again once it has ended.
        let answered = |context: &mut Context<'_>| match outbox.is_ended_by_order() {
            true => Poll::Ready(Err(unavailable())),
            false => asked.as_mut().poll(context),
        };
        future::poll_fn(answered).await
    }

    /// Boxed: its state would otherwise be part of every request.
    async fn ask(&self, question: HookQuestion) -> Permission {
        let address = question.address.filter(|_| self.log_addresses);
        let question = HookQuestion { address, ..question };
        Box::pin(self.hooks.ask(&question)).await.map_err(Refusal::from)
    }

    /// Begins to ask about a message, in a task of its own: the questions about the messages of a connection are under
    /// way together.
    pub(super) fn ask_send(
        self: &Arc<Self>,
        message: &SendMessage,
        address: Option<ClientAddress>,
    ) -> BoxFuture<'static, Permission> {
        if message.is_muted(self) {
            return Box::pin(future::ready(Err(ErrorCode::Muted.into())));
        }
        let (services, question) = (Arc::clone(self), message.question(address.filter(|_| self.log_addresses)));
        let asked = AbortOnDropHandle::new(tokio::spawn(async move {
            services.hooks.ask(&question).await?;
            // The store may have gone away meanwhile.
            if services.health.is_store_answering(Instant::now()) { Ok(()) } else { Err(unavailable()) }
        }));
        Box::pin(async { asked.await.unwrap_or_else(|_| Err(HookRefusal::Unavailable.into())) })
    }
}
