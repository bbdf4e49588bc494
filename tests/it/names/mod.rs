//! Nicknames: one owner for each in the whole cluster.

mod nicknames;
