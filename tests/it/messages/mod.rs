//! Room and direct messages: delivery, order, history, replay, slow readers and shares.

mod address_limits;
mod byte_bound;
mod chat;
mod deletion;
mod growth;
mod inbox;
mod large_lists;
mod last_lines;
mod moderation;
mod pipelining;
mod positions;
mod refill;
mod retention;
mod room_life;
mod shares;
mod send_rates;
mod session_limits;
mod slow_reader;
mod typing;
