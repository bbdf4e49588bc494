//! The rows of users, as `user_rows.lua` writes them.

use crate::model::{Owner, Status, UserId};
use crate::registry::RegistryError;
use crate::registry::reply::{ScriptReply, from_json, malformed, owner_of};

use super::UserRow;

/// A user and its claim, which an offline user has not.
pub(super) struct FoundUser {
    pub(super) owner: Option<Owner>,
    pub(super) user: UserRow,
}

/// Reads a row of `user_rows.lua`; `None` for an unknown nick.
pub(super) fn user_row(mut row: ScriptReply) -> Result<Option<FoundUser>, RegistryError> {
    if row.is_empty() {
        return Ok(None);
    }
    let nick = row.text()?;
    let owner = match row.text()?.as_str() {
        "" => None,
        token => Some(owner_of(token).ok_or_else(|| malformed("an owner token"))?),
    };
    let status = match row.text()?.as_str() {
        "" => Status::default(),
        json => from_json(json)?,
    };
    let (online, since) = (owner.is_some(), row.number()?);
    let last_active = row.number()?;
    let rooms = row.array()?.texts()?;
    let user = UserId::parse(&row.text()?);
    let incarnation = owner.as_ref().map(|owner| owner.incarnation.as_str().to_owned());
    let session = owner.as_ref().map(|owner| owner.session.clone());
    let online_since = online.then_some(since);
    let user = UserRow { nick, user, online, status, online_since, last_active, rooms, incarnation, session };
    Ok(Some(FoundUser { owner, user }))
}
