//! The session records in memory. The rules on them are in `registry/sessions/memory.rs`.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Nick, NickKey, Owner, RoomKey, SessionId, TokenHash};

/// The session records.
#[derive(Debug, Default)]
pub(crate) struct Sessions(pub(crate) HashMap<SessionId, SessionRecord>);

#[derive(Debug)]
pub(crate) struct SessionRecord {
    /// Its present nick.
    pub(crate) nick: NickKey,
    pub(crate) token: TokenHash,
    /// The former token, until the client is known to have the new one.
    pub(crate) previous: Option<TokenHash>,
    /// The claim before the last resume, for a repeated call; until the client is known to have the new token.
    pub(crate) former: Option<(Nick, Owner)>,
    pub(crate) read: u64,
    /// The rooms that it is in, or was in when it ended without `bye` or leave.
    pub(crate) rooms: BTreeSet<RoomKey>,
    /// The time at which it lost its nick; `None` while it owns it.
    pub(crate) ended: Option<u64>,
}

impl Sessions {
    /// Returns true if a claim may use this token: the session is new, or this is its token.
    pub(crate) fn may_claim(&self, session: &SessionId, token: &TokenHash) -> bool {
        self.0.get(session).is_none_or(|known| known.token == *token)
    }

    /// Returns a session's present nick.
    pub(crate) fn nick(&self, session: &SessionId) -> Option<&NickKey> {
        Some(&self.0.get(session)?.nick)
    }

    /// Returns true if a client may still resume the session. A text client has no token.
    pub(crate) fn can_return(&self, session: &SessionId) -> bool {
        self.0.get(session).is_some_and(|known| !known.token.is_none())
    }

    pub(crate) fn uses_nick(&self, session: &SessionId, nick: &NickKey) -> bool {
        self.0.get(session).is_some_and(|known| known.nick == *nick)
    }

    /// Returns the time at which an ended session ended.
    pub(crate) fn ended_at(&self, session: &SessionId) -> Option<u64> {
        self.0.get(session)?.ended
    }

    pub(crate) fn claimed(&mut self, session: &SessionId, nick: &NickKey, token: &TokenHash) {
        let known = self.0.entry(session.clone()).or_insert_with(|| SessionRecord {
            nick: nick.clone(),
            token: token.clone(),
            previous: None,
            former: None,
            read: 0,
            rooms: BTreeSet::new(),
            ended: None,
        });
        known.nick = nick.clone();
        known.ended = None;
    }

    pub(crate) fn ended(&mut self, session: &SessionId, now: u64) {
        if let Some(known) = self.0.get_mut(session) {
            known.ended = Some(now);
        }
    }

    /// Revokes the tokens of a session: no client can resume it.
    pub(crate) fn revoke_tokens(&mut self, session: &SessionId) {
        if let Some(known) = self.0.get_mut(session) {
            (known.token, known.previous, known.former) = (TokenHash::none(), None, None);
        }
    }

    pub(crate) fn joined(&mut self, session: &SessionId, room: &RoomKey) {
        if let Some(known) = self.0.get_mut(session) {
            known.rooms.insert(room.clone());
        }
    }

    /// Returns true if a resume of the session restores this room.
    pub(crate) fn has_room(&self, session: &SessionId, room: &RoomKey) -> bool {
        self.0.get(session).is_some_and(|known| known.rooms.contains(room))
    }

    pub(crate) fn forget_room(&mut self, session: &SessionId, room: &RoomKey) {
        if let Some(known) = self.0.get_mut(session) {
            known.rooms.remove(room);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
