//! The composition root of a gateway: puts the parts together, starts their tasks, ends them in order.
//!
//! `main` and tests start it; nothing else knows all the parts. No business rule lives here.
//!
//! Tasks: the lease (open, keep, begin anew), the reaper, the doors, the departure of sessions that do not come back,
//! fan-out, presence rounds, readings, repairs, the admin door. All of them end with the [`Gateway`]; sessions run on a
//! tracker of their own, so that a drain can wait for them.

mod drain;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use presence::host::loop_lag;
use presence::host::reloadable::Reloadable;
use presence::lease::audit::{self, Audited};
use presence::lease::beat::{self, LeaseHealth, Sample};
use presence::lease::detector::{self, ReapOutcome};
use presence::lease::node_id::{self, NodeIdConflict};
use presence::model::codes::CloseCode;
use presence::model::{Incarnation, LeftReason, Owner, Retention};
use presence::registry::{Beat, GatewayInfo, LocalClaim, MailboxOrder, MemoryRegistry, RedisRegistry, Registry};
use presence::store::memory::Store;
use presence::store::redis::RedisStore;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::backplane::{Backplane, Delivery, DeliverySink, MemoryBackplane, RedisBackplane};
use crate::config::Config;
use crate::hub::Hub;
use crate::hub::refill;
use crate::lease::LocalClaims;
use crate::lease::expiry;
use crate::listen::{Admission, ConnectionContext, ConnectionDrain, Limits, Listeners};
use crate::metrics::{AtScrape, ListenerKind, Metrics};
use crate::session::{Driver, Services};
use crate::trace;

pub use presence::host::program::Drained;

/// From one round of presence events to the next.
const PRESENCE_ROUND: Duration = Duration::from_millis(200);

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP, with `/ws`.
    pub ws: SocketAddr,
    /// Text lines.
    pub tcp: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`, `/holdings`.
    pub admin: SocketAddr,
}

/// What a reload of the settings changes while the gateway runs.
#[derive(Debug)]
struct Rules {
    limits: Reloadable<Limits>,
    history: Reloadable<Retention>,
}

/// Why a gateway is to end that got no signal: an operator's order, or another gateway that has its name.
type Dismissal = SetOnce<Result<(), NodeIdConflict>>;

/// A running gateway. Dropping it ends every task at once; [`Gateway::drain`] ends it in order.
#[derive(Debug)]
pub struct Gateway {
    addresses: Addresses,
    services: Arc<Services>,
    admission: Arc<Admission>,
    connections: TaskTracker,
    closing: CancellationToken,
    departure: Arc<ConnectionDrain>,
    /// Sends off sessions that do not come back.
    parting: CancellationToken,
    rules: Rules,
    dismissed: Arc<Dismissal>,
    beating: CancellationToken,
    background: DropGuard,
}

impl Gateway {
    /// Starts a gateway: its listeners are bound when this returns, but it lets nobody in before it is ready. A Redis that
    /// cannot be reached is waited for, not an error.
    ///
    /// # Errors
    /// An address cannot be bound, the Redis URL cannot be used, Redis is unfit, or another live gateway has this node id.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let history = Reloadable::from(config.history);
        match &config.redis {
            Some(url) => {
                let redis = RedisStore::open(url.reveal(), &config.prefix).context("use redis.url")?;
                let registry = Registry::Redis(RedisRegistry::new(redis.clone()));
                let is_there = redis.is_fit().await?;
                let looked = if is_there { node_id::refuse_second(&registry, &config.node).await.ok() } else { None };
                // "Everywhere" is no address for others; whoever reaches Redis reaches what Redis is reached from.
                let facing = if config.admin.ip().is_unspecified() { redis.facing().await } else { None };
                let kept = history.clone();
                let backplane = |sink| Backplane::Redis(RedisBackplane::start_keeping(redis.clone(), kept, sink));
                let around = Surroundings { facing, over: looked.transpose()? };
                let gateway = Self::assemble(&config, around, history, registry, backplane).await?;
                redis.calls().register(gateway.metrics());
                if !is_there {
                    spawn(&gateway.beating, redis.complain_when_unfit());
                }
                Ok(gateway)
            }
            None => {
                let store = Store::keeping(history.clone());
                Self::assemble_on(&config, history, &store).await
            }
        }
    }

    /// Starts a gateway on a memory store, which has bounds of its own for the logs of rooms; several of them on one
    /// store are a cluster in one process.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start_on(config: &Config, store: &Store) -> anyhow::Result<Self> {
        Self::assemble_on(config, Reloadable::from(config.history), store).await
    }

    async fn assemble_on(config: &Config, history: Reloadable<Retention>, store: &Store) -> anyhow::Result<Self> {
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        let backplane = |sink| Backplane::Memory(MemoryBackplane::start(store.clone(), sink));
        Self::assemble(config, Surroundings::default(), history, registry, backplane).await
    }

    async fn assemble(
        config: &Config,
        Surroundings { facing, over }: Surroundings,
        history: Reloadable<Retention>,
        registry: Registry,
        backplane: impl FnOnce(DeliverySink) -> Backplane,
    ) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(config.ws, config.tcp)?;
        let admin =
            TcpListener::bind(config.admin).await.with_context(|| format!("bind admin.addr {}", config.admin))?;
        let addresses = Addresses {
            ws: listeners.local_addr(ListenerKind::Ws)?,
            tcp: listeners.local_addr(ListenerKind::Tcp)?,
            admin: admin.local_addr()?,
        };

        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(metrics.counts.clone()));
        let tenure = Arc::new(LeaseHealth::default());
        let services = Arc::new(Services {
            node: config.node.as_str().into(),
            registry,
            backplane: backplane(sink(&hub, &tenure, &metrics)),
            hub,
            holdings: LocalClaims::default(),
            hold: config.hold,
            tenure,
            metrics,
        });

        let (samples, samples_seen) = watch::channel(None);
        let background = CancellationToken::new();
        let lease = Arc::clone(&services);
        let admission = Arc::new(Admission::new(move || admin::ready(&lease).is_ok()));
        services.metrics.at_scrape(at_scrape(&services, &admission));
        let connections = TaskTracker::new();
        let (closing, departure) = (CancellationToken::new(), Arc::new(ConnectionDrain::default()));
        let info = info(config, &addresses, facing);
        let incarnation = Incarnation::random();
        let opened = match over {
            Some(over) => node_id::open_alone(&services.registry, &incarnation, &info, &over).await.ok().transpose()?,
            None => None,
        };
        let (beating, parting) = (background.child_token(), background.child_token());
        let dismissed = Arc::new(Dismissal::new());
        let (beats, order) = (Arc::clone(&services), Arc::clone(&dismissed));
        spawn(&beating, async move {
            if opened.is_none()
                && let Err(twin) = node_id::wait_alone(&beats.registry, &incarnation, &info).await
            {
                // Nobody orders anything before there is a lease.
                let _ = order.set(Err(twin));
                return;
            }
            hold_lease(beats, incarnation, info, samples, order).await;
        });
        spawn(&background, reap(Arc::clone(&services), samples_seen));
        spawn(&parting, part(Arc::clone(&services)));
        spawn(&background, show_presence(Arc::clone(&services)));
        for _ in 0..Handle::current().metrics().num_workers() {
            spawn(&background, fan_out(Arc::clone(&services)));
        }
        let generations = services.tenure.generations();
        spawn(&background, refill::run(Arc::clone(&services.hub), services.backplane.clone(), generations));
        let operators = admin::serve(admin, Arc::clone(&services), Arc::clone(&admission), background.clone());
        tokio::spawn(operators);
        spawn(&background, loop_lag::watch(services.metrics.registry.clone()));
        spawn(&background, put_back(Arc::clone(&services)));

        let limits = Reloadable::from(config.limits.clone());
        let for_sessions = Arc::clone(&services);
        let house = ConnectionContext::new(
            move |format| Driver::new(&for_sessions, format),
            Arc::clone(&admission),
            limits.clone(),
            Arc::clone(&services.metrics),
            closing.clone(),
            Arc::clone(&departure),
            connections.clone(),
        );
        listeners.serve(&house);
        let rules = Rules { limits, history };
        let background = background.drop_guard();
        Ok(Self {
            addresses,
            services,
            admission,
            connections,
            closing,
            departure,
            parting,
            rules,
            dismissed,
            beating,
            background,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where its numbers are.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.services.metrics.registry
    }

    /// Waits until an operator orders this gateway to end, by the store. It serves on until [`Gateway::drain`]. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// It began while Redis was away, and now another gateway is seen to live under its node id: this one serves nobody.
    pub async fn dismissed(&self) -> Result<(), NodeIdConflict> {
        self.dismissed.wait().await.clone()
    }

    /// Takes over the limits, the allowed origins and how much history is kept. Everything else of `config` is not
    /// looked at.
    pub fn reload(&self, config: &Config) {
        self.rules.limits.set(config.limits.clone());
        self.rules.history.set(config.history);
    }
}

/// What a gateway finds out about its place in a cluster before it starts.
#[derive(Debug, Default)]
struct Surroundings {
    /// The address that Redis is reached from, when its own tells others nothing.
    facing: Option<IpAddr>,
    /// Former lives of this node; `None` when nobody could be asked.
    over: Option<Vec<Incarnation>>,
}

/// Runs a task until the gateway, or this part of it, ends.
fn spawn(part: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let ended = part.clone().cancelled_owned();
    tokio::spawn(async move {
        tokio::select! {
            // First, so that a task that was told to end takes no further step.
            biased;
            () = ended => {}
            () = task => {}
        }
    });
}

/// Where everything from the backplane goes: our own beat to the tenure, the rest to the hub.
fn sink(hub: &Arc<Hub>, tenure: &Arc<LeaseHealth>, metrics: &Metrics) -> DeliverySink {
    let (hub, tenure, reconnects) = (Arc::clone(hub), Arc::clone(tenure), metrics.backplane_reconnects.clone());
    let round_trip = metrics.round_trip.clone();
    Arc::new(move |delivery| {
        match &delivery {
            Delivery::Echo { counter, incarnation } => {
                tenure.echoed(incarnation, *counter);
                let now = Instant::now();
                if let Some(took) = tenure.round_trip(*counter, now) {
                    round_trip.took(took);
                }
                if refill::is_late(tenure.echo_age(now)) {
                    hub.doubt();
                }
                return;
            }
            Delivery::Resumed => reconnects.inc(),
            _ => {}
        }
        trace::deliver(&delivery).in_scope(|| hub.deliver(delivery));
    })
}

fn info(config: &Config, addresses: &Addresses, facing: Option<IpAddr>) -> GatewayInfo {
    let admin = SocketAddr::new(facing.unwrap_or(addresses.admin.ip()), addresses.admin.port());
    GatewayInfo {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ws: addresses.ws.to_string(),
        tcp: addresses.tcp.to_string(),
        admin: admin.to_string(),
    }
}

/// Holds a lease for as long as the gateway runs: one incarnation after another, each with its own channel, and the
/// sessions of a lost one closed.
async fn hold_lease(
    services: Arc<Services>,
    mut incarnation: Incarnation,
    info: GatewayInfo,
    samples: watch::Sender<Option<Sample>>,
    dismissed: Arc<Dismissal>,
) {
    let Services { registry, backplane, hub, holdings, tenure, .. } = &*services;
    loop {
        backplane.listen_as(&incarnation).await;
        if !beat::open(registry, tenure, &incarnation, &info).await {
            incarnation = Incarnation::random();
            continue;
        }
        let mut keeper =
            LeaseKeeper { services: &services, incarnation: &incarnation, samples: &samples, dismissed: &dismissed };
        let audited = Audited { registry, tenure, incarnation: &incarnation, info: &info };
        let overtaken = |owner: &Owner| end_overtaken(&services, owner);
        tokio::select! {
            () = beat::keep(registry, tenure, &incarnation, &info, &mut keeper) => {}
            () = audit::run(audited, audit::Pace::default(), || holdings.all(), overtaken) => {}
        }
        services.metrics.leases_lost.inc();
        hub.close_incarnation(&incarnation, CloseCode::Restart);
        holdings.forget(&incarnation);
        incarnation = Incarnation::random();
    }
}

/// Ends what is here of a session that a later claim has, with a connection or without one.
fn end_overtaken(services: &Services, owner: &Owner) {
    services.hub.end_claim(&owner.session, owner.fence, CloseCode::Restart);
    services.holdings.release(owner);
}

/// The gateway's side of its lease.
struct LeaseKeeper<'a> {
    services: &'a Services,
    incarnation: &'a Incarnation,
    samples: &'a watch::Sender<Option<Sample>>,
    dismissed: &'a Dismissal,
}

impl beat::Keeper for LeaseKeeper<'_> {
    fn holdings(&self) -> Vec<LocalClaim> {
        self.services.holdings.all()
    }

    fn answered(&mut self, sample: Sample, beat: Beat) {
        let generation = beat.generation.number;
        self.services.backplane.note_beat(self.incarnation, generation, sample.sent, sample.received);
        self.samples.send_replace(Some(sample));
        for command in beat.mailbox {
            match command {
                MailboxOrder::Kick(session) => {
                    self.services.hub.close(&session, CloseCode::Kicked);
                    self.services.holdings.send_off(&session, LeftReason::Kicked);
                }
                MailboxOrder::Drain => {
                    tracing::info!("ordered to drain");
                    // Once is enough.
                    let _ = self.dismissed.set(Ok(()));
                }
                MailboxOrder::Taken { session, fence } => {
                    self.services.hub.taken_over(&session, fence);
                    self.services.holdings.taken(&session, fence);
                }
            }
        }
    }

    fn is_whole(&self, generation: u64) -> bool {
        self.services.backplane.is_complete(generation)
    }

    fn overtaken(&mut self, owner: &Owner) {
        end_overtaken(self.services, owner);
    }
}

async fn put_back(services: Arc<Services>) {
    services.backplane.republish(|messages| services.metrics.repaired.inc_by(messages)).await;
}

async fn reap(services: Arc<Services>, samples: watch::Receiver<Option<Sample>>) {
    let (own, counted) = (Arc::clone(&services), Arc::clone(&services));
    let count = move |deed| match deed {
        ReapOutcome::Fenced => counted.metrics.fences.inc(),
        ReapOutcome::Reaped(reaped) => {
            counted.metrics.reaped_nicks.inc_by(reaped.nicks);
            counted.metrics.reaped_members.inc_by(reaped.members);
        }
    };
    detector::run(services.registry.clone(), samples, move || own.tenure.incarnation(), count).await;
}

async fn part(services: Arc<Services>) {
    expiry::run(&services).await;
}

async fn show_presence(services: Arc<Services>) {
    let mut round = tokio::time::interval(PRESENCE_ROUND);
    loop {
        round.tick().await;
        services.hub.show_presence();
    }
}

async fn fan_out(services: Arc<Services>) {
    services.hub.fan_out().await;
}

fn at_scrape(services: &Arc<Services>, admission: &Arc<Admission>) -> AtScrape {
    let (sessions, rooms, started) = (Arc::clone(services), Arc::clone(services), Instant::now());
    let (beats, heard, admission) = (Arc::clone(services), Arc::clone(services), Arc::clone(admission));
    let (detached, kept, tenure) = (Arc::clone(services), Arc::clone(services), Arc::clone(&services.tenure));
    AtScrape {
        sessions: Box::new(move || sessions.hub.census().sessions),
        detached: Box::new(move || detached.holdings.count_detached()),
        rooms: Box::new(move || rooms.hub.census().rooms),
        kept: Box::new(move || kept.backplane.unsafe_bytes()),
        generation: Box::new(move || *tenure.generations().borrow()),
        beat_age: Box::new(move || {
            let now = Instant::now();
            beats.tenure.echo_age(now).unwrap_or(now - started)
        }),
        subscription: Box::new(move || heard.backplane.subscription()),
        draining: Box::new(move || admission.is_leaving()),
    }
}
