//! Sessions: resume, drain, and the tokens of users.

mod announcements;
mod drain;
mod ended;
mod holds;
pub(crate) mod identity;
mod key_sets;
pub(crate) mod sanctions;
mod resume;
mod revocation;
mod room_entries;
mod room_rules;
mod user_nicks;
