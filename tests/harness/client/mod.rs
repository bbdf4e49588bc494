//! Clients for tests: they speak like people, wait with deadlines, and remember everything they were told.

mod line;
mod raw;
mod transcript;
mod ws;

pub use self::line::LineClient;
pub use self::raw::{RawFrame, RawWs};
pub use self::transcript::{ReceivedItem, TranscriptEnd};
pub use self::ws::{RefusedRequest, RequestResult, WsClient};

use std::time::Duration;

/// How long a client waits for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(5);
