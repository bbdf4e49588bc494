//! Faults: killed gateways, lost Redis data, broken networks, bad input.

mod bad_input;
mod chaos;
mod failover;
mod reassert;
mod redis_away;
mod republish;
