//! The cluster under faults: injects and clears the faults of the plan, and restarts programs that ended meanwhile.
//!
//! Called by the run only. Invariant: signals go only to processes that the cluster itself started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harness::fault_proxy::{Direction, Mode};
use harness::redis::AofPosition;
use harness::{Cluster, Node, ReceivedEvent, ReceiverMode, WebhookReceiver, within};
use serde_json::json;

use crate::history::{HistoryOp, OpStatus, Recorder};
use crate::plan::{ClusterSize, Fault, Network};
use crate::run::ChaosTask;

/// Time limit for a drain: the grace period of the gateway and a margin.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// Hold time of a nickname without a connection: shorter than as shipped, so that it ends within a run.
const HOLD_SECONDS: &str = "10";
/// Maximum length of a stream: more than the messages of a run, so that all of them can be checked at the end.
const MAX_MESSAGES: &str = "1000000";
/// Name of the bench in the history.
pub const BENCH: &str = "bench";
/// Name of the application that receives webhooks in the history.
const APPLICATION: &str = "application";
const WEBHOOK_SECRET: &str = "a-secret-of-the-bench";

/// A cluster and its active faults.
pub struct FaultBench {
    pub cluster: Cluster,
    receiver: WebhookReceiver,
    recorder: Recorder,
    /// Faults that are not cleared yet.
    active: BTreeSet<Fault>,
    /// Nodes that the plan has ended, with the time.
    down: BTreeMap<String, Instant>,
    /// Part of the append-only file that survives a crash.
    aof_position: Option<AofPosition>,
    fsync_always: bool,
}

impl FaultBench {
    /// Starts the cluster with the settings of the task.
    pub async fn start(task: &ChaosTask, recorder: Recorder) -> Self {
        let ClusterSize { gateways, presence } = task.size;
        let cluster = Cluster::builder().gateways(gateways).presence(presence).nginx(true).fault_proxies(true);
        // The shipped setting, unless the task changes it: a kill of Redis may lose writes.
        let mut cluster = cluster.redis_setting("appendfsync", &task.fsync);
        cluster = cluster.gateway_setting("PARLEY__SESSION__HOLD_SECONDS", HOLD_SECONDS);
        cluster = cluster.gateway_setting("PARLEY__HISTORY__MAX_MESSAGES", MAX_MESSAGES);
        let receiver = WebhookReceiver::start(WEBHOOK_SECRET).await;
        let webhooks = json!([{"url": receiver.url(), "secret": receiver.secret(), "events": ["message"]}]);
        cluster = cluster.presence_setting("PARLEY__WEBHOOKS", &webhooks.to_string());
        cluster = cluster.presence_setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true");
        if let Some(case) = task.case {
            cluster = cluster.gateway_setting("PARLEY_FAILPOINT", case.mechanism);
            cluster = cluster.presence_setting("PARLEY_FAILPOINT", case.mechanism);
        }
        let cluster = cluster.start().await;
        let (fsync_always, aof_position) = (task.fsync == "always", None);
        let (active, down) = (BTreeSet::new(), BTreeMap::new());
        Self { cluster, receiver, recorder, active, down, aof_position, fsync_always }
    }

    /// Records the webhooks that have arrived since the last call.
    pub fn record_webhooks(&self) {
        for ReceivedEvent { event, .. } in self.receiver.take_events() {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let (id, room, key) = (text("id"), text("room"), text("body"));
            let received = HistoryOp::Webhook { id, room, key, seq: event["seq"].as_u64().unwrap_or_default() };
            self.recorder.note(APPLICATION, 0, OpStatus::Ok, received);
        }
    }

    /// Saves the current end of the append-only file; a later crash discards everything behind it. With `always` Redis
    /// syncs each write, so a crash discards nothing.
    pub fn save_aof_position(&mut self) {
        self.aof_position = self.cluster.redis.written().filter(|_| !self.fsync_always);
    }

    /// Injects a fault; skips it if the same part still has an active fault.
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
            Fault::PresenceKill { presence } => {
                self.down.insert(self.cluster.presence[presence].name().to_owned(), Instant::now());
                self.cluster.presence[presence].process().kill9();
            }
            Fault::ReceiverRefuses => self.receiver.set_mode(ReceiverMode::Refuse(503, String::new())),
            Fault::RedisStop => self.cluster.redis.stop_signal().await,
            Fault::RedisKill => self.cluster.redis.kill9(),
            Fault::RedisCrash => self.cluster.redis.crash(self.aof_position.take()),
            Fault::CutSubscriptions => drop(self.cluster.redis.call::<u64>("CLIENT KILL TYPE pubsub").await),
            Fault::CutCommands => drop(self.cluster.redis.call::<u64>("CLIENT KILL TYPE normal").await),
            Fault::FlushScripts => self.cluster.redis.call::<()>("SCRIPT FLUSH").await,
            Fault::BadNetwork { gateway, network } => self.cluster.proxies[gateway].set(mode(network)),
            Fault::NginxReload => self.cluster.nginx.iter_mut().for_each(harness::Nginx::reload),
        }
    }

    /// Clears the fault. Returns false if a gateway is still draining and the caller must try again.
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
                let is_stuck = self.down.get(node.name()).is_some_and(|since| since.elapsed() > DRAIN_MAX);
                if node.is_running() && !is_stuck {
                    return false;
                }
                let exited = end(node, Duration::ZERO).await;
                self.recorder.note(BENCH, 0, OpStatus::Ok, exited);
                node.relaunch().await;
                self.down.remove(node.name());
            }
            Fault::PresenceStop { presence } => self.cluster.presence[presence].process().cont(),
            Fault::PresenceKill { presence } => {
                self.cluster.presence[presence].relaunch().await;
                self.down.remove(self.cluster.presence[presence].name());
            }
            Fault::ReceiverRefuses => self.receiver.set_mode(ReceiverMode::Accept),
            Fault::RedisStop => self.cluster.redis.cont(),
            Fault::RedisKill | Fault::RedisCrash => self.cluster.redis.start().await,
            Fault::BadNetwork { gateway, .. } => self.cluster.proxies[gateway].set(Mode::Pass),
            Fault::CutSubscriptions | Fault::CutCommands | Fault::FlushScripts | Fault::NginxReload => {}
        }
        self.active.remove(&fault);
        self.note(OpStatus::Ok, HistoryOp::Fault(fault));
        true
    }

    /// Restarts every program that ended by itself, and records its exit.
    pub async fn revive(&mut self) {
        for node in self.cluster.gateways.iter_mut().chain(&mut self.cluster.presence) {
            if node.is_running() || self.down.contains_key(node.name()) {
                continue;
            }
            let code = node.process().exit_code(Duration::from_secs(5)).await;
            let ended = HistoryOp::Exit { node: node.name().to_owned(), code, requested: false };
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
            let exited = end(node, DRAIN_MAX).await;
            self.recorder.note(BENCH, 0, OpStatus::Ok, exited);
        }
    }

    fn note(&self, kind: OpStatus, op: HistoryOp) {
        self.recorder.note(BENCH, 0, kind, op);
    }
}

/// Waits for the exit of a terminated node, and kills it after `limit`.
async fn end(node: &mut Node, limit: Duration) -> HistoryOp {
    let ended = within(limit, async || node.process().has_ended().then_some(())).await;
    if ended.is_none() {
        node.process().kill9();
    }
    let code = node.process().exit_code(Duration::from_secs(5)).await;
    HistoryOp::Exit { node: node.name().to_owned(), code, requested: true }
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
