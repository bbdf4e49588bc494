//! A real redis-server with the shipped configuration and access rights, on its own port and in its own directory.
//!
//! Programs get the URL of the user `parley`; tests have every right. A command of Parley that Redis refused fails the
//! test at its end, so a missing right in `deploy/redis/users.acl.in` is detected. The server can be killed, stopped
//! and restarted with its data.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::eventually::eventually;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};
use crate::repository;

/// Time limit for Redis to start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit to read the refused commands at the end of a test; a stopped Redis does not answer.
const REFUSALS_TIMEOUT: Duration = Duration::from_secs(1);
/// The password of the user `parley` in tests.
const PASSWORD: &str = "not-a-secret";
/// The password of the user `admin` in tests.
const ADMIN_PASSWORD: &str = "neither-is-this";
/// ACL rule of the tests: the default user without a password.
const DEFAULT_USER: &str = "user default on nopass ~* &* +@all";

/// A Redis: its port and directory, and the server while it runs. Dropping it kills the server.
#[derive(Debug)]
pub struct Redis {
    port: ReservedPort,
    /// The port of programs that connect with TLS.
    tls_port: Option<ReservedPort>,
    directory: TempDir,
    settings: Vec<String>,
    server: Option<Process>,
}

/// Length of an append-only file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofPosition {
    file: PathBuf,
    bytes: u64,
}

impl Redis {
    /// Reserves a port and a directory without a running server: connections are refused.
    ///
    /// # Panics
    /// If there is no free port or no writable directory.
    #[must_use]
    pub fn not_started() -> Self {
        let directory = tempfile::Builder::new().prefix("parley-redis-").tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("users.acl"), users()).expect("a writable directory");
        Self { port: ReservedPort::reserve(), tls_port: None, directory, settings: Vec::new(), server: None }
    }

    /// Starts a Redis with the shipped configuration.
    pub async fn running() -> Self {
        let mut redis = Self::not_started();
        redis.start().await;
        redis
    }

    /// Changes a setting of the shipped configuration (`appendonly`, `no`). Takes effect at the next start.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Adds a port with TLS: with the certificate `redis` of this authority, and for clients with one of its
    /// certificates only.
    #[must_use]
    pub fn with_tls(mut self, authority: &Authority) -> Self {
        let port = ReservedPort::reserve();
        for (setting, file) in
            [("tls-cert-file", "redis.pem"), ("tls-key-file", "redis.key"), ("tls-ca-cert-file", "ca.pem")]
        {
            self = self.setting(setting, &authority.file(file).display().to_string());
        }
        self = self.setting("tls-port", &port.number().to_string());
        self.tls_port = Some(port);
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    /// If it is running or does not start.
    pub async fn start(&mut self) {
        assert!(self.server.is_none(), "this Redis is running");
        let configuration = repository().join("deploy/redis/redis.conf");
        let program = ChildProgram::system("redis-server", "redis")
            .args([configuration])
            .args(["--port".to_owned(), self.port.number().to_string(), "--dir".to_owned()])
            .args([self.directory.path().as_os_str(), OsStr::new("--aclfile")])
            .args([self.directory.path().join("users.acl")])
            .args(self.settings.clone());
        self.server = Some(program.spawn());
        eventually(STARTUP_TIMEOUT, "redis answers", || async {
            let mut connection = self.try_connection().await.map_err(|error| error.to_string())?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Kills the server with SIGKILL: connections break, and unwritten data is lost.
    ///
    /// # Panics
    /// If it is not running.
    pub fn kill9(&mut self) {
        self.server.take().expect("this Redis is running").kill9();
    }

    /// Returns the current end of the append-only file; `None` without such a file.
    #[must_use]
    pub fn written(&self) -> Option<AofPosition> {
        let files = std::fs::read_dir(self.directory.path().join("appendonlydir")).ok()?;
        let files =
            files.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().ends_with(".incr.aof"));
        let newest = files.max_by_key(|file| file.metadata().and_then(|known| known.modified()).ok())?;
        Some(AofPosition { bytes: newest.metadata().ok()?.len(), file: newest.path() })
    }

    /// Simulates a crash of the machine: kills the server, and truncates its append-only file to the `kept` position.
    ///
    /// # Panics
    /// If it is not running.
    pub fn crash(&mut self, kept: Option<AofPosition>) {
        self.kill9();
        // A file that was rewritten since is already on disk.
        let newest = self.written();
        if let Some(AofPosition { file, bytes }) =
            kept.filter(|kept| newest.is_some_and(|newest| newest.file == kept.file))
        {
            let file = std::fs::OpenOptions::new().write(true).open(file).expect("a writable file");
            file.set_len(bytes).expect("a writable file");
        }
    }

    /// Kills the server if it is running, and starts it again on the same port with the same files.
    pub async fn restart(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill9();
        }
        self.start().await;
    }

    /// Sends SIGSTOP: Redis stops answering, and connections stay open.
    pub async fn stop_signal(&mut self) {
        self.server().stop_signal().await;
    }

    /// Sends SIGCONT.
    pub fn cont(&mut self) {
        self.server().cont();
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns the URL for programs, with the user `parley`.
    #[must_use]
    pub fn url(&self) -> String {
        Self::url_through(self.address())
    }

    /// Returns the URL for programs through another address, such as a fault proxy.
    #[must_use]
    pub fn url_through(address: SocketAddr) -> String {
        format!("redis://parley:{PASSWORD}@{address}/")
    }

    /// Returns the address of the port with TLS.
    ///
    /// # Panics
    /// Without such a port.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        self.tls_port.as_ref().expect("a port with TLS").address()
    }

    /// Returns the URL for programs over TLS, through this address.
    #[must_use]
    pub fn tls_url_through(address: SocketAddr) -> String {
        format!("rediss://parley:{PASSWORD}@{address}/")
    }

    /// Returns the flags of `redis-cli` for the shipped user `admin`.
    #[must_use]
    pub fn admin_flags(&self) -> [String; 6] {
        let port = self.address().port().to_string();
        ["-p", &port, "--user", "admin", "--pass", ADMIN_PASSWORD].map(str::to_owned)
    }

    /// Returns a URL with every right, for tests only.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Opens a connection with every right.
    ///
    /// # Panics
    /// If Redis does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("redis answers")
    }

    /// Sends one command over a new connection: `redis.call::<u64>("DEL key").await`. Words are split at blanks.
    ///
    /// # Panics
    /// If Redis refuses the command, or its reply is not a `T`.
    pub async fn call<T: FromRedisValue>(&self, command: &str) -> T {
        self.ask(&command.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Sends one command whose words may contain blanks, such as a script.
    ///
    /// # Panics
    /// If Redis refuses the command, or its reply is not a `T`.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await;
        let answer = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        // On a busy machine a large command may be slow; the test has its own deadline.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(STARTUP_TIMEOUT));
        redis::Client::open(self.admin_url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    fn server(&mut self) -> &mut Process {
        self.server.as_mut().expect("this Redis is running")
    }

    /// Returns the commands refused since the start, as Redis reports them; `None` if it does not answer.
    fn refusals(&self) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.port.address(), REFUSALS_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(REFUSALS_TIMEOUT)).ok()?;
        stream.write_all(b"ACL LOG\r\nQUIT\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_none() || std::thread::panicking() {
            return;
        }
        let refused = self.refusals().filter(|answer| !answer.starts_with("*0\r\n"));
        assert!(refused.is_none(), "Redis refused what deploy/redis/users.acl.in does not allow: {refused:?}");
    }
}

/// Returns the shipped access rights, with every right for the tests.
fn users() -> String {
    let files = [PASSWORD, ADMIN_PASSWORD].map(|password| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), password).expect("a writable file");
        file
    });
    let rendered =
        Command::new(repository().join("deploy/redis/acl")).args(files.iter().map(|file| file.path())).output();
    let rendered = rendered.expect("deploy/redis/acl runs");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let users = String::from_utf8(rendered.stdout).expect("text");
    assert!(users.contains("user default off\n"), "the shipped rights disable the default user: {users}");
    users.replace("user default off\n", &format!("{DEFAULT_USER}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn restarted_redis_keeps_its_data() {
        let mut redis = Redis::not_started().setting("appendfsync", "always");
        redis.start().await;
        redis.call::<()>("SET name ann").await;
        redis.restart().await;
        assert_eq!(redis.call::<String>("GET name").await, "ann");
    }

    #[tokio::test]
    async fn crash_discards_writes_after_saved_position() {
        let mut redis = Redis::running().await;
        redis.call::<()>("SET name ann").await;
        let kept = redis.written();
        redis.call::<()>("SET name bob").await;
        redis.crash(kept);
        redis.start().await;
        assert_eq!(redis.call::<String>("GET name").await, "ann");
    }

    #[tokio::test]
    #[should_panic(expected = "Redis refused")]
    async fn drop_panics_after_a_refused_command() {
        let redis = Redis::running().await;
        let client = redis::Client::open(redis.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
        let refused = redis::cmd("KEYS").arg("*").query_async::<()>(&mut connection).await;
        assert!(refused.expect_err("not allowed").to_string().contains("keys"));
    }

    #[tokio::test]
    async fn stopped_redis_answers_after_it_continues() {
        let mut redis = Redis::running().await;
        let mut connection = redis.connection().await;
        redis.stop_signal().await;
        let ping = redis::cmd("PING");
        let asked = ping.query_async::<()>(&mut connection);
        tokio::time::timeout(Duration::from_secs(1), asked).await.expect_err("a stopped Redis does not answer");
        redis.cont();
        assert_eq!(redis.call::<String>("PING").await, "PONG");
    }
}
