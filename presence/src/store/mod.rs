//! Both stores: connections to Redis, and the same state in the memory of one process.

pub mod memory;
pub mod redis;
