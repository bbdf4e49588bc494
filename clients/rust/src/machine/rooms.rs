//! Joined rooms and the inbox: positions, members, and the events that the application receives.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::calls::Calls;
use super::members::MembersLoad;
use super::stream::{StreamCursor, StreamMove, message_of};
use super::{CallId, Machine, SessionEffect};
use crate::error::ParleyError;
use crate::events::{MembersChange, RoomEvent};
use crate::wire::{
    ClientRequest, EventFrame, INBOX, JoinedFrame, MembersFrame, PresenceFrame, WirePosition, fold, is_room,
};

/// Number of members to request at once.
const MEMBERS_PAGE: u32 = 1_000;

/// A room that this session has joined.
#[derive(Debug)]
struct OpenRoom {
    /// Name as the server shows it.
    name: String,
    stream: StreamCursor,
    /// True if its events arrive over the current connection.
    is_live: bool,
    /// The list of members that is being loaded, and the call for it.
    loading: Option<(CallId, MembersLoad)>,
    /// Calls of `join` that wait for the members.
    joiners: Vec<CallId>,
}

/// Joined rooms by key, and the inbox.
#[derive(Debug)]
pub(super) struct ClientRooms {
    by_key: BTreeMap<String, OpenRoom>,
    pub(super) inbox: Option<StreamCursor>,
    /// Positions of rooms that this run has not joined, by key, with their names.
    stored: BTreeMap<String, (String, WirePosition)>,
}

impl ClientRooms {
    /// Takes over the positions of an earlier run. Its inbox belongs to its session.
    pub(super) fn restore(mut positions: BTreeMap<String, WirePosition>, has_session: bool) -> Self {
        let inbox = positions.remove(INBOX).filter(|_| has_session).map(StreamCursor::at);
        let stored = positions.into_iter().map(|(name, position)| (fold(&name), (name, position))).collect();
        Self { by_key: BTreeMap::new(), inbox, stored }
    }

    pub(super) fn positions(&self, handled: impl Fn(&str, u64) -> u64) -> BTreeMap<String, WirePosition> {
        let lowered = |key: &str, position: &WirePosition| {
            let seq = handled(key, position.seq).min(position.seq);
            WirePosition { epoch: position.epoch.clone(), seq }
        };
        let stored = self.stored.iter().map(|(key, (name, position))| (name.clone(), lowered(key, position)));
        let rooms = self.by_key.iter().map(|(key, room)| (room.name.clone(), lowered(key, &room.stream.position)));
        let inbox = self.inbox.iter().map(|inbox| (INBOX.to_owned(), lowered(INBOX, &inbox.position)));
        stored.chain(rooms).chain(inbox).collect()
    }

    /// Returns the positions to resume from. Paused rooms are left out, so the server delivers nothing of them.
    pub(super) fn since(&mut self) -> BTreeMap<String, WirePosition> {
        let mut since: BTreeMap<_, _> =
            self.inbox.iter().map(|inbox| (INBOX.to_owned(), inbox.position.clone())).collect();
        for room in self.by_key.values_mut() {
            room.is_live = !room.stream.is_paused;
            if room.is_live {
                since.insert(room.name.clone(), room.stream.position.clone());
            }
        }
        since
    }

    pub(super) fn is_live(&self, key: &str) -> bool {
        self.by_key.get(key).is_some_and(|room| room.is_live)
    }

    /// Returns the position to continue a room from.
    pub(super) fn position(&self, key: &str) -> Option<WirePosition> {
        let open = self.by_key.get(key).map(|room| &room.stream.position);
        open.or_else(|| self.stored.get(key).map(|(_, position)| position)).cloned()
    }

    pub(super) fn forget_joiner(&mut self, id: CallId) {
        for room in self.by_key.values_mut() {
            room.joiners.retain(|joiner| *joiner != id);
        }
    }

    /// Nothing arrives any more. The members are loaded again over the next connection.
    pub(super) fn disconnected(&mut self, calls: &mut Calls) {
        for room in self.by_key.values_mut() {
            room.is_live = false;
            if let Some((id, _)) = room.loading.take() {
                calls.remove(id);
            }
        }
    }

    fn stream_mut(&mut self, key: &str) -> Option<&mut StreamCursor> {
        match key {
            INBOX => self.inbox.as_mut(),
            key => self.by_key.get_mut(key).map(|room| &mut room.stream),
        }
    }
}

impl Machine {
    /// Continues in the rooms of a resumed session, and joins the others again.
    pub(super) fn continue_rooms(&mut self, listed: &[String]) {
        let listed: Vec<String> = listed.iter().map(|name| fold(name)).collect();
        let keys: Vec<String> = self.rooms.by_key.keys().cloned().collect();
        for key in keys {
            let Some(room) = self.rooms.by_key.get_mut(&key) else { continue };
            if listed.contains(&key) {
                self.load_members(&key);
            } else {
                room.is_live = false;
                self.join_again(&key);
            }
        }
    }

    /// Joins a room from its position, ahead of the calls to it.
    fn join_again(&mut self, key: &str) {
        let Some(room) = self.rooms.by_key.get(key) else { return };
        let request = ClientRequest::Join { room: room.name.clone(), since: None };
        let head = self.calls.head(key);
        if self.calls.is_leaving(key) || head.and_then(|id| self.calls.get(id)).is_some_and(|call| call.is_rejoin()) {
            return;
        }
        let id = self.calls.add_own(request);
        self.run(id);
    }

    /// Enters the room of a reply to `join`.
    pub(super) fn joined(&mut self, id: CallId, reply: &Value) {
        let Ok(frame) = JoinedFrame::deserialize(reply) else {
            let error = ParleyError::new("internal", "the reply to join is malformed");
            return self.settle(id, Some(Err(error)));
        };
        let Some(call) = self.calls.get_mut(id) else { return };
        let held = std::mem::take(&mut call.held);
        let key = self.open(frame);
        self.enter_joined(id, &key);
        held.into_iter().for_each(|event| self.event(event));
    }

    /// Notes that a room delivers, and loads its members. Returns its key.
    fn open(&mut self, frame: JoinedFrame) -> String {
        let key = fold(&frame.room);
        if let Some(room) = self.rooms.by_key.get_mut(&key) {
            room.is_live = true;
        } else {
            let position = self.rooms.stored.remove(&key).map_or(frame.position, |(_, position)| position);
            let (name, seq) = (frame.room.clone(), position.seq);
            let stream = StreamCursor::at(position);
            let room = OpenRoom { name: frame.room, stream, is_live: true, loading: None, joiners: Vec::new() };
            self.rooms.by_key.insert(key.clone(), room);
            self.emit(SessionEffect::OpenRoom { key: key.clone(), name, seq });
        }
        self.emit(SessionEffect::Save { at_once: true });
        self.load_members(&key);
        key
    }

    /// Answers a `join` of a live room: at once, or when its members are loaded.
    pub(super) fn enter_joined(&mut self, id: CallId, key: &str) {
        let Some((call, next)) = self.calls.remove(id) else { return };
        match self.rooms.by_key.get_mut(key).filter(|_| call.has_caller) {
            Some(room) if room.loading.is_some() => room.joiners.push(id),
            Some(_) => self.answer(id, Ok(key.into())),
            None => {}
        }
        if let Some(next) = next {
            self.run(next);
        }
    }

    fn load_members(&mut self, key: &str) {
        let Some(room) = self.rooms.by_key.get_mut(key) else { return };
        if let Some((id, _)) = room.loading.take() {
            self.calls.remove(id);
        }
        self.request_members(key, None, MembersLoad::default());
    }

    fn request_members(&mut self, key: &str, cursor: Option<String>, load: MembersLoad) {
        let Some(room) = self.rooms.by_key.get_mut(key) else { return };
        let request = ClientRequest::Members { room: room.name.clone(), limit: MEMBERS_PAGE, cursor };
        let id = self.calls.add_own(request);
        room.loading = Some((id, load));
        self.run(id);
    }

    /// Adds a page of the members, and requests the next one.
    pub(super) fn members_loaded(&mut self, id: CallId, reply: &Value) {
        let is_loaded = |room: &OpenRoom| room.loading.as_ref().is_some_and(|(loading, _)| *loading == id);
        let key = self.rooms.by_key.iter().find(|(_, room)| is_loaded(room)).map(|(key, _)| key.clone());
        self.settle(id, None);
        let Some(key) = key else { return };
        let Some(room) = self.rooms.by_key.get_mut(&key) else { return };
        let Some((_, mut load)) = room.loading.take() else { return };
        let Ok(page) = MembersFrame::deserialize(reply) else {
            return self.close_room(&key, &ParleyError::new("internal", "the list of members is malformed"));
        };
        load.add_page(page.items);
        if page.next_cursor.is_some() {
            return self.request_members(&key, page.next_cursor, load);
        }
        let joiners = std::mem::take(&mut room.joiners);
        self.emit(SessionEffect::Members(key.clone(), load.finish()));
        let change = MembersChange { resync: true, ..MembersChange::default() };
        self.emit(SessionEffect::Deliver(key.clone(), RoomEvent::Members(change)));
        for joiner in joiners {
            self.answer(joiner, Ok(key.clone().into()));
        }
    }

    /// Leaves a room, by the reply to `leave`.
    pub(super) fn left(&mut self, id: CallId, key: &str, reply: Value) {
        self.close_room(key, &ParleyError::new("not_in_room", "the room was left"));
        self.settle(id, Some(Ok(reply)));
    }

    /// Ends a room, and forgets its position.
    pub(super) fn close_room(&mut self, key: &str, error: &ParleyError) {
        self.rooms.stored.remove(key);
        let Some(room) = self.rooms.by_key.remove(key) else { return };
        if let Some((id, _)) = room.loading {
            self.calls.remove(id);
        }
        for joiner in room.joiners {
            self.answer(joiner, Err(error.clone()));
        }
        self.emit(SessionEffect::CloseRoom(key.to_owned()));
        self.emit(SessionEffect::Save { at_once: false });
    }

    /// Ends all rooms with the session. Their positions are kept for a later `join`.
    pub(super) fn close_all_rooms(&mut self) {
        for key in self.rooms.by_key.keys().cloned().collect::<Vec<_>>() {
            let Some(room) = self.rooms.by_key.get(&key) else { continue };
            let stored = (room.name.clone(), room.stream.position.clone());
            let error = self.ended.clone().unwrap_or_else(ParleyError::closed);
            self.close_room(&key, &error);
            self.rooms.stored.insert(key, stored);
        }
    }

    pub(super) fn event(&mut self, event: EventFrame) {
        let key = if is_room(event.target()) { fold(event.target()) } else { INBOX.to_owned() };
        if let EventFrame::Joined(joined) = event {
            if !self.rooms.is_live(&key) {
                self.open(joined);
            }
            return;
        }
        if key != INBOX && !self.rooms.is_live(&key) {
            // The order of the reply to a `join` and the events of its room is not defined.
            if let Some(call) = self.calls.head_join(&key).filter(|call| call.is_on_wire) {
                call.held.push(event);
            }
            return;
        }
        match event {
            EventFrame::Presence(presence) => self.members_changed(&key, presence),
            EventFrame::Typing { from, .. } => self.deliver(&key, RoomEvent::Typing { from }),
            EventFrame::Left { reason, .. } => {
                let text = format!("removed from the room: {reason}");
                self.close_room(&key, &ParleyError::new("not_in_room", text));
            }
            event => self.stream_event(&key, event),
        }
    }

    fn members_changed(&mut self, key: &str, presence: PresenceFrame) {
        if presence.resync {
            return self.load_members(key);
        }
        let change = MembersChange::from(presence);
        if let Some((_, load)) = self.rooms.by_key.get_mut(key).and_then(|room| room.loading.as_mut()) {
            load.note(change.clone());
        }
        self.deliver(key, RoomEvent::Members(change));
    }

    fn stream_event(&mut self, key: &str, event: EventFrame) {
        let Some(moved) = self.rooms.stream_mut(key).and_then(|stream| stream.apply(event)) else { return };
        let event = match moved {
            StreamMove::Message(frame, repeated) => {
                let own = self.is_own(&frame);
                RoomEvent::Message(message_of(frame, own, repeated))
            }
            StreamMove::Gap { from_seq, to_seq } => RoomEvent::Gap { from_seq, to_seq },
            StreamMove::Rewind { seq } => RoomEvent::Rewind { seq },
        };
        self.deliver(key, event);
        self.emit(SessionEffect::Save { at_once: false });
    }

    fn deliver(&mut self, key: &str, event: RoomEvent) {
        self.emit(SessionEffect::Deliver(key.to_owned(), event));
    }

    pub(super) fn pause(&mut self, key: &str) {
        if let Some(stream) = self.rooms.stream_mut(key) {
            stream.is_paused = true;
        }
    }

    pub(super) fn unpause(&mut self, key: &str) {
        let Some(stream) = self.rooms.stream_mut(key) else { return };
        if !std::mem::take(&mut stream.is_paused) || !self.is_online() {
            return;
        }
        if key == INBOX || self.rooms.is_live(key) {
            self.reconnect();
        } else {
            self.join_again(key);
        }
    }
}
