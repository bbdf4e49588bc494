//! The command line: scenarios and their defaults, each of which becomes a plan and a course.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::dialect::Dialect;
use crate::plan::{Address, Plan, Traffic};
use crate::process::Watched;
use crate::run::{Course, Storm};

/// Many thin clients against a chat cluster, and what they saw. Latencies count from the time at which a message was due.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pings: each client sends the next when the last is answered, or all together at --rate
    Echo(Echo),
    /// Clients in a room, held in silence: memory and CPU of doing nothing
    Idle(Idle),
    /// One room, spoken in at a rate
    Room(Room),
    /// Many rooms, spoken in at a rate
    Rooms(Rooms),
    /// Pairs at two gateways that speak in private
    Dm(Dm),
    /// Everybody logs in and enters the room, at --rate or as fast as it goes
    Login(Login),
    /// Every connection is lost while the room is spoken in, and every session resumed
    Resume(Resume),
    /// Quiet, a burst in a room, quiet: what memory is given back
    Burst(Burst),
    /// The least that a delivery can cost: a bare process that sends to every member, under the same clients
    Floor(Floor),
    /// A page, a plot and one file of figures from the outcomes of many runs
    Report(Report),
    /// A port of loopback that nobody has right now
    FreePort,
    /// What runs under `floor`
    #[command(hide = true)]
    FloorServer(FloorServer),
    /// What `load` starts of itself
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// WebSocket addresses; clients are dealt out in turn
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) ws: Vec<SocketAddr>,
    /// Addresses of text lines
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub(crate) tcp: Vec<SocketAddr>,
    /// What is spoken over WebSocket
    #[arg(long, default_value = "parley")]
    pub(crate) peer: Dialect,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
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
pub(crate) struct Echo {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 100)]
    connections: u32,
    /// Pings a second in all
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    connections: u32,
    /// Members of each room; all in one when absent
    #[arg(long)]
    members: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Room {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    members: u32,
    /// Messages a second in all
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// How many of the members speak
    #[arg(long, default_value_t = 10)]
    publishers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Rooms {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 100)]
    rooms: u32,
    #[arg(long, default_value_t = 10)]
    members: u32,
    /// Messages a second over all rooms
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How many of each room's members speak
    #[arg(long, default_value_t = 1)]
    publishers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Dm {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    /// Pairs; in each both speak
    #[arg(long, default_value_t = 50)]
    pairs: u32,
    /// Messages a second in all
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    connections: u32,
    /// Logins a second
    #[arg(long)]
    rate: Option<f64>,
    /// Members of each room
    #[arg(long, default_value_t = 10)]
    members: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    members: u32,
    /// Messages a second meanwhile
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Kills this process, a gateway, instead of dropping all connections
    #[arg(long, value_name = "PID")]
    kill_pid: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Burst {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    members: u32,
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Seconds of silence before and after
    #[arg(long, default_value_t = 30.0)]
    quiet: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Floor {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1000)]
    members: u32,
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    #[arg(long, default_value_t = 10)]
    publishers: u32,
    /// All messages of one wake-up in one send to each member
    #[arg(long)]
    pub(crate) rounds: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FloorServer {
    #[arg(long)]
    pub(crate) rounds: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
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

impl Target {
    fn addresses(&self) -> Result<Vec<Address>> {
        let ws = self.ws.iter().map(|at| Address { at: *at, dialect: self.peer });
        let tcp = self.tcp.iter().map(|at| Address { at: *at, dialect: Dialect::Lines });
        let addresses: Vec<Address> = ws.chain(tcp).collect();
        ensure!(!addresses.is_empty(), "nowhere to connect to: give --ws or --tcp");
        Ok(addresses)
    }
}

impl Common {
    fn plan(&self, addresses: Vec<Address>, clients: u32, room_size: u32, traffic: Traffic) -> Plan {
        // Different for every run against the same cluster.
        let run = format!("L{:x}", std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis()) & 0xffff_ffff);
        Plan {
            run,
            addresses,
            clients,
            room_size,
            traffic,
            body: self.body,
            in_flight: self.in_flight,
            login_rate: None,
            resumes: false,
        }
    }

    fn course(&self) -> Result<Course> {
        Ok(Course {
            warmup: Duration::try_from_secs_f64(self.warmup)?,
            measured: Duration::try_from_secs_f64(self.seconds)?,
            quiet: Duration::ZERO,
            storm: None,
            per_process: self.per_process,
            watched: self.watched.clone(),
            patience: Duration::try_from_secs_f64(self.patience)?,
        })
    }
}

/// A scenario by its name, ready to run, and where its outcome goes.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) scenario: &'static str,
    pub(crate) plan: Plan,
    pub(crate) course: Course,
    pub(crate) json: Option<PathBuf>,
}

fn prepared(scenario: &'static str, common: &Common, plan: Plan) -> Result<Prepared> {
    ensure!(plan.clients > 0, "there are no clients");
    ensure!(plan.rate().is_none_or(|rate| rate > 0.0), "a rate is above zero");
    Ok(Prepared { scenario, plan, course: common.course()?, json: common.json.clone() })
}

fn room(rate: f64, publishers: u32, members: u32) -> Traffic {
    Traffic::Rooms { rate, publishers: publishers.clamp(1, members.max(1)) }
}

impl Echo {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let traffic = Traffic::Echo { rate: self.rate };
        prepared("echo", &self.common, self.common.plan(self.target.addresses()?, self.connections, 0, traffic))
    }
}

impl Idle {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let members = self.members.unwrap_or(self.connections);
        prepared(
            "idle",
            &self.common,
            self.common.plan(self.target.addresses()?, self.connections, members, Traffic::Silence),
        )
    }
}

impl Room {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let traffic = room(self.rate, self.publishers, self.members);
        prepared("room", &self.common, self.common.plan(self.target.addresses()?, self.members, self.members, traffic))
    }
}

impl Rooms {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let traffic = room(self.rate, self.publishers, self.members);
        let clients = self.rooms.saturating_mul(self.members);
        prepared("rooms", &self.common, self.common.plan(self.target.addresses()?, clients, self.members, traffic))
    }
}

impl Dm {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let traffic = Traffic::Direct { rate: self.rate };
        ensure!(self.target.peer != Dialect::Bare, "the floor knows nobody by name");
        prepared(
            "dm",
            &self.common,
            self.common.plan(self.target.addresses()?, self.pairs.saturating_mul(2), 0, traffic),
        )
    }
}

impl Login {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let mut plan = self.common.plan(self.target.addresses()?, self.connections, self.members, Traffic::Silence);
        plan.login_rate = self.rate;
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "a rate is above zero");
        let mut prepared = prepared("login", &self.common, plan)?;
        // All that is measured is over when everybody is there.
        prepared.course.measured = Duration::ZERO;
        Ok(prepared)
    }
}

impl Resume {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        ensure!(self.target.peer == Dialect::Parley && self.target.tcp.is_empty(), "only JSON sessions can be resumed");
        let traffic = room(self.rate, 1, self.members);
        let mut plan = self.common.plan(self.target.addresses()?, self.members, self.members, traffic);
        plan.resumes = true;
        let mut prepared = prepared("resume", &self.common, plan)?;
        prepared.course.storm = Some(self.kill_pid.map_or(Storm::Drop, |pid| Storm::Kill { pid }));
        Ok(prepared)
    }
}

impl Burst {
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let traffic = room(self.rate, 10, self.members);
        let plan = self.common.plan(self.target.addresses()?, self.members, self.members, traffic);
        let mut prepared = prepared("burst", &self.common, plan)?;
        prepared.course.quiet = Duration::try_from_secs_f64(self.quiet)?;
        Ok(prepared)
    }
}

impl Floor {
    pub(crate) fn prepare(&self, at: SocketAddr, server: u32) -> Result<Prepared> {
        let address = Address { at, dialect: Dialect::Bare };
        let traffic = room(self.rate, self.publishers, self.members);
        let scenario = if self.rounds { "floor_rounds" } else { "floor" };
        let mut prepared =
            prepared(scenario, &self.common, self.common.plan(vec![address], self.members, self.members, traffic))?;
        // Its queue of newcomers is that of the standard library, 128.
        prepared.plan.in_flight = prepared.plan.in_flight.min(100);
        prepared.course.watched = vec![Watched { name: "floor".to_owned(), pid: server }];
        Ok(prepared)
    }
}
