//! Metrics that only the store knows, read at each scrape: cluster totals, leases, and the state of Redis.
//!
//! Every presence process exports the same values, so dashboards take the maximum. While Redis does not answer, the
//! values are left out, since a stale number would mislead. It only reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::Registry as MetricsRegistry;
use tokio::time::timeout;

use crate::host::admin::BeforeScrape;
use crate::host::metrics::Pulled;
use crate::registry::{ClusterStats, LargestStreams, Lease, LeaseState, RedisRegistry, Registry};
use crate::store::redis::{RedisStore, Vitals};

/// Time limit for the store's snapshot; well below the scrape timeout of Prometheus.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers of the store at the newest scrape.
#[derive(Debug, Default)]
struct StoreSnapshot {
    stats: Option<ClusterStats>,
    leases: Option<Vec<Lease>>,
    vitals: Option<Vitals>,
    largest: Option<LargestStreams>,
}

/// Registers the metrics and returns the hook that refreshes them before each scrape.
pub(super) fn register(metrics: &MetricsRegistry, store: RedisRegistry, redis: RedisStore) -> BeforeScrape {
    let snapshot = Arc::<Mutex<StoreSnapshot>>::default();
    register_cluster(metrics, &snapshot);
    register_redis(metrics, &snapshot);
    register_streams(metrics, &snapshot);
    let registry = Registry::Redis(store.clone());
    Arc::new(move || {
        let (snapshot, store, registry, redis) =
            (Arc::clone(&snapshot), store.clone(), registry.clone(), redis.clone());
        Box::pin(async move {
            let answers = async {
                let (stats, leases, vitals, largest) =
                    tokio::join!(registry.stats(), registry.leases(), redis.vitals(), store.largest_streams(0));
                let leases = leases.ok().map(|table| table.leases);
                StoreSnapshot { stats: stats.ok(), leases, vitals: vitals.ok(), largest: largest.ok() }
            };
            let answered = timeout(STORE_TIMEOUT, answers).await.unwrap_or_default();
            *lock(&snapshot) = answered;
        })
    })
}

fn register_cluster(metrics: &MetricsRegistry, snapshot: &Arc<Mutex<StoreSnapshot>>) {
    let stat = |name, help, of: fn(&ClusterStats) -> u64| {
        let snapshot = Arc::clone(snapshot);
        Pulled::gauge(metrics, name, help, move || lock(&snapshot).stats.as_ref().map(|s| of(s) as f64));
    };
    stat("parley_users_online", "Nicknames online in the whole cluster.", |stats| stats.users_online);
    stat("parley_rooms_with_members", "Rooms with members in the whole cluster.", |stats| stats.rooms);

    let states = [LeaseState::Live, LeaseState::Draining, LeaseState::Drained, LeaseState::Fenced];
    let count = |state: LeaseState| {
        let snapshot = Arc::clone(snapshot);
        let count = move || {
            let snapshot = lock(&snapshot);
            let leases = snapshot.leases.as_ref()?;
            Some(leases.iter().filter(|lease| lease.state == state).count() as f64)
        };
        (state.as_str(), count)
    };
    let help = "Leases by state. A lease that ended is kept for about an hour.";
    Pulled::gauges(metrics, "parley_leases", help, ("state", states.map(count)));
}

fn register_redis(metrics: &MetricsRegistry, snapshot: &Arc<Mutex<StoreSnapshot>>) {
    let up = Arc::clone(snapshot);
    let is_up = move || Some(f64::from(u8::from(lock(&up).vitals.is_some())));
    Pulled::gauge(metrics, "parley_redis_up", "1 if Redis answered at this scrape.", is_up);

    let source = |value: fn(&Vitals) -> Option<f64>| {
        let snapshot = Arc::clone(snapshot);
        move || lock(&snapshot).vitals.as_ref().and_then(value)
    };
    let gauge = |name, help, value| Pulled::gauge(metrics, name, help, source(value));
    gauge("parley_redis_memory_used_bytes", "Memory used by Redis.", |redis| redis.memory_used);
    let help = "Memory limit of Redis: maxmemory, or the memory of its machine if that is not set.";
    gauge("parley_redis_memory_limit_bytes", help, |redis| redis.memory_limit);
    gauge("parley_redis_evicts", "1 if the maxmemory-policy of Redis evicts keys.", |redis| redis.evicts);
    let help = "1 if the append-only file of Redis is on and its last write succeeded.";
    gauge("parley_redis_append_only_ok", help, |redis| redis.append_only_ok);
    gauge("parley_redis_clients", "Connections to Redis.", |redis| redis.clients);
    gauge("parley_redis_uptime_seconds", "Seconds since Redis started.", |redis| redis.uptime);

    let counter = |name, help, value| Pulled::counter(metrics, name, help, source(value));
    counter("parley_redis_evicted_keys_total", "Keys evicted by Redis since it started.", |redis| redis.evicted_keys);
    counter("parley_redis_commands_total", "Commands processed by Redis since it started.", |redis| redis.commands);
}

fn register_streams(metrics: &MetricsRegistry, snapshot: &Arc<Mutex<StoreSnapshot>>) {
    let source = |kind, value: fn(&LargestStreams) -> u64| {
        let snapshot = Arc::clone(snapshot);
        (kind, move || lock(&snapshot).largest.as_ref().map(|streams| value(streams) as f64))
    };
    let largest = [source("room", |all| all.rooms.largest), source("inbox", |all| all.inboxes.largest)];
    let help = "Bytes of the messages in the largest room and in the largest inbox.";
    Pulled::gauges(metrics, "parley_largest_log_bytes", help, ("kind", largest));
    let listed = [source("room", |all| all.rooms.total), source("inbox", |all| all.inboxes.total)];
    let help = "Bytes of the messages in the 100 largest rooms and inboxes together.";
    Pulled::gauges(metrics, "parley_listed_log_bytes", help, ("kind", listed));
}

fn lock(snapshot: &Mutex<StoreSnapshot>) -> MutexGuard<'_, StoreSnapshot> {
    // A snapshot is replaced as a whole, so a panic elsewhere does not spoil it.
    snapshot.lock().unwrap_or_else(PoisonError::into_inner)
}
