//! How Parley talks to Redis: one place that knows connection settings, what an error means, and how a script is called.
//!
//! Used by the `redis` arms of registry and backplane only. Hot-path scripts go over a few multiplexed connections that
//! reconnect by themselves and are shared by cloning; queries of the HTTP API check connections out of a pool, so that
//! a big listing never stands in front of a message. Nothing here knows what a key means.

mod calls;
mod fitness;
mod server;
mod vitals;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::{Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind,
};

use tokio::net::UdpSocket;

pub use self::calls::{Call, Calls};
pub use self::fitness::Unfit;
pub use self::server::Server;
pub use self::vitals::Vitals;
use crate::model::keys::{Keys, Unit, UnitKey};
use crate::registry::RegistryError;

/// Multiplexed connections for scripts. A session keeps to one, so its writes stay in order.
const LANES: usize = 2;
/// Connections of the query pool.
const POOL_SIZE: usize = 8;
/// How long a script may take before its outcome counts as unknown. Above the worst pause of a healthy Redis.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call may take in all: waiting for a connection, then for the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest pause between two attempts to reconnect.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Commands that may wait for one connection's writer before callers wait themselves.
const PIPELINE: usize = 1024;

/// The part of a script that knows which generation of the store it is in.
pub const GENERATION: &str = include_str!("../../registry/script/generation.lua");
/// The part of a script that knows how a log is counted; `touch` in it is the one way to a log's epoch.
pub const LOG: &str = include_str!("../../registry/script/stream.lua");

impl<U: Unit> redis::ToRedisArgs for UnitKey<U> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        self.as_str().write_redis_args(out);
    }
}

impl<U: Unit> redis::ToSingleRedisArg for UnitKey<U> {}

/// A deployment's Redis: where it is, and our connections to it. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    lanes: [ConnectionManager; LANES],
    pool: Pool,
    keys: Keys,
    calls: Calls,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("keys", self.keys()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares connections to `url` (`redis://...`); they are made when first used, so an unreachable Redis is no error.
    ///
    /// Needs a running tokio runtime.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub fn open(url: &str, prefix: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        // Without a name of the library in CLIENT LIST, our user needs no right to CLIENT.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        let client = Client::open(info.clone())?;
        let lane = || ConnectionManager::new_lazy_with_config(client.clone(), lane_config());
        let manager = Manager::new_with_config(info, connection_config())?;
        let mut pool = PoolConfig::new(POOL_SIZE);
        pool.timeouts =
            Timeouts { wait: Some(RESPONSE_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(RESPONSE_TIMEOUT) };
        let pool = Pool::builder(manager)
            .config(pool)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::from((ErrorKind::InvalidClientConfig, "pool", error.to_string())))?;
        let shared =
            Shared { lanes: [lane()?, lane()?], client, pool, keys: Keys::new(prefix), calls: Calls::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The connection for scripts about `name` (a session, a room): always the same one, so their order holds.
    #[must_use]
    pub fn lane(&self, name: &str) -> ConnectionManager {
        let hash = name.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.shared.lanes[hash % LANES].clone()
    }

    /// A connection of the query pool.
    ///
    /// # Errors
    /// `Unavailable` when none could be had in time.
    pub async fn query(&self) -> Result<deadpool_redis::Connection, RegistryError> {
        let began = Instant::now();
        let connection = self.shared.pool.get().await;
        self.shared.calls.took(Call::Connect, began, connection.is_err());
        connection.map_err(|error| {
            // What the pool was doing is of no interest to anybody.
            let reason = if let PoolError::Backend(error) = &error { error.to_string() } else { error.to_string() };
            RegistryError::Unavailable(reason)
        })
    }

    /// For connections that live apart: subscriptions and blocking reads.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The address of this machine that Redis is reached from, as far as the routes tell: nothing is sent. `None` when the
    /// name of Redis is not known, or not within a second.
    pub async fn facing(&self) -> Option<IpAddr> {
        let ConnectionAddr::Tcp(host, port) = self.shared.client.get_connection_info().addr() else { return None };
        let facing = async {
            let redis = tokio::net::lookup_host((host.as_str(), *port)).await?.next();
            let redis = redis.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let any: IpAddr = if redis.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(redis).await?;
            Ok::<_, std::io::Error>(socket.local_addr()?.ip())
        };
        tokio::time::timeout(Duration::from_secs(1), facing).await.ok()?.ok()
    }

    /// How its calls did: what is counted of them.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.shared.calls
    }

    /// Waits for the answer to one call as [`settle`] does, and counts it under its kind.
    ///
    /// # Errors
    /// See [`settle`].
    pub async fn timed<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        self.shared.calls.count(call, settle(answer)).await
    }

    /// The names of keys and channels.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }
}

/// Checks, without connecting, that `url` is one that [`Redis::open`] understands.
///
/// # Errors
/// What is wrong with it; the text does not repeat the URL, which may hold a password.
pub fn check_url(url: &str) -> Result<(), RedisError> {
    url.into_connection_info().map(drop)
}

/// Settings for a connection of one's own: as on the hot path, timeouts and pushes are the caller's to change.
#[must_use]
pub fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(PIPELINE)
}

fn lane_config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(MAX_BACKOFF)
        .set_number_of_retries(usize::MAX)
        .set_pipeline_buffer_size(PIPELINE)
}

/// redis 1.x leaves Nagle on and keepalive off; both are wrong for us (40 ms tails, half-open peers unseen).
fn tcp_settings() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(Duration::from_secs(10))
}

/// Sorts an error of the client library: a refusal means that nothing was done, a lost answer that nobody knows.
///
/// Every script validates before its first write and the ones that grow memory refuse whole, so an error that the
/// server answered with is a refusal.
#[must_use]
pub fn classify(error: &RedisError) -> RegistryError {
    let refused = match error.kind() {
        ErrorKind::Server(ServerErrorKind::ExecAbort) => false,
        ErrorKind::Server(_)
        | ErrorKind::Extension
        | ErrorKind::InvalidClientConfig
        | ErrorKind::AuthenticationFailed => true,
        _ => error.is_connection_refusal(),
    };
    if refused { RegistryError::Unavailable(error.to_string()) } else { RegistryError::Unknown(error.to_string()) }
}

/// Waits for the answer to one call and sorts its error.
///
/// A lane that lost its connection makes its callers wait for the next one for as long as that takes; here they get an
/// answer in the end. Dropping the future may leave the command done or not.
///
/// # Errors
/// `Unknown` when no answer came within `CALL_TIMEOUT`, else as [`classify`] says.
pub async fn settle<T>(call: impl Future<Output = Result<T, RedisError>>) -> Result<T, RegistryError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(RegistryError::Unknown("no answer in time".to_owned())),
    }
}
