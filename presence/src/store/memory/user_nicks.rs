//! The nicks of users in memory: the rules of `registry/names/user_nicks.lua`.

use crate::model::{NickKey, UserId};

use super::Nicks;

/// Maximum number of nicks that are bound to one user, unless more are owned.
const USER_NICKS_MAX: usize = 8;

impl Nicks {
    /// Returns the user that a nick is bound to.
    pub(crate) fn user(&self, nick: &NickKey) -> Option<&UserId> {
        self.records.get(nick)?.user.as_ref()
    }

    /// Returns the nicks of a user, in the order of their claims; `None` for an unknown user.
    pub(crate) fn of_user(&self, user: &UserId) -> Option<&[NickKey]> {
        self.of_users.get(user).map(Vec::as_slice)
    }

    /// Binds an owned nick to a user. One nick too many replaces the oldest one that is not owned. An owned nick never
    /// leaves the list: beyond the maximum it has owned ones only.
    pub(crate) fn bind(&mut self, nick: &NickKey, user: &UserId) {
        if let Some(record) = self.records.get_mut(nick) {
            record.user = Some(user.clone());
        }
        let nicks = self.of_users.entry(user.clone()).or_default();
        nicks.retain(|other| other != nick);
        nicks.push(nick.clone());
        if nicks.len() > USER_NICKS_MAX {
            let is_owned = |nick: &NickKey| self.records.get(nick).is_some_and(|record| record.owner.is_some());
            let oldest = nicks.iter().take(USER_NICKS_MAX + 1).position(|nick| !is_owned(nick));
            if let Some(oldest) = oldest.map(|place| nicks.remove(place))
                && let Some(record) = self.records.get_mut(&oldest)
            {
                record.user = None;
            }
        }
    }

    /// Ends the binding of a nick.
    pub(crate) fn unbind(&mut self, nick: &NickKey) {
        let Some(user) = self.records.get_mut(nick).and_then(|record| record.user.take()) else { return };
        if let Some(nicks) = self.of_users.get_mut(&user) {
            nicks.retain(|other| other != nick);
            if nicks.is_empty() {
                self.of_users.remove(&user);
            }
        }
    }

    /// Keeps the binding of a freed nick, unless the list of its user has more than the maximum.
    pub(crate) fn free_user_nick(&mut self, nick: &NickKey) {
        let nicks = self.user(nick).and_then(|user| self.of_user(user));
        if nicks.is_none_or(|nicks| nicks.len() > USER_NICKS_MAX) {
            self.unbind(nick);
        }
    }
}
