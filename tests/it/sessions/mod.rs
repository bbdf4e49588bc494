//! Sessions: resume, drain, and the tokens of users.

mod drain;
mod identity;
mod key_sets;
mod resume;
