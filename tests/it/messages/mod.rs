//! Room and direct messages: delivery, order, history, replay and slow readers.

mod chat;
mod inbox;
mod refill;
mod retention;
mod shares;
mod slow_reader;
mod typing;
