//! The plan of a run: its faults with start and duration, drawn from a seed. Pure, so the same seed gives the same
//! plan.
//!
//! A run begins without faults, continues with single faults and pauses, and ends with concurrent faults and a few
//! pauses. Invariant: a fault affects one part of the cluster, and no part has two faults at the same time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// A fault of the network between a gateway and Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    Late,
    BlackHole,
    Reset,
    StallRequests,
    StallReplies,
    Slice,
}

/// A fault. Numbers count from 0: gateway 0 is g1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// kill -9; cleared by a start.
    GatewayKill { gateway: usize },
    /// SIGSTOP; cleared by SIGCONT.
    GatewayStop { gateway: usize },
    /// SIGTERM; cleared by a start.
    GatewayRestart { gateway: usize },
    /// SIGSTOP; cleared by SIGCONT.
    PresenceStop { presence: usize },
    /// kill -9; cleared by a start.
    PresenceKill { presence: usize },
    /// The application answers webhooks with 503.
    ReceiverRefuses,
    /// SIGSTOP; cleared by SIGCONT.
    RedisStop,
    /// kill -9; cleared by a start with the same files.
    RedisKill,
    /// kill -9; cleared by a start with the files as they were a second before.
    RedisCrash,
    /// `CLIENT KILL TYPE pubsub`.
    CutSubscriptions,
    /// `CLIENT KILL TYPE normal`.
    CutCommands,
    /// `SCRIPT FLUSH`.
    FlushScripts,
    /// A bad network between one gateway and Redis.
    BadNetwork { gateway: usize, network: Network },
    /// SIGHUP.
    NginxReload,
}

impl Fault {
    /// Returns the name in the table of results.
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayKill { .. } => "gateway kill -9",
            Self::GatewayStop { .. } => "gateway stopped",
            Self::GatewayRestart { .. } => "gateway restarted",
            Self::PresenceStop { .. } => "presence stopped",
            Self::PresenceKill { .. } => "presence kill -9",
            Self::ReceiverRefuses => "receiver refuses",
            Self::RedisStop => "redis stopped",
            Self::RedisKill => "redis kill -9",
            Self::RedisCrash => "redis crash",
            Self::CutSubscriptions => "subscriptions cut",
            Self::CutCommands => "command connections cut",
            Self::FlushScripts => "scripts flushed",
            Self::BadNetwork { network: Network::Late, .. } => "network late",
            Self::BadNetwork { network: Network::BlackHole, .. } => "network black hole",
            Self::BadNetwork { network: Network::Reset, .. } => "network resets",
            Self::BadNetwork { network: Network::StallRequests, .. } => "network stalls requests",
            Self::BadNetwork { network: Network::StallReplies, .. } => "network stalls replies",
            Self::BadNetwork { network: Network::Slice, .. } => "network slices",
            Self::NginxReload => "nginx reload",
        }
    }

    /// Returns the part of the cluster that the fault affects.
    pub fn part(self) -> String {
        match self.gateway() {
            Some(gateway) => format!("g{}", gateway + 1),
            None => match self {
                Self::PresenceStop { presence } | Self::PresenceKill { presence } => format!("p{}", presence + 1),
                Self::ReceiverRefuses => "receiver".to_owned(),
                Self::NginxReload => "nginx".to_owned(),
                _ => "redis".to_owned(),
            },
        }
    }

    /// Returns the affected gateway, if any.
    pub fn gateway(self) -> Option<usize> {
        match self {
            Self::GatewayKill { gateway }
            | Self::GatewayStop { gateway }
            | Self::GatewayRestart { gateway }
            | Self::BadNetwork { gateway, .. } => Some(gateway),
            _ => None,
        }
    }

    /// Returns true if Redis does not answer any client for a time.
    pub fn interrupts_redis(self) -> bool {
        matches!(self, Self::RedisStop | Self::RedisKill | Self::RedisCrash | Self::CutCommands)
    }

    /// Returns true if Redis may lose its last acknowledged writes.
    pub fn loses_redis_writes(self) -> bool {
        matches!(self, Self::RedisKill | Self::RedisCrash)
    }

    /// Returns the minimum and maximum duration, in tenths of a second.
    fn duration_range(self) -> (u64, u64) {
        match self {
            Self::GatewayKill { .. } | Self::PresenceKill { .. } => (5, 140),
            // Mostly longer than the 8 s after which a gateway counts as dead.
            Self::GatewayStop { .. } => (20, 200),
            Self::GatewayRestart { .. } => (1, 10),
            Self::PresenceStop { .. } | Self::BadNetwork { .. } | Self::ReceiverRefuses => (20, 120),
            Self::RedisStop => (10, 120),
            Self::RedisKill | Self::RedisCrash => (1, 50),
            Self::CutSubscriptions | Self::CutCommands | Self::FlushScripts | Self::NginxReload => (0, 0),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.part())
    }
}

/// A fault with its start and duration. Time counts from the moment when all members have joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultStep {
    pub begins: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

impl FaultStep {
    /// Returns the time at which the fault is cleared.
    pub fn ends(&self) -> Duration {
        self.begins + self.lasts
    }
}

/// Number of processes in the cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterSize {
    pub gateways: usize,
    pub presence: usize,
}

/// Time after a restart of Redis until the gateways have republished, with a margin for faults that begin late.
const REPUBLISH_TIME: Duration = Duration::from_secs(6);
/// Interval between the restarts of two gateways: a drain, a start, and the return of the members.
const ROLL_INTERVAL: Duration = Duration::from_secs(8);

/// Draws a plan in which every step ends within `length`. `only` names the faults to draw; empty means all.
pub fn draw(seed: u64, length: Duration, size: ClusterSize, only: &[String]) -> Vec<FaultStep> {
    let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let all = every_kind().filter(|fault| only.is_empty() || only.iter().any(|name| name == fault.name()));
    let kinds: Vec<Fault> = all.collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    // A short run draws only short faults, unless it is restricted to some kinds.
    let longest = if only.is_empty() { length / 5 } else { length / 2 };
    let mut dice = FaultDice { rng, kinds, bag: Vec::new(), size, longest };
    let mut steps = one_at_a_time(&mut dice, length / 10, length * 6 / 10);
    steps.extend(several_at_once(&mut dice, length * 6 / 10, length));
    steps.sort_by_key(|step| step.begins);
    let redis: Vec<FaultStep> = steps.iter().filter(|step| step.fault.loses_redis_writes()).copied().collect();
    steps.retain(|step| !redis.iter().any(|kill| is_double_failure(kill, step)));
    steps
}

/// Restarts every gateway `times` times, one after the other, and nothing else.
pub fn rolls(times: u32, size: ClusterSize) -> Vec<FaultStep> {
    let restarts = (0..times).flat_map(|_| (0..size.gateways).map(|gateway| Fault::GatewayRestart { gateway }));
    let step = |(number, fault)| FaultStep { begins: ROLL_INTERVAL * (number + 1), lasts: ROLL_INTERVAL / 8, fault };
    (0_u32..).zip(restarts).map(step).collect()
}

fn one_at_a_time(dice: &mut FaultDice, from: Duration, to: Duration) -> Vec<FaultStep> {
    let (mut steps, mut now) = (Vec::new(), from);
    while now < to {
        let fault = dice.fault();
        // A rolling restart is one gateway after the other.
        let faults = match fault {
            Fault::GatewayRestart { .. } => {
                (0..dice.size.gateways).map(|n| Fault::GatewayRestart { gateway: n }).collect()
            }
            fault => vec![fault],
        };
        for fault in faults {
            let step = FaultStep { begins: now, lasts: dice.duration(fault), fault };
            now = step.ends() + dice.tenths(10, 30);
            steps.push(step);
        }
    }
    steps.retain(|step| step.ends() < to);
    steps
}

fn several_at_once(dice: &mut FaultDice, from: Duration, to: Duration) -> Vec<FaultStep> {
    let (mut steps, mut now) = (Vec::<FaultStep>::new(), from);
    let mut busy: BTreeMap<String, Duration> = BTreeMap::new();
    while now < to {
        let fault = dice.fault();
        let step = FaultStep { begins: now, lasts: dice.duration(fault), fault };
        let is_free = busy.get(&fault.part()).is_none_or(|until| *until < now);
        if is_free && step.ends() <= to {
            // The part works for a second before its next fault.
            busy.insert(fault.part(), step.ends() + Duration::from_secs(1));
            steps.push(step);
        }
        now += match dice.rng.random_ratio(1, 12) {
            true => busy.values().max().map_or(Duration::ZERO, |last| last.saturating_sub(now)) + dice.tenths(20, 50),
            false => dice.tenths(5, 25),
        };
    }
    steps
}

/// Returns true if the two faults are the double failure that no guarantee covers: Redis loses acknowledged writes, and
/// a gateway is killed before it republishes them.
fn is_double_failure(redis: &FaultStep, step: &FaultStep) -> bool {
    let is_near = step.begins < redis.ends() + REPUBLISH_TIME && redis.begins < step.begins + REPUBLISH_TIME;
    matches!(step.fault, Fault::GatewayKill { .. }) && is_near
}

/// Returns one fault of each kind; the affected part is drawn later.
pub fn every_kind() -> impl Iterator<Item = Fault> {
    use Network::{BlackHole, Late, Reset, Slice, StallReplies, StallRequests};
    let gateway = 0;
    let plain = [
        Fault::GatewayKill { gateway },
        Fault::GatewayStop { gateway },
        Fault::GatewayRestart { gateway },
        Fault::PresenceStop { presence: 0 },
        Fault::PresenceKill { presence: 0 },
        Fault::ReceiverRefuses,
        Fault::RedisStop,
        Fault::RedisKill,
        Fault::RedisCrash,
        Fault::CutSubscriptions,
        Fault::CutCommands,
        Fault::FlushScripts,
        Fault::NginxReload,
    ];
    let networks = [Late, BlackHole, Reset, StallRequests, StallReplies, Slice];
    plain.into_iter().chain(networks.map(|network| Fault::BadNetwork { gateway, network }))
}

struct FaultDice {
    rng: Xoshiro256PlusPlus,
    kinds: Vec<Fault>,
    /// Kinds that were not drawn yet in this round; each kind occurs once per round.
    bag: Vec<Fault>,
    size: ClusterSize,
    longest: Duration,
}

impl FaultDice {
    fn fault(&mut self) -> Fault {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.bag.shuffle(&mut self.rng);
        }
        let drawn = self.bag.pop().unwrap_or(Fault::FlushScripts);
        let any = self.rng.random_range(0..self.size.gateways);
        match drawn {
            Fault::GatewayKill { .. } => Fault::GatewayKill { gateway: any },
            Fault::GatewayStop { .. } => Fault::GatewayStop { gateway: any },
            Fault::GatewayRestart { .. } => Fault::GatewayRestart { gateway: any },
            Fault::BadNetwork { network, .. } => Fault::BadNetwork { gateway: any, network },
            Fault::PresenceStop { .. } => {
                Fault::PresenceStop { presence: self.rng.random_range(0..self.size.presence) }
            }
            Fault::PresenceKill { .. } => {
                Fault::PresenceKill { presence: self.rng.random_range(0..self.size.presence) }
            }
            other => other,
        }
    }

    fn duration(&mut self, fault: Fault) -> Duration {
        let (least, most) = fault.duration_range();
        self.tenths(least, most).min(self.longest)
    }

    fn tenths(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(100 * self.rng.random_range(least..=most))
    }
}

/// Counts the faults of each kind.
pub fn count(faults: impl IntoIterator<Item = Fault>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.name()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ClusterSize = ClusterSize { gateways: 3, presence: 2 };
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn same_seed_draws_same_plan() {
        assert_eq!(draw(7, LONG, SIZE, &[]), draw(7, LONG, SIZE, &[]));
        assert_ne!(draw(7, LONG, SIZE, &[]), draw(8, LONG, SIZE, &[]));
    }

    #[test]
    fn long_plan_holds_every_fault_kind() {
        let steps = draw(7, LONG, SIZE, &[]);
        assert_eq!(count(steps.iter().map(|step| step.fault)).len(), 19);
        assert!(steps.iter().all(|step| step.begins >= LONG / 10 && step.ends() <= LONG));
    }

    #[test]
    fn plan_never_kills_redis_and_gateway_together() {
        for seed in 0..200 {
            let steps = draw(seed, LONG, SIZE, &[]);
            for step in steps.iter().filter(|step| step.fault.loses_redis_writes()) {
                let is_near = |other: &&FaultStep| {
                    matches!(other.fault, Fault::GatewayKill { .. })
                        && other.begins < step.ends() + REPUBLISH_TIME
                        && step.begins < other.begins + REPUBLISH_TIME
                };
                assert_eq!(steps.iter().find(is_near), None, "seed {seed}: {step:?}");
            }
        }
    }

    #[test]
    fn roll_restarts_each_gateway_alone() {
        let steps = rolls(20, SIZE);
        assert_eq!(steps.len(), 60);
        assert!(steps.windows(2).all(|pair| pair[0].ends() < pair[1].begins && pair[0].fault != pair[1].fault));
    }

    #[test]
    fn plan_never_overlaps_faults_of_one_part() {
        for seed in 0..50 {
            let steps = draw(seed, LONG, SIZE, &[]);
            let alone = LONG * 6 / 10;
            let meets = |a: &FaultStep, b: &FaultStep| a.begins <= b.ends() && b.begins <= a.ends();
            let mut together = 0;
            for (at, step) in steps.iter().enumerate() {
                for other in &steps[at + 1..] {
                    let met = meets(step, other);
                    assert!(!met || step.fault.part() != other.fault.part(), "{step:?} {other:?}");
                    assert!(!met || other.begins >= alone, "{step:?} {other:?}");
                    together += usize::from(met);
                }
            }
            assert!(together > 5, "seed {seed}: only {together} at once");
        }
    }
}
