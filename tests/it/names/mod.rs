//! Nicknames: one owner for each in the whole cluster, and its status.

mod applications;
mod nicknames;
mod whois;
