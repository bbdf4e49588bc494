//! The cluster under faults: breaks one part as the plan says, clears it, and finds out which programs ended meanwhile.
//!
//! Called by the run only. Signals go to processes that the cluster itself started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harness::fault_proxy::{Direction, Mode};
use harness::redis::AofPosition;
use harness::{Cluster, Node, within};

use crate::history::{HistoryOp, OpStatus, Recorder};
use crate::plan::{ClusterSize, Fault, Network};
use crate::run::ChaosTask;

/// How long a gateway may take to drain: its own grace period and a little.
const DRAIN: Duration = Duration::from_secs(40);
/// How long a name is kept for a session without a connection: less than as shipped, so that it ends within a run.
const HOLD_SECONDS: &str = "10";
/// What a room's log keeps: more than a run says, so that everything can be judged at its end.
const MAX_MESSAGES: &str = "1000000";
/// The name of the bench in the history.
pub const BENCH: &str = "bench";

/// A cluster and what is known of its faults.
pub struct FaultBench {
    pub cluster: Cluster,
    recorder: Recorder,
    /// Faults that hold now.
    active: BTreeSet<Fault>,
    /// Nodes that are down because the plan says so, and since when.
    down: BTreeMap<String, Instant>,
    /// The part of the append-only file that survives a crash.
    on_disk: Option<AofPosition>,
    fsync_always: bool,
}

impl FaultBench {
    /// Starts the cluster of the bench.
    pub async fn start(task: &ChaosTask, recorder: Recorder) -> Self {
        let ClusterSize { gateways, presence } = task.size;
        let cluster = Cluster::builder().gateways(gateways).presence(presence).nginx(true).fault_proxies(true);
        // At a kill the cluster must outlive what Redis does, so this is as shipped but for what a run asks for.
        let mut cluster = cluster.redis_setting("appendfsync", &task.fsync);
        cluster = cluster.gateway_setting("PARLEY__SESSION__HOLD_SECONDS", HOLD_SECONDS);
        cluster = cluster.gateway_setting("PARLEY__HISTORY__MAX_MESSAGES", MAX_MESSAGES);
        if let Some(story) = task.story {
            cluster = cluster.gateway_setting("PARLEY_SABOTAGE", story.mechanism);
        }
        let cluster = cluster.start().await;
        let fsync_always = task.fsync == "always";
        Self { cluster, recorder, active: BTreeSet::new(), down: BTreeMap::new(), on_disk: None, fsync_always }
    }

    /// What Redis has written by now is on the disk; what it writes from now on is not yet, unless it has to wait for
    /// it.
    pub fn look_at_disk(&mut self) {
        self.on_disk = self.cluster.redis.written().filter(|_| !self.fsync_always);
    }

    /// Breaks something; left out when that part still is not whole from the fault before.
    pub async fn begin(&mut self, fault: Fault) {
        self.revive().await;
        if self.active.iter().any(|active| active.part() == fault.part()) {
            return;
        }
        self.active.insert(fault);
        self.note(OpStatus::Invoke, HistoryOp::Fault(fault));
        match fault {
            Fault::GatewayKill { gateway } => {
                self.down.insert(self.cluster.gateways[gateway].name().to_owned(), Instant::now());
                self.cluster.gateways[gateway].process().kill9();
            }
            Fault::GatewayStop { gateway } => self.cluster.gateways[gateway].process().stop_signal().await,
            Fault::GatewayRestart { gateway } => {
                self.down.insert(self.cluster.gateways[gateway].name().to_owned(), Instant::now());
                self.cluster.gateways[gateway].process().terminate();
            }
            Fault::PresenceStop { presence } => self.cluster.presence[presence].process().stop_signal().await,
            Fault::RedisStop => self.cluster.redis.stop_signal().await,
            Fault::RedisKill => self.cluster.redis.kill9(),
            Fault::RedisCrash => self.cluster.redis.crash(self.on_disk.take()),
            Fault::CutSubscriptions => drop(self.cluster.redis.call::<u64>("CLIENT KILL TYPE pubsub").await),
            Fault::CutCommands => drop(self.cluster.redis.call::<u64>("CLIENT KILL TYPE normal").await),
            Fault::FlushScripts => self.cluster.redis.call::<()>("SCRIPT FLUSH").await,
            Fault::BadNetwork { gateway, network } => self.cluster.proxies[gateway].set(mode(network)),
            Fault::NginxReload => self.cluster.nginx.iter_mut().for_each(harness::Nginx::reload),
        }
    }

    /// Clears it; false when that has to wait, because a gateway is still draining.
    pub async fn clear(&mut self, fault: Fault) -> bool {
        if !self.active.contains(&fault) {
            return true;
        }
        match fault {
            Fault::GatewayKill { gateway } => {
                self.cluster.gateways[gateway].relaunch().await;
                self.down.remove(self.cluster.gateways[gateway].name());
            }
            Fault::GatewayStop { gateway } => self.cluster.gateways[gateway].process().cont(),
            Fault::GatewayRestart { gateway } => {
                let node = &mut self.cluster.gateways[gateway];
                let is_stuck = self.down.get(node.name()).is_some_and(|since| since.elapsed() > DRAIN);
                if node.is_running() && !is_stuck {
                    return false;
                }
                let exited = end(node, Duration::ZERO).await;
                self.recorder.note(BENCH, 0, OpStatus::Ok, exited);
                node.relaunch().await;
                self.down.remove(node.name());
            }
            Fault::PresenceStop { presence } => self.cluster.presence[presence].process().cont(),
            Fault::RedisStop => self.cluster.redis.cont(),
            Fault::RedisKill | Fault::RedisCrash => self.cluster.redis.start().await,
            Fault::BadNetwork { gateway, .. } => self.cluster.proxies[gateway].set(Mode::Pass),
            Fault::CutSubscriptions | Fault::CutCommands | Fault::FlushScripts | Fault::NginxReload => {}
        }
        self.active.remove(&fault);
        self.note(OpStatus::Ok, HistoryOp::Fault(fault));
        true
    }

    /// Starts again every program that ended without a signal, and records it.
    pub async fn revive(&mut self) {
        for node in self.cluster.gateways.iter_mut().chain(&mut self.cluster.presence) {
            if node.is_running() || self.down.contains_key(node.name()) {
                continue;
            }
            let code = node.process().exit_code(Duration::from_secs(5)).await;
            let ended = HistoryOp::Exit { node: node.name().to_owned(), code, asked: false };
            self.recorder.note(BENCH, 0, OpStatus::Ok, ended);
            node.relaunch().await;
        }
    }

    /// Stops every program with SIGTERM.
    pub async fn finish(mut self) {
        self.revive().await;
        for node in self.cluster.gateways.iter_mut().chain(&mut self.cluster.presence) {
            node.process().terminate();
        }
        for node in self.cluster.gateways.iter_mut().chain(&mut self.cluster.presence) {
            let exited = end(node, DRAIN).await;
            self.recorder.note(BENCH, 0, OpStatus::Ok, exited);
        }
    }

    fn note(&self, kind: OpStatus, op: HistoryOp) {
        self.recorder.note(BENCH, 0, kind, op);
    }
}

/// Waits for the end of a node that was told to leave; kills it when it does not.
async fn end(node: &mut Node, limit: Duration) -> HistoryOp {
    let ended = within(limit, async || node.process().has_ended().then_some(())).await;
    if ended.is_none() {
        node.process().kill9();
    }
    let code = node.process().exit_code(Duration::from_secs(5)).await;
    HistoryOp::Exit { node: node.name().to_owned(), code, asked: true }
}

fn mode(network: Network) -> Mode {
    let ms = Duration::from_millis;
    match network {
        Network::Late => Mode::Late { delay: ms(20), jitter: ms(150) },
        Network::BlackHole => Mode::BlackHole,
        Network::Reset => Mode::Reset,
        Network::StallRequests => Mode::Stall(Direction::Requests),
        Network::StallReplies => Mode::Stall(Direction::Replies),
        Network::Slice => Mode::Slice,
    }
}
