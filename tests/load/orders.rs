//! What the coordinator and its workers say to each other: one JSON object a line, over the worker's stdin and stdout.
//!
//! A worker ends when its stdin does, so none is left behind when the coordinator is killed.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::plan::Plan;
use crate::schedule::MeasureWindow;
use crate::tally::{ClientProgress, Tally};

/// From the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerOrder {
    /// These clients are yours. The first one, and only once.
    Hire { plan: Plan, from: u32, to: u32, workers: u32 },
    /// Log in from this time on.
    Login { at: Nanos },
    /// Say what is due in this window.
    Talk { window: MeasureWindow },
    /// Drop all connections, and resume.
    Storm,
    /// From now on who loses a connection resumes.
    Brace,
    /// Tell everything.
    Report,
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerReport {
    /// Hired: the memory for the clients is there, none is connected. With the memory of the process before that.
    Hired { base_kib: u64 },
    /// How far it is, several times a second.
    ClientProgress(ClientProgress),
    /// The answer to [`WorkerOrder::Report`].
    Report(Box<Tally>),
}
