//! The promises of Parley, tested on real processes: real gateways, real presence, a real Redis, a real nginx.
//!
//! One binary, one module per promise or part, so that it links once. Every test starts a cluster of its own.

mod presence_api;
