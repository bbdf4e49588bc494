//! Clients for tests: they send requests, wait with deadlines, and keep everything they receive.

mod line;
mod person;
mod raw;
mod transcript;
mod ws;

pub use self::line::LineClient;
pub use self::person::Person;
pub use self::raw::{RawFrame, RawWs};
pub use self::transcript::{ReceivedItem, TranscriptEnd};
pub use self::ws::{RefusedRequest, RequestResult, WsClient};

use std::time::Duration;

/// Time limit for a reply or event that should arrive at once.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
