//! Metrics that only the store knows, read at each scrape: cluster totals, leases, and the state of Redis.
//!
//! Every presence process exports the same values, so dashboards take the maximum. While Redis does not answer, the
//! values are left out, since a stale number would be believed. It only reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::Registry as MetricsRegistry;
use tokio::time::timeout;

use crate::host::admin::BeforeScrape;
use crate::host::metrics::{Pulled, Rises};
use crate::registry::{ClusterStats, Lease, LeaseState, Registry};
use crate::store::redis::{RedisStore, Vitals};

/// Time limit for the store's snapshot; well below the scrape timeout of Prometheus.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers of the store at the newest scrape.
#[derive(Debug, Default)]
struct StoreSnapshot {
    stats: Option<ClusterStats>,
    leases: Option<Vec<Lease>>,
    vitals: Option<Vitals>,
}

/// Registers the metrics and returns the hook that refreshes them before each scrape.
pub(super) fn register(metrics: &MetricsRegistry, registry: Registry, redis: RedisStore) -> BeforeScrape {
    let snapshot = Arc::<Mutex<StoreSnapshot>>::default();
    register_cluster(metrics, &snapshot);
    register_redis(metrics, &snapshot);
    Arc::new(move || {
        let (snapshot, registry, redis) = (Arc::clone(&snapshot), registry.clone(), redis.clone());
        Box::pin(async move {
            let answers = async {
                let (stats, leases, vitals) = tokio::join!(registry.stats(), registry.leases(), redis.vitals());
                StoreSnapshot { stats: stats.ok(), leases: leases.ok().map(|table| table.leases), vitals: vitals.ok() }
            };
            let answered = timeout(STORE_TIMEOUT, answers).await.unwrap_or_default();
            *lock(&snapshot) = answered;
        })
    })
}

fn register_cluster(metrics: &MetricsRegistry, snapshot: &Arc<Mutex<StoreSnapshot>>) {
    let stat = |name, help, of: fn(&ClusterStats) -> u64| {
        let snapshot = Arc::clone(snapshot);
        Pulled::register(metrics, Rises::No, name, help, move || lock(&snapshot).stats.as_ref().map(|s| of(s) as f64));
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
    Pulled::register_each(metrics, "parley_leases", help, "state", states.map(count));
}

fn register_redis(metrics: &MetricsRegistry, snapshot: &Arc<Mutex<StoreSnapshot>>) {
    let up = Arc::clone(snapshot);
    let is_up = move || Some(f64::from(u8::from(lock(&up).vitals.is_some())));
    Pulled::register(metrics, Rises::No, "parley_redis_up", "1 if Redis answered at this scrape.", is_up);

    let vital = |rises, name, help, of: fn(&Vitals) -> Option<f64>| {
        let snapshot = Arc::clone(snapshot);
        Pulled::register(metrics, rises, name, help, move || lock(&snapshot).vitals.as_ref().and_then(of));
    };
    vital(Rises::No, "parley_redis_memory_used_bytes", "Memory used by Redis.", |redis| redis.memory_used);
    vital(
        Rises::No,
        "parley_redis_memory_limit_bytes",
        "Memory limit of Redis: maxmemory, or the memory of its machine if that is not set.",
        |redis| redis.memory_limit,
    );
    vital(Rises::No, "parley_redis_evicts", "1 if the maxmemory-policy of Redis evicts keys.", |redis| redis.evicts);
    vital(Rises::Only, "parley_redis_evicted_keys_total", "Keys evicted by Redis since it started.", |redis| {
        redis.evicted_keys
    });
    vital(
        Rises::No,
        "parley_redis_append_only_ok",
        "1 if the append-only file of Redis is on and its last write succeeded.",
        |redis| redis.append_only_ok,
    );
    vital(Rises::No, "parley_redis_clients", "Connections to Redis.", |redis| redis.clients);
    vital(Rises::Only, "parley_redis_commands_total", "Commands processed by Redis since it started.", |redis| {
        redis.commands
    });
    vital(Rises::No, "parley_redis_uptime_seconds", "Seconds since Redis started.", |redis| redis.uptime);
}

fn lock(snapshot: &Mutex<StoreSnapshot>) -> MutexGuard<'_, StoreSnapshot> {
    // A snapshot is replaced as a whole, so a panic elsewhere does not spoil it.
    snapshot.lock().unwrap_or_else(PoisonError::into_inner)
}
