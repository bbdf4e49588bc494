//! Bad input: a table of rows for every port of the programs, each with exactly one reaction.
//!
//! [`matrix`] sends every row many times beside healthy neighbours, which must not notice, and compares the memory,
//! threads, descriptors and sessions of the gateway before and after. [`stories`] are the cases that take more than one
//! input, [`slow`] those that take time, [`redis_garbage`] those of another writer of Redis.

mod attacker;
mod corpora;
mod matrix;
mod neighbours;
mod packed;
mod redis_garbage;
mod replies;
mod resources;
mod row;
mod rows;
mod slow;
mod stories;
