//! Both stores: connections to Redis, and the same state in the memory of one process. Long reads of either take turns.

mod answers;
pub mod memory;
pub mod redis;
mod turns;

pub(crate) use self::answers::AnswerClock;
pub(crate) use self::turns::STEP_ROWS_MAX;
pub use self::turns::{ReadTurns, TurnReader};
