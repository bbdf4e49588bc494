//! Plans and courses of the command line's scenarios: connections, traffic and phases.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::capacity::{CapacityBounds, RateSearch};
use crate::cli::{
    BurstFlags, CapacityFlags, CommonFlags, DmFlags, EchoFlags, FloorFlags, FormatFlag, IdleFlags, LoginFlags,
    PipelineFlags, ResumeFlags, RoomFlags, RoomsFlags, TargetFlags,
};
use crate::dialect::{LoadCarrier, LoadDialect, LoadFormat, LoadPacking};
use crate::plan::{Plan, PlanAddress, Traffic};
use crate::process::Watched;
use crate::run::{DisconnectStorm, RunCourse};

impl TargetFlags {
    fn addresses(&self) -> Result<Vec<PlanAddress>> {
        let is_packed = self.frames || self.format != FormatFlag::Json;
        ensure!(!is_packed || self.peer == LoadDialect::Parley, "--format and --frames belong to Parley");
        if self.format == FormatFlag::Mix {
            return self.mixed_addresses();
        }
        ensure!(!self.frames || self.ws.is_empty(), "--frames needs --tcp without --ws");
        let ws = self.ws.iter().map(|at| PlanAddress { at: *at, dialect: self.ws_dialect() });
        let tcp = self.tcp.iter().map(|at| PlanAddress { at: *at, dialect: self.tcp_dialect() });
        let addresses: Vec<PlanAddress> = ws.chain(tcp).collect();
        ensure!(!addresses.is_empty(), "no address to connect to: --ws or --tcp is missing");
        Ok(addresses)
    }

    fn ws_dialect(&self) -> LoadDialect {
        self.packed_format().map_or(self.peer, |format| packed(format, LoadCarrier::WebSocket))
    }

    fn tcp_dialect(&self) -> LoadDialect {
        match self.frames {
            true => packed(self.packed_format().unwrap_or(LoadFormat::Json), LoadCarrier::Frames),
            false => LoadDialect::Lines,
        }
    }

    fn packed_format(&self) -> Option<LoadFormat> {
        match self.format {
            FormatFlag::Msgpack => Some(LoadFormat::MessagePack),
            FormatFlag::Protobuf => Some(LoadFormat::Protobuf),
            FormatFlag::Json | FormatFlag::Mix => None,
        }
    }

    /// Returns each gateway's addresses in four dialects, so that consecutive clients differ in their dialect.
    fn mixed_addresses(&self) -> Result<Vec<PlanAddress>> {
        ensure!(!self.frames, "a mix has frames already");
        let is_paired = !self.ws.is_empty() && self.ws.len() == self.tcp.len();
        ensure!(is_paired, "a mix needs as many addresses in --tcp as in --ws");
        let gateways = self.ws.iter().zip(&self.tcp);
        let addresses = gateways.flat_map(|(ws, tcp)| {
            [
                (ws, LoadDialect::Parley),
                (ws, packed(LoadFormat::MessagePack, LoadCarrier::WebSocket)),
                (ws, packed(LoadFormat::Protobuf, LoadCarrier::WebSocket)),
                (tcp, packed(LoadFormat::MessagePack, LoadCarrier::Frames)),
            ]
        });
        Ok(addresses.map(|(at, dialect)| PlanAddress { at: *at, dialect }).collect())
    }
}

fn packed(format: LoadFormat, carrier: LoadCarrier) -> LoadDialect {
    LoadDialect::Packed(LoadPacking { format, carrier })
}

impl CommonFlags {
    fn plan(&self, addresses: Vec<PlanAddress>, clients: u32, room_size: u32, traffic: Traffic) -> Plan {
        Plan {
            run: run_name(),
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

    fn course(&self) -> Result<RunCourse> {
        Ok(RunCourse {
            warmup: Duration::try_from_secs_f64(self.warmup)?,
            measured: Duration::try_from_secs_f64(self.seconds)?,
            quiet: Duration::ZERO,
            storm: None,
            per_process: self.per_process,
            watched: self.watched.clone(),
            patience: Duration::try_from_secs_f64(self.patience)?,
            checked: self.checked,
            backlog_max: None,
        })
    }
}

/// Returns a name for a run, different for every run against the same cluster.
pub(crate) fn run_name() -> String {
    format!("L{:x}", std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis()) & 0xffff_ffff)
}

/// Scenario with its plan and course, ready to run, and the path of its outcome.
#[derive(Debug)]
pub(crate) struct PreparedRun {
    pub(crate) scenario: &'static str,
    pub(crate) plan: Plan,
    pub(crate) course: RunCourse,
    pub(crate) json: Option<PathBuf>,
}

fn prepared(scenario: &'static str, common: &CommonFlags, plan: Plan) -> Result<PreparedRun> {
    ensure!(plan.clients > 0, "the number of clients must be above zero");
    ensure!(plan.rate().is_none_or(|rate| rate > 0.0), "the rate must be above zero");
    Ok(PreparedRun { scenario, plan, course: common.course()?, json: common.json.clone() })
}

fn room(rate: f64, publishers: u32, members: u32) -> Traffic {
    Traffic::Rooms { rate, publishers: publishers.clamp(1, members.max(1)) }
}

impl EchoFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let traffic = Traffic::Echo { rate: self.rate };
        prepared("echo", &self.common, self.common.plan(self.target.addresses()?, self.connections, 0, traffic))
    }
}

impl IdleFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let members = self.members.unwrap_or(self.connections);
        prepared(
            "idle",
            &self.common,
            self.common.plan(self.target.addresses()?, self.connections, members, Traffic::Silence),
        )
    }
}

impl RoomFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let traffic = room(self.rate, self.publishers, self.members);
        prepared("room", &self.common, self.common.plan(self.target.addresses()?, self.members, self.members, traffic))
    }
}

impl RoomsFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let traffic = room(self.rate, self.publishers, self.members);
        let clients = self.rooms.saturating_mul(self.members);
        prepared("rooms", &self.common, self.common.plan(self.target.addresses()?, clients, self.members, traffic))
    }
}

/// Deliveries a second at the first rate of a search.
const FIRST_DELIVERIES_PER_S: f64 = 10_000.0;
/// A window with a larger backlog fails in any case, so it ends early.
const BACKLOG_MAX: Duration = Duration::from_secs(1);

impl CapacityFlags {
    /// Returns the run at the first rate, and the search for the highest one.
    pub(crate) fn prepare(&self) -> Result<(PreparedRun, RateSearch)> {
        let rate = self.rate.unwrap_or(FIRST_DELIVERIES_PER_S / f64::from(self.members.max(1)));
        let traffic = room(rate, self.publishers, self.members);
        let clients = self.rooms.saturating_mul(self.members);
        let plan = self.common.plan(self.target.addresses()?, clients, self.members, traffic);
        let mut prepared = prepared("capacity", &self.common, plan)?;
        prepared.course.backlog_max = Some(BACKLOG_MAX);
        let bounds = CapacityBounds { p99_ms: self.p99_max, share: self.share_min };
        Ok((prepared, RateSearch::new(rate, bounds, self.bisections, self.windows)))
    }
}

impl PipelineFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        ensure!(self.target.tcp.is_empty() || self.target.frames, "the line dialect has no acks");
        ensure!(self.target.peer != LoadDialect::Bare, "the floor has no rooms");
        ensure!(self.rooms > 0 && self.depth > 0, "the numbers of rooms and of unanswered messages must be above zero");
        let traffic = Traffic::Pipeline { depth: self.depth, rooms: self.rooms };
        prepared("pipeline", &self.common, self.common.plan(self.target.addresses()?, 1, 1, traffic))
    }
}

impl DmFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let traffic = Traffic::Direct { rate: self.rate };
        ensure!(self.target.peer != LoadDialect::Bare, "the floor has no direct messages");
        prepared(
            "dm",
            &self.common,
            self.common.plan(self.target.addresses()?, self.pairs.saturating_mul(2), 0, traffic),
        )
    }
}

impl LoginFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let mut plan = self.common.plan(self.target.addresses()?, self.connections, self.members, Traffic::Silence);
        plan.login_rate = self.rate;
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "the rate must be above zero");
        let mut prepared = prepared("login", &self.common, plan)?;
        // The measurement ends when all clients are ready.
        prepared.course.measured = Duration::ZERO;
        Ok(prepared)
    }
}

impl ResumeFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        ensure!(
            self.target.ws_dialect() == LoadDialect::Parley && self.target.tcp.is_empty(),
            "only JSON sessions can be resumed"
        );
        let traffic = room(self.rate, 1, self.members);
        let mut plan = self.common.plan(self.target.addresses()?, self.members, self.members, traffic);
        plan.resumes = true;
        let mut prepared = prepared("resume", &self.common, plan)?;
        prepared.course.storm = Some(self.kill_pid.map_or(DisconnectStorm::Drop, |pid| DisconnectStorm::Kill { pid }));
        Ok(prepared)
    }
}

impl BurstFlags {
    pub(crate) fn prepare(&self) -> Result<PreparedRun> {
        let traffic = room(self.rate, 10, self.members);
        let plan = self.common.plan(self.target.addresses()?, self.members, self.members, traffic);
        let mut prepared = prepared("burst", &self.common, plan)?;
        prepared.course.quiet = Duration::try_from_secs_f64(self.quiet)?;
        Ok(prepared)
    }
}

impl FloorFlags {
    pub(crate) fn prepare(&self, at: SocketAddr, server: u32) -> Result<PreparedRun> {
        let address = PlanAddress { at, dialect: LoadDialect::Bare };
        let traffic = room(self.rate, self.publishers, self.members);
        let scenario = if self.rounds { "floor_rounds" } else { "floor" };
        let mut prepared =
            prepared(scenario, &self.common, self.common.plan(vec![address], self.members, self.members, traffic))?;
        // Its accept queue is that of the standard library, 128.
        prepared.plan.in_flight = prepared.plan.in_flight.min(100);
        prepared.course.watched = vec![Watched { name: "floor".to_owned(), pid: server }];
        Ok(prepared)
    }
}
