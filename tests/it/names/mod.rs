//! Nicknames: one owner for each in the whole cluster, and its status.

mod nicknames;
mod whois;
