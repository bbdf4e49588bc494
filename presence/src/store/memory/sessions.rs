//! Sessions in memory: what outlives their connections, and how one is taken over.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;

use super::nicks::Freed;
use super::{State, now};
use crate::model::stream::StreamEnd;
use crate::model::{Fence, Incarnation, Nick, NickKey, Owner, RoomKey, SessionId, Status, TokenHash};
use crate::registry::{Command, Inbox, RegistryError, Restored, ResumeError, Resumed, Ticket};

/// The session records.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<SessionId, Session>);

#[derive(Debug)]
struct Session {
    /// The nick it goes by; after a rename the new one.
    nick: NickKey,
    token: TokenHash,
    /// The token before, until the client is known to have the new one.
    previous: Option<TokenHash>,
    /// What the last resume found, for who asks again; until the client is known to have heard of it.
    was: Option<(Nick, Owner)>,
    read: u64,
    /// The rooms it is in, or was in when it ended against its will.
    rooms: BTreeSet<RoomKey>,
    /// When it ceased to own its nick; `None` while it does.
    ended: Option<u64>,
}

impl Sessions {
    /// Whether a claim may be made with this token: the session is new, or this is what it is resumed with.
    pub(super) fn may_claim(&self, session: &SessionId, token: &TokenHash) -> bool {
        self.0.get(session).is_none_or(|known| known.token == *token)
    }

    /// The nick that a session goes by.
    pub(super) fn nick(&self, session: &SessionId) -> Option<&NickKey> {
        Some(&self.0.get(session)?.nick)
    }

    pub(super) fn goes_by(&self, session: &SessionId, nick: &NickKey) -> bool {
        self.0.get(session).is_some_and(|known| known.nick == *nick)
    }

    pub(super) fn claimed(&mut self, session: &SessionId, nick: &NickKey, token: &TokenHash) {
        let known = self.0.entry(session.clone()).or_insert_with(|| Session {
            nick: nick.clone(),
            token: token.clone(),
            previous: None,
            was: None,
            read: 0,
            rooms: BTreeSet::new(),
            ended: None,
        });
        known.nick = nick.clone();
        known.ended = None;
    }

    pub(super) fn ended(&mut self, session: &SessionId, now: u64) {
        if let Some(known) = self.0.get_mut(session) {
            known.ended = Some(now);
        }
    }

    pub(super) fn joined(&mut self, session: &SessionId, room: &RoomKey) {
        if let Some(known) = self.0.get_mut(session) {
            known.rooms.insert(room.clone());
        }
    }

    pub(super) fn left_for_good(&mut self, session: &SessionId, room: &RoomKey) {
        if let Some(known) = self.0.get_mut(session) {
            known.rooms.remove(room);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl State {
    /// Forgets a session that ended then and was not resumed since.
    pub(super) fn forget_session(&mut self, session: &SessionId, ended: u64) {
        if self.sessions.0.get(session).is_some_and(|known| known.ended.is_some_and(|at| at <= ended)) {
            self.sessions.0.remove(session);
            self.inboxes.forget(session);
        }
    }

    pub(crate) fn resume(
        &mut self,
        incarnation: &Incarnation,
        ticket: &Ticket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<Resumed, ResumeError> {
        if !self.leases.serves(incarnation) {
            return Err(ResumeError::Claim(RegistryError::Fenced.into()));
        }
        let session = &ticket.session;
        let known = self.sessions.0.get(session).ok_or(ResumeError::UnknownToken)?;
        let was_previous = known.previous.as_ref() == Some(&ticket.presented);
        if known.token != ticket.presented && !was_previous {
            return Err(ResumeError::UnknownToken);
        }
        let own = known.nick.clone();
        let is_own = |owner: &Owner| owner.session == *session;
        if was_previous
            && known.token == *next
            && let Some(owner) = self.nicks.owner(nick.key())
            && owner.incarnation == *incarnation
            && is_own(owner)
        {
            let (fence, was) = (owner.fence, known.was.clone());
            return Ok(self.resumed(session, nick, fence, was));
        }
        if !self.keeps(nick.key(), session) {
            self.may_take(nick, session, is_own)?;
        }

        let was = self.nicks.owner(&own).cloned().filter(is_own);
        let was = was.and_then(|owner| Some((Nick::parse(self.nicks.display(&own)?).ok()?, owner)));
        self.order_taken(&own, session);
        let status = self.nicks.status(&own).filter(|_| was.is_some()).cloned();
        let moves = own != *nick.key();
        if moves {
            self.order_taken(nick.key(), session);
        }
        let known_here = self.nicks.owner(nick.key()).is_some_and(is_own);
        let fence = if known_here {
            self.take_over(incarnation, nick)
        } else {
            self.take(incarnation, session, nick, was.is_none())
        };
        let known = self.sessions.0.get_mut(session).ok_or(ResumeError::UnknownToken)?;
        if !was_previous {
            known.previous = Some(ticket.presented.clone());
        }
        known.token = next.clone();
        known.was = was.clone();
        known.nick = nick.key().clone();
        known.ended = None;
        if moves {
            if let Some(status) = status {
                self.nicks.set_status(nick.key(), status);
            }
            match &was {
                Some((old, _)) => {
                    self.free_nick(&own, Freed::ForAnybody);
                    self.events.add(now(), "rename", json!({ "from": old.as_str(), "to": nick.as_str() }));
                }
                None => self.nicks.let_go(&own, session),
            }
        }
        Ok(self.resumed(session, nick, fence, was))
    }

    pub(crate) fn confirm(&mut self, session: &SessionId, token: &TokenHash) -> bool {
        let Some(known) = self.sessions.0.get_mut(session).filter(|known| known.token == *token) else { return false };
        (known.previous, known.was) = (None, None);
        true
    }

    pub(crate) fn read(&mut self, session: &SessionId, seq: u64) -> bool {
        let top = self.inboxes.head(session).top;
        let Some(known) = self.sessions.0.get_mut(session) else { return false };
        known.read = known.read.max(seq.min(top));
        true
    }

    /// Orders the gateway of a nick's owner to end that connection, if it is this session's: at once over its channel, and
    /// by its mailbox in case that does not arrive.
    fn order_taken(&mut self, nick: &NickKey, session: &SessionId) {
        let Some(Owner { incarnation, fence, .. }) =
            self.live_owner(nick).filter(|owner| owner.session == *session).cloned()
        else {
            return;
        };
        if let Some(row) = self.leases.row(&incarnation) {
            row.mailbox.push(Command::Taken { session: session.clone(), fence });
        }
        let channel = self.keys.gateway_channel(&incarnation);
        self.channels.publish(&channel, format!("T {session} {}", fence.0).as_bytes());
    }

    fn resumed(&mut self, session: &SessionId, nick: &Nick, fence: Fence, was: Option<(Nick, Owner)>) -> Resumed {
        let StreamEnd { epoch, top: seq, .. } = self.inboxes.head(session);
        let known = self.sessions.0.get(session);
        let rooms = known.into_iter().flat_map(|known| &known.rooms);
        let restored = |room| {
            let (room, epoch, seq) = self.rooms.position(room)?;
            Some(Restored { room, epoch, seq })
        };
        Resumed {
            fence,
            was,
            status: self.nicks.status(nick.key()).cloned().unwrap_or_else(Status::default),
            rooms: rooms.filter_map(restored).collect(),
            inbox: Inbox { epoch, seq, read: known.map(|known| known.read).unwrap_or_default() },
        }
    }
}
