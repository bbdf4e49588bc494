//! The command line: scenarios and their defaults. [`crate::scenario`] makes plans of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::dialect::LoadDialect;
use crate::process::Watched;

/// Many thin clients against a chat cluster, and what they saw. Latencies count from the time at which a message was due.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
pub(crate) struct LoadFlags {
    #[command(subcommand)]
    pub(crate) command: LoadCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Pings: each client sends the next when the last is answered, or all together at --rate
    Echo(EchoFlags),
    /// Clients in a room, held in silence: memory and CPU of doing nothing
    Idle(IdleFlags),
    /// One room, spoken in at a rate
    Room(RoomFlags),
    /// Many rooms, spoken in at a rate
    Rooms(RoomsFlags),
    /// Pairs at two gateways that speak in private
    Dm(DmFlags),
    /// Everybody logs in and enters the room, at --rate or as fast as it goes
    Login(LoginFlags),
    /// Every connection is lost while the room is spoken in, and every session resumed
    Resume(ResumeFlags),
    /// Quiet, a burst in a room, quiet: what memory is given back
    Burst(BurstFlags),
    /// The least that a delivery can cost: a bare process that sends to every member, under the same clients
    Floor(FloorFlags),
    /// A page, a plot and one file of figures from the outcomes of many runs
    Report(ReportFlags),
    /// A port of loopback that nobody has right now
    FreePort,
    /// What runs under `floor`
    #[command(hide = true)]
    FloorServer(FloorServerFlags),
    /// What `load` starts of itself
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
pub(crate) struct TargetFlags {
    /// WebSocket addresses; clients are dealt out in turn
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) ws: Vec<SocketAddr>,
    /// Addresses of text lines
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) tcp: Vec<SocketAddr>,
    /// What is spoken over WebSocket
    #[arg(long, default_value = "parley")]
    pub(crate) peer: LoadDialect,
}

#[derive(Debug, Args)]
pub(crate) struct CommonFlags {
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds before that, which are not
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Bytes of a message's body
    #[arg(long, default_value_t = 128)]
    pub(crate) body: usize,
    /// Logins under way at a time
    #[arg(long, default_value_t = 200)]
    pub(crate) in_flight: u32,
    /// Clients of one process at most; fewer when it may not have so many descriptors
    #[arg(long, default_value_t = 18_000)]
    pub(crate) per_process: u32,
    /// A process whose CPU and memory are reported; may be given several times
    #[arg(long = "pid", value_name = "NAME=PID")]
    pub(crate) watched: Vec<Watched>,
    /// Writes the outcome as JSON too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Seconds to wait for what is late
    #[arg(long, default_value_t = 30.0)]
    pub(crate) patience: f64,
}

#[derive(Debug, Args)]
pub(crate) struct EchoFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 100)]
    pub(crate) connections: u32,
    /// Pings a second in all
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct IdleFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) connections: u32,
    /// Members of each room; all in one when absent
    #[arg(long)]
    pub(crate) members: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct RoomFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: u32,
    /// Messages a second in all
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// How many of the members speak
    #[arg(long, default_value_t = 10)]
    pub(crate) publishers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RoomsFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 100)]
    pub(crate) rooms: u32,
    #[arg(long, default_value_t = 10)]
    pub(crate) members: u32,
    /// Messages a second over all rooms
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// How many of each room's members speak
    #[arg(long, default_value_t = 1)]
    pub(crate) publishers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DmFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    /// Pairs; in each both speak
    #[arg(long, default_value_t = 50)]
    pub(crate) pairs: u32,
    /// Messages a second in all
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
}

#[derive(Debug, Args)]
pub(crate) struct LoginFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) connections: u32,
    /// Logins a second
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Members of each room
    #[arg(long, default_value_t = 10)]
    pub(crate) members: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: u32,
    /// Messages a second meanwhile
    #[arg(long, default_value_t = 10.0)]
    pub(crate) rate: f64,
    /// Kills this process, a gateway, instead of dropping all connections
    #[arg(long, value_name = "PID")]
    pub(crate) kill_pid: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct BurstFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: u32,
    #[arg(long, default_value_t = 200.0)]
    pub(crate) rate: f64,
    /// Seconds of silence before and after
    #[arg(long, default_value_t = 30.0)]
    pub(crate) quiet: f64,
}

#[derive(Debug, Args)]
pub(crate) struct FloorFlags {
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: u32,
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    #[arg(long, default_value_t = 10)]
    pub(crate) publishers: u32,
    /// All messages of one wake-up in one send to each member
    #[arg(long)]
    pub(crate) rounds: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FloorServerFlags {
    #[arg(long)]
    pub(crate) rounds: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportFlags {
    /// The folder with the outcomes
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: PathBuf,
    /// Where PERFORMANCE.md, performance.svg and performance.json go
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: PathBuf,
    /// Says that the figures are not for publication
    #[arg(long)]
    pub(crate) draft: bool,
}
