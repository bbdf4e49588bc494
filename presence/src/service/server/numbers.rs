//! The numbers that only the store knows, asked for at each scrape: who is online, how the leases stand, how Redis is.
//!
//! Any presence process shows them, and all show the same: dashboards take the highest. While Redis does not answer they
//! are left out, since an old number would be believed. Reads only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::Registry as Shown;
use tokio::time::timeout;

use crate::host::admin::BeforeScrape;
use crate::host::metrics::{Pulled, Rises};
use crate::registry::{ClusterStats, Lease, LeaseState, Registry};
use crate::store::redis::{RedisStore, Vitals};

/// How long a scrape waits for the store. Well under the time that Prometheus gives a scrape.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the store answered at the newest scrape.
#[derive(Debug, Default)]
struct Answers {
    stats: Option<ClusterStats>,
    leases: Option<Vec<Lease>>,
    vitals: Option<Vitals>,
}

/// Adds the numbers to `shown` and answers with what looks them up.
pub(super) fn numbers(shown: &Shown, registry: Registry, redis: RedisStore) -> BeforeScrape {
    let answers = Arc::<Mutex<Answers>>::default();
    show_cluster(shown, &answers);
    show_redis(shown, &answers);
    Arc::new(move || {
        let (answers, registry, redis) = (Arc::clone(&answers), registry.clone(), redis.clone());
        Box::pin(async move {
            let asked = async {
                let (stats, leases, vitals) = tokio::join!(registry.stats(), registry.leases(), redis.vitals());
                Answers { stats: stats.ok(), leases: leases.ok().map(|table| table.leases), vitals: vitals.ok() }
            };
            let answered = timeout(PATIENCE, asked).await.unwrap_or_default();
            *lock(&answers) = answered;
        })
    })
}

fn show_cluster(shown: &Shown, answers: &Arc<Mutex<Answers>>) {
    let stat = |name, help, of: fn(&ClusterStats) -> u64| {
        let answers = Arc::clone(answers);
        Pulled::register(shown, Rises::No, name, help, move || lock(&answers).stats.as_ref().map(|s| of(s) as f64));
    };
    stat("parley_users_online", "Nicknames online in the whole cluster.", |stats| stats.users_online);
    stat("parley_rooms_with_members", "Rooms with members in the whole cluster.", |stats| stats.rooms);

    let states = [LeaseState::Live, LeaseState::Draining, LeaseState::Drained, LeaseState::Fenced];
    let count = |state: LeaseState| {
        let answers = Arc::clone(answers);
        let count = move || {
            let answers = lock(&answers);
            let leases = answers.leases.as_ref()?;
            Some(leases.iter().filter(|lease| lease.state == state).count() as f64)
        };
        (state.as_str(), count)
    };
    let help = "Rows of the lease table; one that ended is kept for about an hour.";
    Pulled::register_each(shown, "parley_leases", help, "state", states.map(count));
}

fn show_redis(shown: &Shown, answers: &Arc<Mutex<Answers>>) {
    let up = Arc::clone(answers);
    let is_up = move || Some(f64::from(u8::from(lock(&up).vitals.is_some())));
    Pulled::register(shown, Rises::No, "parley_redis_up", "1 when Redis answered at this scrape.", is_up);

    let vital = |rises, name, help, of: fn(&Vitals) -> Option<f64>| {
        let answers = Arc::clone(answers);
        Pulled::register(shown, rises, name, help, move || lock(&answers).vitals.as_ref().and_then(of));
    };
    vital(Rises::No, "parley_redis_memory_used_bytes", "What Redis uses.", |redis| redis.memory_used);
    vital(
        Rises::No,
        "parley_redis_memory_limit_bytes",
        "What Redis may use: maxmemory, or all of its machine when that is not set.",
        |redis| redis.memory_limit,
    );
    vital(Rises::No, "parley_redis_evicts", "1 when the maxmemory-policy of Redis takes keys away.", |redis| {
        redis.evicts
    });
    vital(Rises::Only, "parley_redis_evicted_keys_total", "Keys that Redis took away since it started.", |redis| {
        redis.evicted_keys
    });
    vital(
        Rises::No,
        "parley_redis_append_only_ok",
        "1 while the append-only file of Redis is on and its last write went well.",
        |redis| redis.append_only_ok,
    );
    vital(Rises::No, "parley_redis_clients", "Connections to Redis.", |redis| redis.clients);
    vital(Rises::Only, "parley_redis_commands_total", "Commands that Redis processed since it started.", |redis| {
        redis.commands
    });
    vital(Rises::No, "parley_redis_uptime_seconds", "Since Redis started.", |redis| redis.uptime);
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    // Replaced as a whole.
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}
