//! [`Identity`]: a person as roles, bans and invites of rooms name them.
//!
//! `u<user id>` if a token named the user, else `n<nick key>`. The twin is `identity_of` in `registry/rooms/roles.lua`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::token::token;
use super::{NickKey, UserId};

token!(
    /// The identity of a person: a user, or a guest by its nickname.
    Identity
);

impl Identity {
    /// Returns the identity of a session.
    #[must_use]
    pub fn of(user: Option<&UserId>, nick: &NickKey) -> Self {
        user.map_or_else(|| Self::of_guest(nick), Self::of_user)
    }

    /// Returns the identity of a user.
    #[must_use]
    pub fn of_user(user: &UserId) -> Self {
        Self(format!("u{user}").into())
    }

    /// Returns the identity of a guest.
    #[must_use]
    pub fn of_guest(nick: &NickKey) -> Self {
        Self(format!("n{nick}").into())
    }
}
