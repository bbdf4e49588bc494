//! The composition root of a gateway: it connects the parts and starts their tasks. It decides nothing.
//!
//! [`Gateway::start`] binds the listeners and starts every task, top to bottom; [`Gateway::drain`] ends them in order.
//! Background tasks end with the [`Gateway`]. Connections run on a tracker of their own, so that a drain can wait for
//! them.

mod api;
mod at_scrape;
mod drain;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use presence::host::loop_lag;
use presence::host::reloadable::Reloadable;
use presence::lease::node_id::{self, NodeIdConflict};
use presence::lease::{LeaseHealth, OwnLease, StoreReasons};
use presence::model::{Incarnation, Retention, RoomPolicies};
use presence::registry::{GatewayInfo, HoldTerms, MemoryRegistry, RedisRegistry, Registry};
use presence::store::memory::Store;
use presence::store::redis::RedisStore;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admin::AdminEndpoint;
use crate::backplane::{Backplane, DeliverySink, MemoryBackplane, RedisBackplane, RedisBackplaneSettings};
use crate::config::GatewayConfig;
use crate::hooks::ApplicationHooks;
use crate::hub::Hub;
use crate::hub::refill;
use crate::identity::IdentityGate;
use crate::lease::{
    DeliveryRouter, LeaseContext, LocalClaims, SessionOrders, StopRequest, expiry, failure_detector, lifecycle,
    sanctions,
};
use crate::listen::{
    Admission, ConnectionContext, ConnectionDrain, ConnectionLimits, ConnectionParts, Listeners, ServerCertificate,
    TlsTermination,
};
use crate::metrics::{ListenerKind, Metrics};
use crate::outbound::reply_budget::ReplyBudget;
use crate::quota::{QuotaLimits, Quotas};
use crate::sanctions::ClusterSanctions;
use crate::session::{Driver, SendRates, Services, SessionLimits, removed_keys};
use crate::wire::Dialect;

use self::api::EmbeddedServices;
use self::at_scrape::at_scrape;

pub use presence::host::program::Drained;

/// Listening addresses of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayAddresses {
    /// HTTP, with `/ws`.
    pub ws: SocketAddr,
    /// Text lines.
    pub tcp: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`, `/holdings`.
    pub admin: SocketAddr,
    /// The server API; `None` if it is not set, and with Redis.
    pub api: Option<SocketAddr>,
}

/// A running gateway. Dropping it ends every task at once; [`Gateway::drain`] ends it in order.
#[derive(Debug)]
pub struct Gateway {
    addresses: GatewayAddresses,
    lease: Arc<LeaseContext>,
    hub: Arc<Hub>,
    hold: Duration,
    connections: Connections,
    reloadable: ReloadableSettings,
    embedded: EmbeddedServices,
    /// Stops the lease loop.
    lease_loop: CancellationToken,
    /// Stops the expiry of detached sessions.
    expiry: CancellationToken,
    /// Stops every background task, lease loop and expiry included.
    background: DropGuard,
}

/// Handles on the client connections.
#[derive(Debug)]
struct Connections {
    admission: Arc<Admission>,
    drain: Arc<ConnectionDrain>,
    /// Closes the listeners.
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Settings that a reload changes while the gateway runs.
#[derive(Debug)]
struct ReloadableSettings {
    limits: Reloadable<ConnectionLimits>,
    retention: Reloadable<Retention>,
    rooms: Reloadable<RoomPolicies>,
    room_bytes_per_second: Reloadable<u64>,
    session_limits: Reloadable<SessionLimits>,
    quota_limits: Reloadable<Arc<QuotaLimits>>,
    identity: IdentityGate,
    hooks: Arc<ApplicationHooks>,
    certificate: Reloadable<Option<ServerCertificate>>,
}

/// Access to the cluster's store, with the results of the checks before the start.
#[derive(Debug)]
struct ClusterAccess {
    registry: Registry,
    retention: Reloadable<Retention>,
    rooms: Reloadable<RoomPolicies>,
    /// The address from which this process reaches Redis, to be advertised if the admin listener binds every interface.
    outbound_ip: Option<IpAddr>,
    /// Earlier incarnations of this node; `None` if the store could not be asked.
    former: Option<Vec<Incarnation>>,
    /// The store's own reasons against readiness.
    reasons: StoreReasons,
}

/// The bound listeners of a gateway.
struct BoundListeners {
    clients: Listeners,
    admin: TcpListener,
    api: Option<TcpListener>,
    addresses: GatewayAddresses,
}

impl Gateway {
    /// Starts a gateway. Its listeners are bound when this returns; clients are admitted once it is ready. If Redis is
    /// unreachable, the gateway starts not ready and connects later.
    ///
    /// # Errors
    /// An address cannot be bound, the Redis URL is invalid, Redis is unfit, or another live gateway has this node id.
    pub async fn start(config: GatewayConfig) -> anyhow::Result<Self> {
        let Some(url) = &config.redis else {
            let retention = Reloadable::from(config.history);
            let store = Store::with_retention(retention.clone());
            return Self::assemble_on(&config, retention, &store).await;
        };
        let redis = RedisStore::open_with(url.reveal(), &config.redis_tls, &config.prefix).context("use redis.url")?;
        let is_reachable = redis.is_fit().await?;
        let cluster = ClusterAccess::check(&redis, &config, is_reachable).await?;
        let settings = RedisBackplaneSettings {
            retention: cluster.retention.clone(),
            rooms: cluster.rooms.clone(),
            republish_bytes: config.republish_bytes,
        };
        let backplane = |sink| Backplane::Redis(RedisBackplane::start(redis.clone(), settings, sink));
        let gateway = Self::assemble(&config, cluster, backplane).await?;
        redis.register_metrics(gateway.metrics());
        spawn(&gateway.lease_loop, redis.watch());
        Ok(gateway)
    }

    /// Starts a gateway on a memory store, whose retention is its own. Several gateways on one store are a cluster in
    /// one process.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start_on(config: &GatewayConfig, store: &Store) -> anyhow::Result<Self> {
        Self::assemble_on(config, Reloadable::from(config.history), store).await
    }

    async fn assemble_on(
        config: &GatewayConfig,
        retention: Reloadable<Retention>,
        store: &Store,
    ) -> anyhow::Result<Self> {
        let rooms = Reloadable::from(config.rooms.clone());
        let registry = MemoryRegistry::new(store.clone()).with_lookalikes(config.lookalikes);
        let registry = Registry::Memory(registry.with_room_policies(rooms.clone()));
        let (outbound_ip, former, reasons) = (None, None, StoreReasons::default());
        let cluster = ClusterAccess { registry, retention, rooms, outbound_ip, former, reasons };
        Self::assemble(config, cluster, |sink| Backplane::Memory(MemoryBackplane::start(store.clone(), sink))).await
    }

    async fn assemble(
        config: &GatewayConfig,
        ClusterAccess { registry, retention, rooms, outbound_ip, former, reasons }: ClusterAccess,
        start_backplane: impl FnOnce(DeliverySink) -> Backplane,
    ) -> anyhow::Result<Self> {
        let listeners = BoundListeners::bind(config).await?;
        let addresses = listeners.addresses;

        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(metrics.counts.clone()));
        let quota_limits = Reloadable::from(Arc::new(config.quota_limits()));
        let quotas = Arc::new(Quotas::new(&config.prefix, quota_limits.clone()));
        let bans = Arc::new(ClusterSanctions::new(config.logs.addresses));
        let lease = connect_lease((registry, reasons), (&hub, &quotas, &bans), &metrics, start_backplane);
        let (entries, lag) = (Arc::clone(&bans), bans);
        metrics.pull_sanctions(move || entries.entries(), move || lag.lag());
        let admission = Arc::new(Admission::new({
            let lease = Arc::clone(&lease);
            move || lease.reasons().is_empty()
        }));
        metrics.at_scrape(at_scrape(&lease, &hub, &admission));

        let info = gateway_info(config, &addresses, outbound_ip);
        let first = OwnLease::new(lease.registry.clone(), Arc::clone(&lease.health), info);
        let is_open = lifecycle::open_first(&first, former.as_deref()).await?;

        let background = CancellationToken::new();
        let (lease_loop, expiry) = (background.child_token(), background.child_token());
        spawn(&lease_loop, lifecycle::run(Arc::clone(&lease), first, is_open));
        spawn(&expiry, expiry::run(Arc::clone(&lease)));
        spawn(&background, sanctions::run(Arc::clone(&lease)));
        spawn(&background, failure_detector::run(Arc::clone(&lease)));
        spawn(&background, republish(Arc::clone(&lease)));
        spawn_hub_tasks(&background, &hub, &lease);
        spawn(&background, loop_lag::watch(metrics.registry.clone()));
        let (node, ready) = (config.node.as_str().into(), Arc::clone(&admission));
        let admin = AdminEndpoint { node, lease: Arc::clone(&lease), admission: ready };
        tokio::spawn(admin.serve(listeners.admin, background.clone()));

        let room_bytes_per_second = Reloadable::from(config.room_bytes_per_second);
        let session_limits = Reloadable::from(config.session_limits);
        let identity = IdentityGate::new(&config.auth);
        let rates = (room_bytes_per_second.clone(), session_limits.clone());
        let services = session_services(config, (&lease, &hub), rates, identity.clone());
        let hooks = Arc::clone(&services.hooks);
        spawn(&background, removed_keys::end_sessions(Arc::clone(&services)));
        spawn(&background, {
            let identity = identity.clone();
            async move { identity.keep_keys_fresh().await }
        });
        let embedded = EmbeddedServices::start(config, listeners.api, &lease.registry, &metrics.registry).await?;
        let limits = Reloadable::from(config.limits.clone().within(embedded.client_descriptors()));
        lease.metrics.pull_connection_limit({
            let limits = limits.clone();
            move || limits.get().connections
        });
        let connections = Connections {
            admission,
            drain: Arc::new(ConnectionDrain::default()),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let certificate = Reloadable::from(config.certificate.clone());
        let tls = TlsTermination::new(certificate.clone()).context("prepare TLS")?;
        listeners.clients.serve(&connections.context(services, limits.clone(), tls));

        let reloadable = ReloadableSettings {
            limits,
            retention,
            rooms,
            room_bytes_per_second,
            session_limits,
            quota_limits,
            identity,
            hooks,
            certificate,
        };
        let background = background.drop_guard();
        Ok(Self {
            addresses,
            lease,
            hub,
            hold: config.hold,
            connections,
            reloadable,
            embedded,
            lease_loop,
            expiry,
            background,
        })
    }

    /// Returns the bound addresses.
    #[must_use]
    pub fn addresses(&self) -> GatewayAddresses {
        self.addresses
    }

    /// Returns the metrics registry.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.lease.metrics.registry
    }

    /// Waits for an operator's drain order, which arrives through the store, or for a failure of the server API. The
    /// gateway serves until [`Gateway::drain`] is called. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The gateway started while Redis was away, and another live gateway has its node id. It has served no client.
    pub async fn stop_requested(&self) -> Result<(), NodeIdConflict> {
        tokio::select! {
            requested = self.lease.stop.requested() => requested,
            () = self.embedded.api_failed() => Ok(()),
        }
    }

    /// Applies limits of connections, sessions, addresses, users and rooms, rules of rooms, allowed origins, retention,
    /// mode and keys of tokens, hooks, keys and origins of the server API, and the certificate of the client ports.
    /// Every other setting of `config` is ignored.
    pub fn reload(&self, config: &GatewayConfig) {
        self.embedded.reload(&config.api);
        self.reloadable.limits.set(config.limits.clone().within(self.embedded.client_descriptors()));
        self.reloadable.retention.set(config.history);
        self.reloadable.rooms.set(config.rooms.clone());
        self.reloadable.room_bytes_per_second.set(config.room_bytes_per_second);
        self.reloadable.session_limits.set(config.session_limits);
        self.reloadable.quota_limits.set(Arc::new(config.quota_limits()));
        self.reloadable.identity.reload(&config.auth);
        self.reloadable.hooks.reload(&config.hooks);
        if self.reloadable.certificate.get() != config.certificate {
            self.reloadable.certificate.set(config.certificate.clone());
            tracing::info!("certificate of the client ports replaced");
        }
    }
}

impl ClusterAccess {
    async fn check(redis: &RedisStore, config: &GatewayConfig, is_reachable: bool) -> anyhow::Result<Self> {
        let rooms = Reloadable::from(config.rooms.clone());
        let registry = RedisRegistry::new(redis.clone()).with_lookalikes(config.lookalikes);
        let registry = Registry::Redis(registry.with_room_policies(rooms.clone()));
        let checked = if is_reachable { node_id::check_node_id(&registry, &config.node).await.ok() } else { None };
        // Other hosts can reach the local address of the route to Redis, so it is advertised.
        let outbound_ip = if config.admin.ip().is_unspecified() { redis.local_ip().await } else { None };
        let store = redis.clone();
        let reasons = StoreReasons::new(move || store.reasons());
        let (retention, former) = (Reloadable::from(config.history), checked.transpose()?);
        Ok(Self { registry, retention, rooms, outbound_ip, former, reasons })
    }
}

impl BoundListeners {
    async fn bind(config: &GatewayConfig) -> anyhow::Result<Self> {
        let clients = Listeners::bind(config.ws, config.tcp)?;
        let admin =
            TcpListener::bind(config.admin).await.with_context(|| format!("bind admin.addr {}", config.admin))?;
        let api = api::bind(config.api.address).await?;
        let addresses = GatewayAddresses {
            ws: clients.local_addr(ListenerKind::Ws)?,
            tcp: clients.local_addr(ListenerKind::Tcp)?,
            admin: admin.local_addr()?,
            api: api.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        Ok(Self { clients, admin, api, addresses })
    }
}

impl Connections {
    /// Creates the context of every connection, which opens a session on `services` for each.
    fn context(
        &self,
        services: Arc<Services>,
        limits: Reloadable<ConnectionLimits>,
        tls: TlsTermination,
    ) -> Arc<ConnectionContext<Driver>> {
        let session_limits = limits.clone();
        ConnectionContext::new(ConnectionParts {
            metrics: Arc::clone(&services.metrics),
            quotas: Arc::clone(&services.quotas),
            sanctions: Arc::clone(&services.sanctions),
            log_addresses: services.log_addresses,
            open_session: move |dialect: Dialect, quota| {
                let limits = session_limits.get();
                let sign_within = if dialect.is_line() { limits.line_sign } else { limits.proxy_idle };
                Driver::new(&services, dialect, sign_within).of_address(quota)
            },
            admission: Arc::clone(&self.admission),
            limits,
            tls,
            closing: self.closing.clone(),
            drain: Arc::clone(&self.drain),
            tasks: self.tasks.clone(),
        })
    }
}

/// Connects lease, hub and backplane: the backplane's deliveries reach both others through a [`DeliveryRouter`].
fn connect_lease(
    (registry, store): (Registry, StoreReasons),
    (hub, quotas, sanctions): (&Arc<Hub>, &Arc<Quotas>, &Arc<ClusterSanctions>),
    metrics: &Arc<Metrics>,
    start_backplane: impl FnOnce(DeliverySink) -> Backplane,
) -> Arc<LeaseContext> {
    let (health, claims) = (Arc::new(LeaseHealth::default()), Arc::new(LocalClaims::default()));
    let orders = SessionOrders::new(Arc::clone(hub), Arc::clone(&claims));
    let router = DeliveryRouter {
        hub: Arc::clone(hub),
        health: Arc::clone(&health),
        orders: orders.clone(),
        sanctions: Arc::clone(sanctions),
        metrics: Arc::clone(metrics),
    };
    Arc::new(LeaseContext {
        registry,
        backplane: start_backplane(Arc::new(router)),
        health,
        claims,
        quotas: Arc::clone(quotas),
        sanctions: Arc::clone(sanctions),
        orders,
        samples: watch::Sender::new(None),
        stop: StopRequest::default(),
        metrics: Arc::clone(metrics),
        store,
    })
}

fn session_services(
    config: &GatewayConfig,
    (lease, hub): (&LeaseContext, &Arc<Hub>),
    (room_bytes_per_second, session_limits): (Reloadable<u64>, Reloadable<SessionLimits>),
    identity: IdentityGate,
) -> Arc<Services> {
    let replies = ReplyBudget::new(config.reply_bytes);
    let budget = replies.clone();
    lease.metrics.pull_replies(move || budget.reserved_bytes());
    Arc::new(Services {
        node: config.node.as_str().into(),
        identity,
        registry: lease.registry.clone(),
        backplane: lease.backplane.clone(),
        hub: Arc::clone(hub),
        claims: Arc::clone(&lease.claims),
        sanctions: Arc::clone(&lease.sanctions),
        hooks: Arc::new(ApplicationHooks::new(&config.node, &config.hooks, &lease.metrics.registry)),
        hold: HoldTerms { hold: config.hold, after: config.hold_after },
        health: Arc::clone(&lease.health),
        replies,
        session_limits,
        quotas: Arc::clone(&lease.quotas),
        log_addresses: config.logs.addresses,
        send_rates: SendRates::new(room_bytes_per_second),
        metrics: Arc::clone(&lease.metrics),
    })
}

fn gateway_info(config: &GatewayConfig, addresses: &GatewayAddresses, outbound_ip: Option<IpAddr>) -> GatewayInfo {
    let admin = SocketAddr::new(outbound_ip.unwrap_or(addresses.admin.ip()), addresses.admin.port());
    GatewayInfo {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ws: addresses.ws.to_string(),
        tcp: addresses.tcp.to_string(),
        admin: admin.to_string(),
    }
}

/// Runs a task until it ends or `part` is cancelled.
fn spawn(part: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let cancelled = part.clone().cancelled_owned();
    tokio::spawn(async move {
        tokio::select! {
            // Checked first, so that a cancelled task takes no further step.
            biased;
            () = cancelled => {}
            () = task => {}
        }
    });
}

/// Starts fan-out on every worker thread, the presence events, and the refill of streams.
fn spawn_hub_tasks(background: &CancellationToken, hub: &Arc<Hub>, lease: &LeaseContext) {
    for _ in 0..Handle::current().metrics().num_workers() {
        let hub = Arc::clone(hub);
        spawn(background, async move { hub.fan_out().await });
    }
    let presence_hub = Arc::clone(hub);
    spawn(background, async move { presence_hub.flush_presence_periodically().await });
    spawn(background, refill::run(Arc::clone(hub), lease.backplane.clone(), lease.health.generations()));
}

async fn republish(lease: Arc<LeaseContext>) {
    lease.backplane.republish(|messages| lease.metrics.republished.inc_by(messages)).await;
}
