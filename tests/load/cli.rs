//! Command line: scenarios and their defaults. [`crate::scenario`] turns them into plans.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::dialect::LoadDialect;
use crate::process::Watched;

/// Many thin clients against a chat cluster, and their measurements. Latencies count from the due time of a message.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
pub(crate) struct LoadFlags {
    #[command(subcommand)]
    pub(crate) command: LoadCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Pings: each client sends the next one after the answer, or all clients share --rate
    Echo(EchoFlags),
    /// Silent clients in a room: memory and CPU at rest
    Idle(IdleFlags),
    /// One room with messages at a rate
    Room(RoomFlags),
    /// Many rooms with messages at a rate
    Rooms(RoomsFlags),
    /// Many rooms with messages at the highest rate that is delivered in time, which is searched
    Capacity(CapacityFlags),
    /// One client that keeps a number of messages unanswered
    Pipeline(PipelineFlags),
    /// Pairs of clients at two gateways with direct messages
    Dm(DmFlags),
    /// Logins and joins of all clients, at --rate or at full speed
    Login(LoginFlags),
    /// Loss of every connection during room traffic; every session resumes
    Resume(ResumeFlags),
    /// Silence, a burst in a room, silence: the memory that is freed afterwards
    Burst(BurstFlags),
    /// One room in silence, then beside clients that flood the gateway with bad frames
    Flood(FloodFlags),
    /// Messages of an application through the server API
    Api(ApiFlags),
    /// Minimum cost of a delivery: a bare process that sends to every member, under the same clients
    Floor(FloorFlags),
    /// A page, a plot and one file of figures from the outcomes of many runs
    Report(ReportFlags),
    /// A free loopback port
    FreePort,
    /// Internal: the process behind `floor`
    #[command(hide = true)]
    FloorServer(FloorServerFlags),
    /// Internal: a worker process of `load`
    #[command(hide = true)]
    Worker,
}

/// Formats of Parley's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatFlag {
    /// JSON
    Json,
    /// MessagePack
    Msgpack,
    /// Protobuf
    Protobuf,
    /// In turn JSON, MessagePack and Protobuf over WebSocket, and MessagePack in frames
    Mix,
}

#[derive(Debug, Args)]
pub(crate) struct TargetFlags {
    /// WebSocket addresses; clients are distributed in turn
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) ws: Vec<SocketAddr>,
    /// Addresses of TCP ports, for lines or for frames
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) tcp: Vec<SocketAddr>,
    /// Dialect over WebSocket
    #[arg(long, default_value = "parley")]
    pub(crate) peer: LoadDialect,
    /// Format of Parley's clients; a mix needs --ws and --tcp
    #[arg(long, default_value = "json")]
    pub(crate) format: FormatFlag,
    /// Clients speak frames at --tcp instead of WebSocket
    #[arg(long)]
    pub(crate) frames: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CommonFlags {
    /// Seconds of the measured window
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds of warm-up before the measured window
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Bytes of a message's body
    #[arg(long, default_value_t = 128)]
    pub(crate) body: usize,
    /// Maximum number of concurrent logins
    #[arg(long, default_value_t = 200)]
    pub(crate) in_flight: u32,
    /// Maximum number of clients per process; fewer if the descriptor limit is lower
    #[arg(long, default_value_t = 18_000)]
    pub(crate) per_process: u32,
    /// Process whose CPU and memory are reported; repeatable
    #[arg(long = "pid", value_name = "NAME=PID")]
    pub(crate) watched: Vec<Watched>,
    /// Also writes the outcome as JSON to this path
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Members on the client library that check what they receive; only in rooms of Parley with messages
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub(crate) checked: u32,
    /// Seconds to wait for late deliveries
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
    /// Pings a second in total
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
    /// Members of each room; by default all clients share one
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
    /// Messages a second in total
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Number of sending members
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
    /// Number of sending members in each room
    #[arg(long, default_value_t = 1)]
    pub(crate) publishers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct CapacityFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[arg(long, default_value_t = 1000)]
    pub(crate) rooms: u32,
    #[arg(long, default_value_t = 2)]
    pub(crate) members: u32,
    /// First messages a second over all rooms, by default 10000 deliveries a second; doubled until one fails
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Number of sending members in each room; neighbours are at different gateways
    #[arg(long, default_value_t = 2)]
    pub(crate) publishers: u32,
    /// Maximum p99 in milliseconds of deliveries and of acks
    #[arg(long, default_value_t = 50.0)]
    pub(crate) p99_max: f64,
    /// Minimum share of the messages that is delivered to all members, and answered
    #[arg(long, default_value_t = 0.99)]
    pub(crate) share_min: f64,
    /// Rates that are tried between the last one that held and the first one that failed
    #[arg(long, default_value_t = 2)]
    pub(crate) bisections: u32,
    /// Maximum number of windows
    #[arg(long, default_value_t = 24)]
    pub(crate) windows: u32,
}

#[derive(Debug, Args)]
pub(crate) struct PipelineFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    /// Rooms of the client, which it sends to in turn
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: u32,
    /// Number of unanswered messages
    #[arg(long, default_value_t = 64)]
    pub(crate) depth: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DmFlags {
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    /// Pairs; both clients of a pair send
    #[arg(long, default_value_t = 50)]
    pub(crate) pairs: u32,
    /// Messages a second in total
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
    /// Messages a second during the storm
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
pub(crate) struct FloodFlags {
    #[command(flatten)]
    pub(crate) room: RoomFlags,
    /// Connections of the flood
    #[arg(long, default_value_t = 100)]
    pub(crate) connections: u32,
    /// Bad frames a second in total
    #[arg(long, default_value_t = 50_000.0)]
    pub(crate) bad_rate: f64,
    /// Local address of the flood: limits of an address concern the room too if both have the same one
    #[arg(long, default_value = "127.0.0.2")]
    pub(crate) from: IpAddr,
}

#[derive(Debug, Args)]
pub(crate) struct ApiFlags {
    /// Address of the server API
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: SocketAddr,
    /// API key with the scopes publish and moderate
    #[arg(long)]
    pub(crate) key: String,
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: u32,
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: u32,
    /// Messages a second in total
    #[arg(long, default_value_t = 5000.0)]
    pub(crate) rate: f64,
    /// Messages of one call
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: u32,
    /// Bytes of a message's body
    #[arg(long, default_value_t = 128)]
    pub(crate) body: usize,
    /// Seconds of the measured window
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds of warm-up before the measured window
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Process whose CPU is reported; repeatable
    #[arg(long = "pid", value_name = "NAME=PID")]
    pub(crate) watched: Vec<Watched>,
    /// Also writes the outcome as JSON to this path
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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
    /// Sends all messages of one wake-up in one send to each member
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
    /// Folder with the outcomes
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: PathBuf,
    /// Folder for PERFORMANCE.md, performance.svg and performance.json
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: PathBuf,
    /// Figures of an earlier report; each is kept unless the folder has a newer outcome of the same measurement
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Marks the figures as not for publication
    #[arg(long)]
    pub(crate) draft: bool,
}
