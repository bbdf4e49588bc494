//! One run: a quiet beginning, the faults of the plan, a heal, a drain until all have caught up, and the evidence.
//!
//! Every part is bounded in time. A run never fails by itself: it returns what was seen, and the checkers judge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
use crate::crowd::{CrowdMember, CrowdMode, MemberAddress, MemberScript};
use crate::evidence;
use crate::failpoints::FailpointStory;
use crate::history::{HistoryOp, OpStatus, Recorder};
use crate::plan::{ClusterSize, Fault, FaultStep};

/// How long all may take to come in again: a name is held for 8 s after its gateway died, and retries take their time.
const RETURN: Duration = Duration::from_secs(60);
/// Time limit for the delivery of the last messages.
const MARKS: Duration = Duration::from_secs(20);
/// Time limit for all members to leave; the rest are disconnected.
const GOODBYE: Duration = Duration::from_secs(15);
/// Between two looks whether a gateway has drained.
const AGAIN: Duration = Duration::from_millis(200);
/// What Redis wrote in this time before a crash is lost: it has its disk write once a second.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Members over WebSocket, and as text lines.
const MEMBERS: (usize, usize) = (8, 3);
/// Nicknames that two rivals each want, on top of the members: one holds it on one gateway, the other waits on the next
/// one to inherit when the first dies, stands still or is cut off, and speaks under it when the first one wakes.
const PRIZES: [&str; 3] = ["crown", "sword", "orb"];
const HOLDS: Duration = Duration::from_secs(3600);
const BREAKS_OFF: Duration = Duration::from_secs(25);
const INHERITS: Duration = Duration::from_secs(6);
const COMES_LATE: Duration = Duration::from_secs(1);
const RIVALS_PACE: Duration = Duration::from_millis(300);
const ROOMS: [&str; 4] = ["#north", "#east", "#south", "#west"];

/// The task of one run.
#[derive(Debug)]
pub struct ChaosTask {
    pub seed: u64,
    pub size: ClusterSize,
    pub fsync: String,
    pub steps: Vec<FaultStep>,
    pub length: Duration,
    /// Messages a second, of all members together, as long as they are answered.
    pub rate: u32,
    /// What is taken out; it ends with the last fault then, for it would not come back whole.
    pub story: Option<FailpointStory>,
}

/// Runs it.
pub async fn run(task: &ChaosTask) -> Evidence {
    let recorder = Recorder::start();
    let mut bench = FaultBench::start(task, recorder.clone()).await;
    let before = evidence::descriptors(&mut bench.cluster);
    let crowd = RunningCrowd::enter(task, &bench, &recorder);
    phase(&recorder, "quiet");
    // Faults meet members that send.
    crowd.all_seated().await;
    phase(&recorder, "faults");
    carry_out(&mut bench, &task.steps, task.length).await;
    let is_to_be_whole = task.story.is_none();
    let mut leftovers = Vec::new();
    if is_to_be_whole {
        bench.revive().await;
        phase(&recorder, "heal");
        if crowd.all_seated().await {
            phase(&recorder, "mark");
            crowd.mark(&recorder).await;
        }
        crowd.leave().await;
        phase(&recorder, "leave");
        leftovers = evidence::leftovers(&mut bench.cluster, &before).await;
    } else {
        crowd.vanish().await;
    }
    let mut logs = BTreeMap::new();
    for room in ROOMS {
        logs.insert(room.to_owned(), evidence::log(&bench.cluster.redis, room).await);
    }
    logs.extend(evidence::inboxes(&bench.cluster.redis, &recorder.events()).await);
    let departures = evidence::departures(&bench.cluster.redis, &recorder).await;
    if is_to_be_whole {
        bench.finish().await;
    }
    let fsync_always = task.fsync == "always";
    Evidence { events: recorder.events(), logs, departures, leftovers, fsync_always }
}

fn phase(recorder: &Recorder, name: &str) {
    recorder.note(BENCH, 0, OpStatus::Ok, HistoryOp::Phase { name: name.to_owned() });
}

/// Does what the plan says, when it says it or as soon after as can be.
async fn carry_out(bench: &mut FaultBench, steps: &[FaultStep], length: Duration) {
    let start = Instant::now();
    let begins = steps.iter().map(|step| (step.begins, true, step.fault));
    let ends = steps.iter().map(|step| (step.ends(), false, step.fault));
    let mut actions: Vec<_> = begins.chain(ends).collect();
    // Stable: a fault that lasts no time begins before it ends.
    actions.sort_by_key(|(at, ..)| *at);
    let mut actions = VecDeque::from(actions);
    while let Some((at, is_begin, fault)) = actions.pop_front() {
        if is_begin && fault == Fault::RedisCrash {
            sleep(at.saturating_sub(FORGOTTEN).saturating_sub(start.elapsed())).await;
            bench.look_at_disk();
        }
        sleep(at.saturating_sub(start.elapsed())).await;
        if is_begin {
            bench.begin(fault).await;
        } else if !bench.clear(fault).await {
            // The others do not wait for a gateway that takes its time to drain.
            let again = (at.max(start.elapsed()) + AGAIN, false, fault);
            actions.insert(actions.partition_point(|(other, ..)| *other <= again.0), again);
        }
    }
    sleep(length.saturating_sub(start.elapsed())).await;
}

struct RunningCrowd {
    wish: watch::Sender<CrowdMode>,
    people: JoinSet<()>,
    seats: Vec<Arc<AtomicBool>>,
    /// Room and member, of those that send a mark.
    members: Vec<(String, String)>,
}

impl RunningCrowd {
    /// Starts all members.
    fn enter(task: &ChaosTask, bench: &FaultBench, recorder: &Recorder) -> Self {
        let (wish, seen) = watch::channel(CrowdMode::Talk);
        let mut crowd = Self { wish, people: JoinSet::new(), seats: Vec::new(), members: Vec::new() };
        for (number, orders) in orders(task, bench).into_iter().enumerate() {
            let rng = Xoshiro256PlusPlus::seed_from_u64(task.seed.wrapping_add(1 + number as u64));
            let is_rival = orders.hangs_up_after.is_some();
            let members = orders.rooms.iter().map(|room| (room.clone(), orders.process.clone()));
            crowd.members.extend(members.filter(|_| !is_rival));
            let person = CrowdMember::new(orders, seen.clone(), recorder.clone(), rng);
            crowd.seats.extend((!is_rival).then(|| person.seat()));
            crowd.people.spawn(person.live());
        }
        crowd
    }

    async fn all_seated(&self) -> bool {
        let is_full = || self.seats.iter().all(|seat| seat.load(Ordering::Relaxed));
        within(RETURN, async || is_full().then_some(())).await.is_some()
    }

    /// Makes all members send a mark to every room, and waits until all have received all of them.
    async fn mark(&self, recorder: &Recorder) {
        self.wish.send_replace(CrowdMode::Mark);
        let (mut seen, mut heard) = (recorder.since(usize::MAX, |_| {}), BTreeSet::new());
        within(MARKS, async || {
            seen = recorder.since(seen, |event| {
                let HistoryOp::Message { room, key, .. } = &event.op else { return };
                let speaker = key.strip_prefix("mark-").and_then(|rest| rest.rsplit_once('-'));
                if let Some((speaker, _)) = speaker {
                    heard.insert((room.clone(), speaker.to_owned(), event.process.clone()));
                }
            });
            let is_heard = |room: &String, speaker: &String| {
                let mut listeners = self.members.iter().filter(|(other, _)| other == room);
                listeners.all(|(_, who)| heard.contains(&(room.clone(), speaker.clone(), who.clone())))
            };
            self.members.iter().all(|(room, speaker)| is_heard(room, speaker)).then_some(())
        })
        .await;
    }

    async fn leave(mut self) {
        self.wish.send_replace(CrowdMode::Leave);
        within(GOODBYE, async || {
            while self.people.try_join_next().is_some() {}
            self.people.is_empty().then_some(())
        })
        .await;
        self.vanish().await;
    }

    async fn vanish(mut self) {
        self.people.shutdown().await;
    }
}

/// The scripts of all members, which together send about as much as the task wants.
fn orders(task: &ChaosTask, bench: &FaultBench) -> Vec<MemberScript> {
    let rate = task.rate;
    let breaks_off = task.story.and_then(|story| story.breaks_off).unwrap_or(BREAKS_OFF);
    let nginx = bench.cluster.nginx.as_ref().expect("the bench has a front door");
    let (ws, lines) = (MemberAddress::WebSocket(nginx.ws()), MemberAddress::Lines(nginx.tcp()));
    let rooms = |from: usize, count: usize| (from..from + count).map(|n| ROOMS[n % ROOMS.len()].to_owned()).collect();
    let talkers = (MEMBERS.0 + MEMBERS.1) as u32;
    let pace = Duration::from_secs(talkers.into()) / rate.max(1);
    let member = |process: String, address, rooms, most_open| {
        let nick = process.clone();
        MemberScript {
            nick,
            process,
            address,
            rooms,
            friends: Vec::new(),
            comes_after: Duration::ZERO,
            breaks_off_after: None,
            hangs_up_after: None,
            pace,
            most_open,
        }
    };
    // Enough under way for the rate while an answer takes a while.
    let open = 3 + rate as usize / 20;
    let mut all: Vec<MemberScript> = (0..MEMBERS.0).map(|n| member(format!("ws{n}"), ws, rooms(n, 2), open)).collect();
    for (n, orders) in all.iter_mut().enumerate() {
        orders.breaks_off_after = Some(breaks_off);
        orders.friends = (1..=2).map(|step| format!("@ws{}", (n + step) % MEMBERS.0)).collect();
    }
    // The line port acks nothing, so one at a time.
    all.extend((0..MEMBERS.1).map(|n| member(format!("line{n}"), lines, rooms(n, 1), 1)));
    let gateways = &bench.cluster.gateways;
    for (at, prize) in PRIZES.iter().enumerate() {
        let roles = [("holder", at, HOLDS, Duration::ZERO), ("heir", at + 1, INHERITS, COMES_LATE)];
        for (role, on, patience, comes_after) in roles {
            let own = MemberAddress::WebSocket(gateways[on % gateways.len()].ws());
            // Goes on talking to a gateway that stands still, also when the other one has the name already.
            let orders = member(format!("rival-{prize}-{role}"), own, rooms(at, 1), 60);
            let (nick, pace) = ((*prize).to_owned(), RIVALS_PACE);
            all.push(MemberScript { nick, pace, comes_after, hangs_up_after: Some(patience), ..orders });
        }
    }
    all
}
