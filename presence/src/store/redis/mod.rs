//! Access to Redis: connections and their settings, classification of errors, metrics of calls.
//!
//! The Redis arms of registry and backplane, the composition roots and `gateway ctl` use [`RedisStore`]. Hot-path
//! scripts share a few multiplexed connections, which reconnect by themselves; reads use a pool, so a large listing
//! never delays a message. Nothing here depends on the meaning of a key.

mod calls;
mod condition;
mod fitness;
mod key_sample;
pub mod message_scripts;
mod refusals;
mod script_loads;
pub mod script_source;
mod server;
pub mod tls;
mod vitals;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::{Manager, Pool, PoolConfig, PoolError, Runtime, TimeoutType, Timeouts};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, ServerErrorKind,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};

pub use self::calls::{CallKind, CallMetrics};
use self::condition::StoreCondition;
pub use self::fitness::Unfit;
pub use self::key_sample::{KeySample, KindSize};
use self::refusals::CallIdentity;
use self::script_loads::ScriptLoads;
pub use self::server::ServerInfo;
use self::tls::{RedisTls, TlsFiles};
pub use self::vitals::Vitals;
use crate::host::metrics::Pulled;
use crate::model::keys::{CallKeys, Keys, Unit, UnitKey};
use crate::registry::RegistryError;
use crate::store::{AnswerClock, ReadTurns};

/// Number of multiplexed connections for scripts. A session uses one of them, so its writes stay in order.
const LANES: usize = 2;
/// Size of the query pool.
const POOL_SIZE: usize = 8;
/// Timeout of a script, after which its outcome is unknown. Above the longest pause of a healthy Redis.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of connecting, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of a whole call: wait for a connection, and wait for the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum pause between two attempts to reconnect.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Commands queued for the writer of one connection, above which callers wait.
const PIPELINE: usize = 1024;

/// Script fragment that checks the generation of the store.
pub const GENERATION: &str = include_str!("../../registry/script/generation.lua");
/// Script fragment that appends events to the log of the webhooks.
pub const WEBHOOK_LOG: &str = include_str!("../../registry/script/webhook_log.lua");
/// Script fragment for the sequence numbers of a stream; its `touch` is the only access to the epoch of a stream.
pub const STREAM: &str = include_str!("../../registry/script/stream.lua");

impl<U: Unit> redis::ToRedisArgs for UnitKey<U> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        self.as_str().write_redis_args(out);
    }
}

impl<U: Unit> redis::ToSingleRedisArg for UnitKey<U> {}

/// Connections to the Redis of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<RedisConnections>,
}

struct RedisConnections {
    client: Client,
    /// `None` for a `redis://` address.
    tls: Option<RedisTls>,
    lanes: [ConnectionManager; LANES],
    pool: Pool,
    keys: Keys,
    read_turns: ReadTurns,
    calls: CallMetrics,
    condition: Arc<StoreCondition>,
    answers: AnswerClock,
    script_loads: ScriptLoads,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("keys", self.keys()).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Prepares connections to `url` (`redis://...`). They connect on first use, so an unreachable Redis is not an
    /// error.
    ///
    /// Requires a running tokio runtime.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn open(url: &str, prefix: &str) -> Result<Self, RedisError> {
        Self::open_with(url, &TlsFiles::default(), prefix)
    }

    /// Does the same as [`RedisStore::open`] with the files of TLS, which a `rediss://` address uses.
    ///
    /// # Errors
    /// The URL is invalid, or a file cannot be used.
    pub fn open_with(url: &str, files: &TlsFiles, prefix: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        // Without the name of the library in CLIENT LIST, the Redis user needs no permission for CLIENT.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { .. } => Some(RedisTls::load(files).map_err(invalid_config)?),
            _ => None,
        };
        let client = match &tls {
            Some(tls) => Client::build_with_tls(info, tls.certificates())?,
            None => Client::open(info)?,
        };
        let info = client.get_connection_info().clone();
        let lane = || ConnectionManager::new_lazy_with_config(client.clone(), lane_config());
        let manager = Manager::new_with_config(info, connection_config())?;
        let mut pool = PoolConfig::new(POOL_SIZE);
        pool.timeouts =
            Timeouts { wait: Some(RESPONSE_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(RESPONSE_TIMEOUT) };
        let pool = Pool::builder(manager)
            .config(pool)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| invalid_config(error.to_string()))?;
        let answers = AnswerClock::silent();
        let shared = RedisConnections {
            lanes: [lane()?, lane()?],
            client,
            tls,
            pool,
            keys: Keys::new(prefix),
            calls: CallMetrics::default(),
            condition: Arc::default(),
            script_loads: ScriptLoads::default(),
            read_turns: ReadTurns::new(answers.clone()),
            answers,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the connection for scripts about `name` (a session, a room): always the same one, which keeps their
    /// order.
    #[must_use]
    pub fn lane(&self, name: &str) -> ConnectionManager {
        let hash = name.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.shared.lanes[hash % LANES].clone()
    }

    /// Returns one of the connections for scripts by its number; numbers beyond the last one begin again.
    #[must_use]
    pub fn numbered_lane(&self, number: usize) -> ConnectionManager {
        self.shared.lanes[number % LANES].clone()
    }

    /// Takes a connection from the query pool.
    ///
    /// # Errors
    /// `Unavailable` if Redis refuses or does not answer, `Overloaded` if it answers and other readers hold all
    /// connections for too long.
    pub async fn query(&self) -> Result<deadpool_redis::Connection, RegistryError> {
        let began = Instant::now();
        // Boxed: its state of 19 KiB would otherwise be part of every request that may read.
        let connection = Box::pin(self.shared.pool.get()).await;
        self.shared.calls.record(CallKind::Connect, began, connection.is_err());
        let identity = || CallIdentity { kind: CallKind::Connect, keys: String::new() };
        match &connection {
            Ok(_) => self.shared.condition.record(identity, began, Ok(())),
            Err(PoolError::Backend(error)) => self.shared.condition.record(identity, began, Err(error)),
            Err(_) => {}
        }
        connection.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) if self.is_answering() => RegistryError::Overloaded,
            // The text of the pool adds nothing to the error of the connection.
            PoolError::Backend(error) => RegistryError::Unavailable(error.to_string()),
            error => RegistryError::Unavailable(error.to_string()),
        })
    }

    /// Returns the turns of long reads.
    #[must_use]
    pub fn read_turns(&self) -> &ReadTurns {
        &self.shared.read_turns
    }

    /// Returns the client for separate connections: subscriptions and blocking reads.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Returns the local address used for packets to Redis, by the routing table; nothing is sent. Returns `None` if
    /// the name of Redis is not resolved within a second.
    pub async fn local_ip(&self) -> Option<IpAddr> {
        let local_ip = async {
            let redis = tokio::net::lookup_host(self.address()?).await?.next();
            let redis = redis.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let any: IpAddr = if redis.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(redis).await?;
            Ok::<_, std::io::Error>(socket.local_addr()?.ip())
        };
        tokio::time::timeout(Duration::from_secs(1), local_ip).await.ok()?.ok()
    }

    /// Returns true while Redis answers calls of this kind with a refusal.
    #[must_use]
    pub fn refuses(&self, call: CallKind) -> bool {
        self.shared.condition.refuses(call)
    }

    /// Returns true if Redis has answered a call within the last 1.5 s. A call that took too long is then a matter of
    /// this process and not of Redis.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.shared.answers.is_answering()
    }

    /// Registers the metrics of the calls and of the condition. Must be called once for each registry.
    ///
    /// # Panics
    /// On a second call.
    pub fn register_metrics(&self, registry: &prometheus::Registry) {
        self.shared.calls.register(registry);
        self.shared.condition.register(registry);
        let condition = Arc::clone(&self.shared.condition);
        let help = "1 while Redis refuses calls or does not meet the requirements; /readyz has the reason.";
        let is_unusable = move || Some(f64::from(u8::from(!condition.reasons().is_empty())));
        Pulled::gauge(registry, "parley_redis_unusable", help, is_unusable);
    }

    /// Returns the reasons why Redis cannot be used now, for operators; none if it can. Lost answers are not included.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.shared.condition.reasons()
    }

    /// Waits for the answer to one call, and records it under its kind.
    ///
    /// Without the timeout, callers of a lost connection would wait until it is restored. If the future is dropped, the
    /// command may or may not be executed, and nothing is recorded.
    ///
    /// # Errors
    /// `Unavailable` after a refusal, `Unknown` without an answer within `CALL_TIMEOUT`.
    pub async fn timed<T>(
        &self,
        call: CallKind,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        self.recorded_and_timed(call, String::new, answer).await
    }

    /// Does the same as [`RedisStore::timed`] for a call on these keys, which identify it if it is refused.
    ///
    /// # Errors
    /// As for [`RedisStore::timed`].
    pub async fn timed_on<T>(
        &self,
        call: CallKind,
        keys: CallKeys<'_>,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        self.recorded_and_timed(call, || self.described_keys(keys), answer).await
    }

    /// Waits for the answer to commands that only read. `keys` identify the call if it is refused: names, or a pattern.
    ///
    /// # Errors
    /// As for [`RedisStore::timed`].
    pub async fn asked<T>(
        &self,
        keys: &str,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        self.recorded_and_timed(CallKind::Read, || keys.to_owned(), answer).await
    }

    /// Does the same as [`RedisStore::asked`] for a command that waits up to `wait` for data. Its time is no metric.
    ///
    /// # Errors
    /// As for [`RedisStore::timed`].
    pub async fn awaited<T>(
        &self,
        keys: &str,
        wait: Duration,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        let identity = || CallIdentity { kind: CallKind::Read, keys: keys.to_owned() };
        self.recorded(identity, wait + CALL_TIMEOUT, answer).await
    }

    /// Opens a connection outside the pool.
    ///
    /// # Errors
    /// As for [`RedisStore::timed`].
    pub async fn connect(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RegistryError> {
        self.timed(CallKind::Connect, self.client().get_multiplexed_async_connection_with_config(config)).await
    }

    /// Opens a connection outside the pool that is read and written only while the returned future is polled. So pushes
    /// arrive on the task that polls it, and nothing is read while that task is busy.
    ///
    /// # Errors
    /// Redis is not reached, or not within 2 s.
    pub async fn connect_polled(
        &self,
        settings: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, BoxFuture<'static, ()>)> {
        let connecting = async {
            let socket = self.connect_tcp().await?;
            match &self.shared.tls {
                Some(tls) => over(tls.connect(self.address()?.0, socket).await?, settings, config).await,
                None => over(socket, settings, config).await,
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(RedisError::from((ErrorKind::Io, "Redis was not reached in time"))),
        }
    }

    /// Handshakes over a connection of its own. Returns the reason of a failure in words; `None` without TLS, for an
    /// address that refuses connections, and if Redis accepts.
    pub async fn handshake_failure(&self) -> Option<String> {
        let tls = self.shared.tls.as_ref()?;
        let (host, _) = self.address().ok()?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_tcp()).await;
        let socket = connected.ok()?.ok()?;
        let checked = tokio::time::timeout(CONNECT_TIMEOUT, tls.handshake_failure(host, socket)).await;
        checked.unwrap_or_else(|_| Some("redis has not answered the handshake".to_owned()))
    }

    /// Returns host and port.
    fn address(&self) -> io::Result<(&str, u16)> {
        match self.client().get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Ok((host, *port)),
            _ => Err(io::Error::other("Redis is reached over TCP only")),
        }
    }

    /// Connects with the options that the client library sets too.
    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(self.address()?).await?;
        let (tcp, options) = (self.client().get_connection_info().tcp_settings(), SockRef::from(&socket));
        options.set_tcp_nodelay(tcp.nodelay())?;
        tcp.keepalive().map_or(Ok(()), |keepalive| options.set_tcp_keepalive(keepalive))?;
        options.set_tcp_user_timeout(tcp.user_timeout())?;
        Ok(socket)
    }

    async fn recorded_and_timed<T>(
        &self,
        kind: CallKind,
        keys: impl FnOnce() -> String,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        let sent = Instant::now();
        let answer = self.recorded(|| CallIdentity { kind, keys: keys() }, CALL_TIMEOUT, answer).await;
        self.shared.calls.record(kind, sent, answer.is_err());
        answer
    }

    /// Waits for an answer and records a refusal until the call succeeds. Every error of Redis passes here, since only
    /// this module classifies errors.
    async fn recorded<T>(
        &self,
        identity: impl FnOnce() -> CallIdentity,
        limit: Duration,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RegistryError> {
        let sent = Instant::now();
        let Ok(answer) = tokio::time::timeout(limit, answer).await else {
            return Err(RegistryError::Unknown("no answer in time".to_owned()));
        };
        self.shared.condition.record(identity, sent, answer.as_ref().map(|_| ()));
        if answer.is_ok() {
            self.shared.answers.record();
        }
        answer.map_err(|error| classify(&error))
    }

    /// Returns the keys of a call with those that every script gets, and the units of the keys that its script builds.
    fn described_keys(&self, CallKeys { names, in_script }: CallKeys<'_>) -> String {
        let common = [self.keys().generation(), self.keys().leases()].map(String::from);
        let built = in_script.iter().map(|units| format!("those of {units}"));
        names.iter().cloned().chain(common).chain(built).collect::<Vec<_>>().join(", ")
    }

    /// Returns the names of keys and channels.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }
}

/// Checks, without connecting, that [`RedisStore::open`] accepts `url`.
///
/// # Errors
/// The reason of the refusal. Its text does not contain the URL, which may contain a password.
pub fn check_url(url: &str) -> Result<(), RedisError> {
    url.into_connection_info().map(drop)
}

fn invalid_config(reason: String) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "cannot connect to Redis", reason))
}

/// Opens a connection over a socket or over TLS.
async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    settings: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> RedisResult<(MultiplexedConnection, BoxFuture<'static, ()>)> {
    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
    Ok((connection, driver.boxed()))
}

/// Returns the settings of the hot path, for a separate connection. The caller may change timeouts and pushes.
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

/// Disables Nagle's algorithm (latency tails of 40 ms) and enables keepalive (detection of half-open peers). The
/// defaults of the redis crate 1.x are the opposite.
fn tcp_settings() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(Duration::from_secs(10))
}

/// Classifies an error of the client library: after a refusal nothing was done, after a lost answer the outcome is
/// unknown.
///
/// An error returned by the server is a refusal: every script validates before its first write, and scripts that need
/// memory fail before they start. Only a missing right is found in the middle of a script, perhaps after a write.
fn classify(error: &RedisError) -> RegistryError {
    let is_in_script = error.detail().is_some_and(|detail| detail.contains("user executing the script"));
    let refused = match error.kind() {
        ErrorKind::Server(ServerErrorKind::ExecAbort) => false,
        _ if is_in_script => false,
        ErrorKind::Server(_)
        | ErrorKind::Extension
        | ErrorKind::InvalidClientConfig
        | ErrorKind::AuthenticationFailed => true,
        _ => error.is_connection_refusal(),
    };
    if refused { RegistryError::Unavailable(error.to_string()) } else { RegistryError::Unknown(error.to_string()) }
}
