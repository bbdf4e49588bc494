//! The requests of a session: each call is repeated until it is answered, and in the order of its lane.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::connection::retry_wait;
use super::{CallId, InFlight, Machine, Purpose, SessionEffect};
use crate::error::ParleyError;
use crate::events::{Ack, Message, RoomEvent};
use crate::wire::{ClientRequest, INBOX, NickFrame, REQUEST_BYTES_MAX, fold, is_room};

/// Time in which a send without an answer is repeated. The server remembers its key for five minutes.
const KEY_LIFE: Duration = Duration::from_secs(240);

impl Machine {
    pub(super) fn call(&mut self, id: CallId, request: ClientRequest) {
        if request == ClientRequest::Bye {
            return self.leave(id);
        }
        let renames = matches!(request, ClientRequest::Nick { .. });
        let begins_again = self.is_refused && renames;
        if let Some(error) = self.ended.clone().filter(|_| !begins_again) {
            return self.answer(id, Err(error));
        }
        let bytes = request.encode(None).map_or(usize::MAX, |frame| frame.to_string().len());
        if bytes > REQUEST_BYTES_MAX {
            let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
            return self.answer(id, Err(ParleyError::new("too_large", message)));
        }
        if let ClientRequest::Nick { nick } = &request
            && (begins_again || self.online_at.is_none())
        {
            // Without a session the new nickname is the one to register.
            self.nick.clone_from(nick);
            self.is_named = true;
        }
        self.calls.add(id, request);
        if begins_again {
            self.begin_again();
        }
        self.run(id);
        if self.is_online() {
            self.expect_reply();
        }
    }

    /// Ends a call without an answer. A send that is on the wire may be stored; other changes are completed.
    pub(super) fn abort(&mut self, id: CallId) {
        self.rooms.forget_joiner(id);
        let Some(call) = self.calls.get_mut(id) else { return };
        let is_sent = call.is_on_wire || call.maybe_done;
        match call.request {
            ClientRequest::Join { .. } | ClientRequest::Leave { .. } | ClientRequest::Nick { .. } if is_sent => {
                call.has_caller = false;
            }
            _ => self.settle(id, None),
        }
    }

    pub(super) fn notify(&mut self, request: &ClientRequest) {
        if self.is_online() {
            self.transmit(request, Purpose::Notice);
        }
    }

    /// Fails all calls.
    pub(super) fn fail_all(&mut self, error: &ParleyError) {
        for id in self.calls.ids() {
            self.settle(id, Some(Err(error.clone())));
        }
    }

    /// Fails the sends that may be stored. Their keys belong to a session that is lost: a repeated one could be stored
    /// twice.
    pub(super) fn fail_uncertain_sends(&mut self) {
        for id in self.calls.ids() {
            if self.calls.get(id).is_some_and(|call| call.is_send() && call.maybe_done) {
                let error = ParleyError::new("outcome_unknown", "the session of the first attempt is lost");
                self.settle(id, Some(Err(error)));
            }
        }
    }

    /// Forgets the requests on the wire.
    pub(super) fn pause_calls(&mut self) {
        self.wire.clear();
        self.rooms.disconnected(&mut self.calls);
        for call in self.calls.iter_mut() {
            if std::mem::take(&mut call.is_on_wire) {
                call.maybe_done = true;
                if call.is_send() {
                    call.expires.get_or_insert(call.sent_at + KEY_LIFE);
                }
            }
            call.held.clear();
        }
        self.calls_due = self.calls.iter_mut().filter_map(|call| call.expires).min();
    }

    /// Sends the requests of all calls whose turn it is, and ends the sends whose time is over.
    pub(super) fn run_all(&mut self) {
        self.calls_due = None;
        for id in self.calls.ids() {
            let Some(call) = self.calls.get(id) else { continue };
            match call.expires {
                Some(expires) if self.now >= expires => {
                    let error = ParleyError::new("outcome_unknown", "the answer did not come in time");
                    self.settle(id, Some(Err(error)));
                }
                Some(expires) => self.calls_due_at(expires),
                None => {}
            }
            self.run(id);
        }
    }

    fn calls_due_at(&mut self, due: Duration) {
        self.calls_due = Some(self.calls_due.map_or(due, |earliest| earliest.min(due)));
    }

    pub(super) fn run(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id).filter(|call| !call.is_on_wire) else { return };
        if !self.is_online() || !self.calls.is_first(id) {
            return;
        }
        if call.due > self.now {
            return self.calls_due_at(call.due);
        }
        let mut request = call.request.clone();
        if let ClientRequest::Join { room, since } = &mut request {
            let key = fold(room);
            if self.rooms.is_live(&key) {
                return self.enter_joined(id, &key);
            }
            *since = self.rooms.position(&key);
        }
        if let Some(call) = self.calls.get_mut(id) {
            call.is_on_wire = true;
            call.sent_at = self.now;
        }
        self.transmit(&request, Purpose::Call(id));
    }

    pub(super) fn transmit(&mut self, request: &ClientRequest, purpose: Purpose) {
        self.wire_ids += 1;
        let id = self.wire_ids;
        // `bye` has no reply.
        let frame_id = (*request != ClientRequest::Bye).then_some(id);
        if let Ok(frame) = request.encode(frame_id) {
            self.wire.extend(frame_id.map(|id| InFlight { id, purpose }));
            self.emit(SessionEffect::Transmit(frame));
        }
    }

    /// Ends a call, and continues its lane.
    pub(super) fn settle(&mut self, id: CallId, outcome: Option<Result<Value, ParleyError>>) {
        let Some((call, next)) = self.calls.remove(id) else { return };
        if let Some(outcome) = outcome.filter(|_| call.has_caller) {
            self.answer(id, outcome);
        }
        if let Some(next) = next {
            self.run(next);
        }
    }

    pub(super) fn answer(&mut self, id: CallId, outcome: Result<Value, ParleyError>) {
        self.emit(SessionEffect::Answer(id, outcome));
    }

    /// Applies a reply to its call. Returns the purpose of its request. Replies come in the order of the requests.
    pub(super) fn reply(&mut self, id: Option<u64>, outcome: &Result<Value, ParleyError>) -> Option<Purpose> {
        let at = id.map_or(Some(0), |id| self.wire.iter().position(|request| request.id == id))?;
        let purpose = self.wire.remove(at)?.purpose;
        if let Purpose::Call(id) = purpose
            && let Some(call) = self.calls.get_mut(id)
        {
            call.is_on_wire = false;
            match outcome {
                Ok(reply) => self.done(id, reply),
                Err(error) => self.refused(id, error),
            }
        }
        Some(purpose)
    }

    fn refused(&mut self, id: CallId, error: &ParleyError) {
        let Some(call) = self.calls.get_mut(id) else { return };
        if error.code() == "outcome_unknown" {
            call.maybe_done = true;
            if call.is_send() {
                call.expires.get_or_insert(call.sent_at + KEY_LIFE);
            }
        }
        let refusals = call.refusals;
        let is_out = error.code() == "not_in_room";
        let request = call.request.clone();
        let room = match &request {
            ClientRequest::Send { to: room, .. } | ClientRequest::History { to: room, .. } => Some(fold(room)),
            ClientRequest::Members { room, .. } | ClientRequest::Join { room, .. } => Some(fold(room)),
            _ => None,
        };
        let rejoins =
            |key: &String| self.calls.head(key).and_then(|id| self.calls.get(id)).is_some_and(|c| c.is_rejoin());
        if error.is_temporary() || (is_out && room.as_ref().is_some_and(rejoins)) {
            let wait = error.retry_after().unwrap_or_default() + retry_wait(refusals, self.random);
            if let Some(call) = self.calls.get_mut(id) {
                call.refusals += 1;
                call.due = self.now + wait;
                if let Some(expires) = call.expires {
                    self.calls_due_at(expires);
                }
            }
            return self.run(id);
        }
        match request {
            ClientRequest::Leave { room } if is_out => self.left(id, &fold(&room), Value::Null),
            ClientRequest::Join { room, .. } if self.calls.get(id).is_some_and(|call| call.is_rejoin()) => {
                self.settle(id, None);
                self.close_room(&fold(&room), error);
            }
            ClientRequest::Members { room, .. } => {
                self.settle(id, None);
                self.close_room(&fold(&room), error);
            }
            _ => self.settle(id, Some(Err(error.clone()))),
        }
    }

    fn done(&mut self, id: CallId, reply: &Value) {
        let Some(call) = self.calls.get(id) else { return };
        match &call.request {
            ClientRequest::Join { .. } => return self.joined(id, reply),
            ClientRequest::Members { .. } => return self.members_loaded(id, reply),
            ClientRequest::Leave { room } => {
                let key = fold(room);
                return self.left(id, &key, reply.clone());
            }
            ClientRequest::Nick { .. } => {
                if let Ok(frame) = NickFrame::deserialize(reply) {
                    self.take_nick(frame.nick);
                }
            }
            ClientRequest::Send { to, body, .. } => {
                let (to, body) = (to.clone(), body.clone());
                self.acked(to, body, reply);
            }
            _ => {}
        }
        self.settle(id, Some(Ok(reply.clone())));
    }

    /// Remembers a message of this session. A direct one is delivered to its own conversation.
    fn acked(&mut self, to: String, body: Value, reply: &Value) {
        let Ok(ack) = Ack::deserialize(reply) else { return };
        self.own_ids.insert(&ack.id);
        if !is_room(&to) {
            let Ack { id, time, .. } = ack;
            let from = self.nick.clone();
            let from_user = self.user.clone();
            let (from_api, seq) = (false, None);
            let message = Message { id, to, from, from_user, from_api, seq, time, body, own: true, repeated: false };
            self.emit(SessionEffect::Deliver(INBOX.to_owned(), RoomEvent::Message(message)));
        }
    }
}
