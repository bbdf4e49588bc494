//! Messages between the coordinator and its workers: one JSON object a line, over the worker's stdin and stdout.
//!
//! A worker ends with its stdin, so no worker survives a killed coordinator.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::plan::Plan;
use crate::schedule::MeasureWindow;
use crate::tally::{ClientProgress, Tally};

/// Order from the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerOrder {
    /// Assigns the clients; sent first, and only once.
    Hire { plan: Plan, from: u32, to: u32, workers: u32 },
    /// Starts the logins at this time.
    Login { at: Nanos },
    /// Sends the messages that are due in this window, at this rate if the traffic has one.
    Send { window: MeasureWindow, rate: Option<f64> },
    /// Ends the window: no further message is sent.
    Stop,
    /// Drops all connections and resumes the sessions.
    Storm,
    /// Lets each client that loses its connection resume its session from now on.
    ExpectLoss,
    /// Requests the final tally.
    Report,
}

/// Report from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerReport {
    /// The clients are allocated but not connected. `base_kib` is the memory of the process before that.
    Hired { base_kib: u64 },
    /// Progress, several times a second.
    ClientProgress(ClientProgress),
    /// The answer to [`WorkerOrder::Report`].
    Report(Box<Tally>),
}
