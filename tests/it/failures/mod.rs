//! Faults: killed gateways, lost Redis data, broken networks.

mod chaos;
mod failover;
mod reassert;
mod redis_away;
mod republish;
