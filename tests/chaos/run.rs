//! One run: start of the members, the faults of the plan, recovery, the last messages, and the evidence.
//!
//! Every phase has a time limit. A run never fails by itself: it returns the evidence, and the checkers judge it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::within;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bench::{BENCH, FaultBench};
use crate::check::Evidence;
use crate::crowd::{
    CrowdMember, CrowdMode, LIBRARIES, LINE_FAULTS, LibraryMember, LibraryScript, MemberAddress, MemberScript,
};
use crate::evidence;
use crate::failpoints::FailpointCase;
use crate::history::{HistoryOp, OpStatus, Recorder};
use crate::plan::{ClusterSize, Fault, FaultStep};

/// Time limit for all members to join. A nick stays claimed for 8 s after its gateway died, and retries take time: a
/// client library waits for up to 30 s.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// Time limit for the delivery of the last messages.
const MARK_DELIVERY_MAX: Duration = Duration::from_secs(20);
/// Time limit for the webhooks of all messages: another process leads, and pauses after failures are over.
const WEBHOOKS_MAX: Duration = Duration::from_secs(40);
/// Time limit for them in a run with a disabled mechanism.
const WEBHOOKS_WITHOUT_MECHANISM: Duration = Duration::from_secs(10);
/// Time limit for all members to leave; the rest are disconnected.
const LEAVE_MAX: Duration = Duration::from_secs(15);
/// Interval at which the end of a drain is checked.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Age of the writes that a crash of Redis discards: Redis syncs its file once a second.
const CRASH_LOSS: Duration = Duration::from_secs(1);
/// Number of members over WebSocket and over text lines.
const MEMBERS: (usize, usize) = (8, 3);
/// Number of members on each client library.
const LIBRARY_MEMBERS: usize = 2;
/// Nicknames that two rivals each want, in addition to the members. The holder owns the nick on one gateway. The heir
/// waits on the next gateway until the first one is killed, stopped or cut off. Then it sends messages under the nick.
const RIVAL_NICKS: [&str; 3] = ["crown", "sword", "orb"];
const HOLDER_CLOSES_AFTER: Duration = Duration::from_secs(3600);
const CONNECTION_LOSS_AFTER: Duration = Duration::from_secs(25);
const HEIR_CLOSES_AFTER: Duration = Duration::from_secs(6);
const HEIR_STARTS_AFTER: Duration = Duration::from_secs(1);
const RIVAL_SEND_INTERVAL: Duration = Duration::from_millis(300);
const ROOMS: [&str; 4] = ["#north", "#east", "#south", "#west"];

/// The task of one run.
#[derive(Debug)]
pub struct ChaosTask {
    pub seed: u64,
    pub size: ClusterSize,
    pub fsync: String,
    pub steps: Vec<FaultStep>,
    pub length: Duration,
    /// Messages per second of all members together, if they are answered.
    pub rate: u32,
    /// Disabled mechanism; such a run ends with the last fault, because the cluster may not recover.
    pub case: Option<FailpointCase>,
    /// Set if one line of every program on a client library is altered.
    pub alters_lines: bool,
}

impl ChaosTask {
    /// Returns the number of members on client libraries. A run with a disabled mechanism tests the server alone.
    fn library_members(&self) -> usize {
        if self.case.is_some() { 0 } else { LIBRARY_MEMBERS * LIBRARIES.len() }
    }

    /// Returns the approximate interval between two messages of one member.
    fn send_interval(&self) -> Duration {
        let senders = MEMBERS.0 + MEMBERS.1 + self.library_members();
        Duration::from_secs(senders as u64) / self.rate.max(1)
    }

    /// Returns the maximum number of unanswered messages of one member: enough for the rate with slow answers.
    fn unanswered_max(&self) -> usize {
        3 + self.rate as usize / 20
    }
}

/// Executes the run and returns its evidence.
pub async fn run(task: &ChaosTask) -> Evidence {
    let recorder = Recorder::start();
    let mut bench = FaultBench::start(task, recorder.clone()).await;
    let before = evidence::descriptors(&mut bench.cluster);
    let crowd = RunningCrowd::start(task, &bench, &recorder);
    phase(&recorder, "quiet");
    // Faults begin when all members send.
    crowd.all_joined().await;
    phase(&recorder, "faults");
    execute_plan(&mut bench, &task.steps, task.length).await;
    let must_recover = task.case.is_none();
    let mut leftovers = Vec::new();
    if must_recover {
        bench.revive().await;
        phase(&recorder, "heal");
        if crowd.all_joined().await {
            phase(&recorder, "mark");
            crowd.mark(&recorder).await;
        }
        crowd.leave().await;
        phase(&recorder, "leave");
        leftovers = evidence::leftovers(&mut bench.cluster, &before).await;
        receive_webhooks(&bench, &recorder, WEBHOOKS_MAX).await;
    } else {
        crowd.abort().await;
        receive_webhooks(&bench, &recorder, WEBHOOKS_WITHOUT_MECHANISM).await;
    }
    let mut streams = BTreeMap::new();
    for room in ROOMS {
        streams.insert(room.to_owned(), evidence::room_stream(&bench.cluster.redis, room).await);
    }
    streams.extend(evidence::inboxes(&bench.cluster.redis, &recorder.events()).await);
    let departures = evidence::departures(&bench.cluster.redis, &recorder).await;
    if must_recover {
        bench.finish().await;
    }
    let fsync_always = task.fsync == "always";
    Evidence { events: recorder.events(), streams, departures, leftovers, fsync_always }
}

fn phase(recorder: &Recorder, name: &str) {
    recorder.note(BENCH, 0, OpStatus::Ok, HistoryOp::Phase { name: name.to_owned() });
}

/// Injects and clears the faults of the plan, each at its time or as soon as possible afterwards.
async fn execute_plan(bench: &mut FaultBench, steps: &[FaultStep], length: Duration) {
    let start = Instant::now();
    let begins = steps.iter().map(|step| (step.begins, true, step.fault));
    let ends = steps.iter().map(|step| (step.ends(), false, step.fault));
    let mut actions: Vec<_> = begins.chain(ends).collect();
    // A stable sort: a fault without duration begins before it ends.
    actions.sort_by_key(|(at, ..)| *at);
    let mut actions = VecDeque::from(actions);
    while let Some((at, is_begin, fault)) = actions.pop_front() {
        if is_begin && fault == Fault::RedisCrash {
            sleep(at.saturating_sub(CRASH_LOSS).saturating_sub(start.elapsed())).await;
            bench.save_aof_position();
        }
        sleep(at.saturating_sub(start.elapsed())).await;
        bench.record_webhooks();
        if is_begin {
            bench.begin(fault).await;
        } else if !bench.clear(fault).await {
            // Other faults do not wait for a slow drain.
            let again = (at.max(start.elapsed()) + DRAIN_CHECK_INTERVAL, false, fault);
            actions.insert(actions.partition_point(|(other, ..)| *other <= again.0), again);
        }
    }
    sleep(length.saturating_sub(start.elapsed())).await;
}

/// Waits until the application has received every acked message of a room.
async fn receive_webhooks(bench: &FaultBench, recorder: &Recorder, limit: Duration) {
    let (mut seen, mut acked, mut received) = (0, BTreeSet::new(), BTreeSet::new());
    within(limit, async || {
        bench.record_webhooks();
        seen = recorder.since(seen, |event| match &event.op {
            HistoryOp::Send { room, key, .. } if event.kind == OpStatus::Ok && room.starts_with('#') => {
                acked.insert(key.clone());
            }
            HistoryOp::Webhook { key, .. } => drop(received.insert(key.clone())),
            _ => {}
        });
        acked.is_subset(&received).then_some(())
    })
    .await;
}

struct RunningCrowd {
    mode: watch::Sender<CrowdMode>,
    tasks: JoinSet<()>,
    joined_flags: Vec<Arc<AtomicBool>>,
    /// Room and member, for all members that send a mark.
    members: Vec<(String, String)>,
}

impl RunningCrowd {
    /// Starts the tasks of all members.
    fn start(task: &ChaosTask, bench: &FaultBench, recorder: &Recorder) -> Self {
        let (mode, seen) = watch::channel(CrowdMode::Chat);
        let mut crowd = Self { mode, tasks: JoinSet::new(), joined_flags: Vec::new(), members: Vec::new() };
        let mut seeds = (1..).map(|number| task.seed.wrapping_add(number));
        let mut rng = || Xoshiro256PlusPlus::seed_from_u64(seeds.next().unwrap_or_default());
        for script in scripts(task, bench) {
            let is_rival = script.closes_after.is_some();
            let members = script.rooms.iter().map(|room| (room.clone(), script.process.clone()));
            crowd.members.extend(members.filter(|_| !is_rival));
            let member = CrowdMember::new(script, seen.clone(), recorder.clone(), rng());
            crowd.joined_flags.extend((!is_rival).then(|| member.joined_flag()));
            crowd.tasks.spawn(member.run());
        }
        for script in library_scripts(task, bench) {
            crowd.members.extend(script.rooms.iter().map(|room| (room.clone(), script.process.clone())));
            let member = LibraryMember::new(script, seen.clone(), recorder.clone(), rng());
            crowd.joined_flags.push(member.joined_flag());
            crowd.tasks.spawn(member.run());
        }
        crowd
    }

    async fn all_joined(&self) -> bool {
        let is_complete = || self.joined_flags.iter().all(|seat| seat.load(Ordering::Relaxed));
        within(JOIN_MAX, async || is_complete().then_some(())).await.is_some()
    }

    /// Makes all members send a mark to every room, and waits until all have received all of them.
    async fn mark(&self, recorder: &Recorder) {
        self.mode.send_replace(CrowdMode::Mark);
        let (mut seen, mut received) = (recorder.since(usize::MAX, |_| {}), BTreeSet::new());
        within(MARK_DELIVERY_MAX, async || {
            seen = recorder.since(seen, |event| {
                let HistoryOp::Message { room, key, .. } = &event.op else { return };
                let sender = key.strip_prefix("mark-").and_then(|rest| rest.rsplit_once('-'));
                if let Some((sender, _)) = sender {
                    received.insert((room.clone(), sender.to_owned(), event.process.clone()));
                }
            });
            let is_delivered = |room: &String, sender: &String| {
                let mut recipients = self.members.iter().filter(|(other, _)| other == room);
                recipients.all(|(_, member)| received.contains(&(room.clone(), sender.clone(), member.clone())))
            };
            self.members.iter().all(|(room, sender)| is_delivered(room, sender)).then_some(())
        })
        .await;
    }

    async fn leave(mut self) {
        self.mode.send_replace(CrowdMode::Leave);
        within(LEAVE_MAX, async || {
            while self.tasks.try_join_next().is_some() {}
            self.tasks.is_empty().then_some(())
        })
        .await;
        self.abort().await;
    }

    async fn abort(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Returns `count` rooms, beginning with this one.
fn rooms(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| ROOMS[n % ROOMS.len()].to_owned()).collect()
}

/// Returns the scripts of the members on client libraries. Of each library one connects through nginx, and one directly
/// to the gateways.
fn library_scripts(task: &ChaosTask, bench: &FaultBench) -> Vec<LibraryScript> {
    let nginx = bench.cluster.nginx.as_ref().expect("the bench starts nginx");
    let url = |address: SocketAddr| format!("ws://{address}/ws");
    let gateways: Vec<String> = bench.cluster.gateways.iter().map(|gateway| url(gateway.ws())).collect();
    let script = |number: usize| {
        let (library, n) = (LIBRARIES[number % LIBRARIES.len()], number / LIBRARIES.len());
        LibraryScript {
            process: format!("{}{n}", library.name),
            library,
            urls: if n == 0 { vec![url(nginx.ws())] } else { gateways.clone() },
            rooms: rooms(number, 2),
            send_interval: task.send_interval(),
            unanswered_max: task.unanswered_max(),
            line_fault: task.alters_lines.then(|| LINE_FAULTS[(number + n) % LINE_FAULTS.len()]),
        }
    };
    (0..task.library_members()).map(script).collect()
}

/// Returns the scripts of the other members. All members together send at about the rate of the task.
fn scripts(task: &ChaosTask, bench: &FaultBench) -> Vec<MemberScript> {
    let connection_loss_after = task.case.and_then(|case| case.connection_loss_after).unwrap_or(CONNECTION_LOSS_AFTER);
    let nginx = bench.cluster.nginx.as_ref().expect("the bench starts nginx");
    let (ws, lines) = (MemberAddress::WebSocket(nginx.ws()), MemberAddress::Lines(nginx.tcp()));
    let member = |process: String, address, rooms, unanswered_max| {
        let nick = process.clone();
        MemberScript {
            nick,
            process,
            address,
            rooms,
            friends: Vec::new(),
            starts_after: Duration::ZERO,
            connection_loss_after: None,
            closes_after: None,
            send_interval: task.send_interval(),
            unanswered_max,
        }
    };
    let mut all: Vec<MemberScript> =
        (0..MEMBERS.0).map(|n| member(format!("ws{n}"), ws, rooms(n, 2), task.unanswered_max())).collect();
    for (n, script) in all.iter_mut().enumerate() {
        script.connection_loss_after = Some(connection_loss_after);
        script.friends = (1..=2).map(|step| format!("@ws{}", (n + step) % MEMBERS.0)).collect();
    }
    // The line port sends no acks, so one message at a time.
    all.extend((0..MEMBERS.1).map(|n| member(format!("line{n}"), lines, rooms(n, 1), 1)));
    let gateways = &bench.cluster.gateways;
    for (at, nick) in RIVAL_NICKS.iter().enumerate() {
        let roles = [
            ("holder", at, HOLDER_CLOSES_AFTER, Duration::ZERO),
            ("heir", at + 1, HEIR_CLOSES_AFTER, HEIR_STARTS_AFTER),
        ];
        for (role, on, closes_after, starts_after) in roles {
            let own = MemberAddress::WebSocket(gateways[on % gateways.len()].ws());
            // A rival keeps sending to a stopped gateway, even if the other rival has the nick already.
            let script = member(format!("rival-{nick}-{role}"), own, rooms(at, 1), 60);
            let (nick, send_interval) = ((*nick).to_owned(), RIVAL_SEND_INTERVAL);
            all.push(MemberScript { nick, send_interval, starts_after, closes_after: Some(closes_after), ..script });
        }
    }
    all
}
