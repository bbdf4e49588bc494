//! A real redis-server with the shipped configuration and the shipped rights, on a port and in a directory of its own.
//!
//! Programs get the URL of the user `parley`, the tests themselves may do anything. Whatever Parley was refused fails
//! the test in the end, so a right that is missing in `deploy/redis/users.acl.in` is found by the first test that needs
//! it. It can be killed, frozen and brought back with everything it had, which is what Redis does to us in production.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};
use crate::repository;

/// Maximum time for Redis to come up.
const START: Duration = Duration::from_secs(10);
/// How long Redis may take, at the end of a test, to tell what it refused. A frozen one is not waited for.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The password of the user `parley` in tests.
const PASSWORD: &str = "not-a-secret";
/// The password of the user `admin` in tests.
const ADMIN_PASSWORD: &str = "neither-is-this";
/// The way in of the tests alone: without a name.
const ADMIN: &str = "user default on nopass ~* &* +@all";

/// One Redis: a place for it, and the server while it runs. Killed on drop.
#[derive(Debug)]
pub struct Redis {
    port: ReservedPort,
    directory: TempDir,
    settings: Vec<String>,
    server: Option<Process>,
}

/// How far an append-only file had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofPosition {
    file: PathBuf,
    bytes: u64,
}

impl Redis {
    /// A place for a Redis that does not run yet: connections to it are refused.
    ///
    /// # Panics
    /// If there is no room for it on this machine.
    #[must_use]
    pub fn away() -> Self {
        let directory = tempfile::Builder::new().prefix("parley-redis-").tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("users.acl"), users()).expect("our own directory");
        Self { port: ReservedPort::reserve(), directory, settings: Vec::new(), server: None }
    }

    /// A running Redis.
    pub async fn running() -> Self {
        let mut redis = Self::away();
        redis.start().await;
        redis
    }

    /// Changes a setting of the shipped configuration (`appendonly`, `no`). Takes effect at the next start.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// If it runs already or does not come up.
    pub async fn start(&mut self) {
        assert!(self.server.is_none(), "this Redis runs already");
        let configuration = repository().join("deploy/redis/redis.conf");
        let program = ChildProgram::system("redis-server", "redis")
            .args([configuration])
            .args(["--port".to_owned(), self.port.number().to_string(), "--dir".to_owned()])
            .args([self.directory.path().as_os_str(), OsStr::new("--aclfile")])
            .args([self.directory.path().join("users.acl")])
            .args(self.settings.clone());
        self.server = Some(program.spawn());
        eventually(START, "redis answers", || async {
            let mut connection = self.try_connection().await.map_err(|error| error.to_string())?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// kill -9: connections break, what was not written yet is lost.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill9(&mut self) {
        self.server.take().expect("this Redis runs").kill9();
    }

    /// How much it has written to its append-only file by now; `None` when it keeps none.
    #[must_use]
    pub fn written(&self) -> Option<AofPosition> {
        let files = std::fs::read_dir(self.directory.path().join("appendonlydir")).ok()?;
        let files =
            files.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().ends_with(".incr.aof"));
        let newest = files.max_by_key(|file| file.metadata().and_then(|known| known.modified()).ok())?;
        Some(AofPosition { bytes: newest.metadata().ok()?.len(), file: newest.path() })
    }

    /// What a crash of the machine does to it: kill -9, and of what it wrote only this is on the disk.
    ///
    /// # Panics
    /// If it does not run.
    pub fn crash(&mut self, kept: Option<AofPosition>) {
        self.kill9();
        // What was rewritten since is on the disk in another form.
        let newest = self.written();
        if let Some(AofPosition { file, bytes }) =
            kept.filter(|kept| newest.is_some_and(|newest| newest.file == kept.file))
        {
            let file = std::fs::OpenOptions::new().write(true).open(file).expect("our own file");
            file.set_len(bytes).expect("our own file");
        }
    }

    /// kill -9 if it runs, and start it again on the same port with the same files.
    pub async fn restart(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill9();
        }
        self.start().await;
    }

    /// SIGSTOP: nothing is answered any more, connections stay open.
    pub async fn stop_signal(&mut self) {
        self.server().stop_signal().await;
    }

    /// SIGCONT.
    pub fn cont(&mut self) {
        self.server().cont();
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How programs are told where it is.
    #[must_use]
    pub fn url(&self) -> String {
        Self::url_through(self.address())
    }

    /// The same by way of another address, such as that of a bad network.
    #[must_use]
    pub fn url_through(address: SocketAddr) -> String {
        format!("redis://parley:{PASSWORD}@{address}/")
    }

    /// What `redis-cli` needs to be the shipped user `admin` here.
    #[must_use]
    pub fn admin_flags(&self) -> [String; 6] {
        let port = self.address().port().to_string();
        ["-p", &port, "--user", "admin", "--pass", ADMIN_PASSWORD].map(str::to_owned)
    }

    /// A way in with every right, for what only tests do.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// A connection of one's own.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("redis answers")
    }

    /// One command over a fresh connection: `redis.call::<u64>("DEL key").await`. Words are split at blanks.
    ///
    /// # Panics
    /// If Redis refuses it, or answers something else than a `T`.
    pub async fn call<T: FromRedisValue>(&self, command: &str) -> T {
        self.ask(&command.split_whitespace().collect::<Vec<_>>()).await
    }

    /// The same for words that hold blanks, such as a script.
    ///
    /// # Panics
    /// If Redis refuses it, or answers something else than a `T`.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await;
        let answer = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        // Patient: on a busy machine a big command may take long, and only the test's own deadline counts.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(START));
        redis::Client::open(self.admin_url())?.get_multiplexed_async_connection_with_config(&patient).await
    }

    fn server(&mut self) -> &mut Process {
        self.server.as_mut().expect("this Redis runs")
    }

    /// What Redis has refused since it started, as it tells it; `None` when it does not answer.
    fn refusals(&self) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.port.address(), LAST_WORD).ok()?;
        stream.set_read_timeout(Some(LAST_WORD)).ok()?;
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

/// The shipped rights with the tests' own way in.
fn users() -> String {
    let files = [PASSWORD, ADMIN_PASSWORD].map(|password| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), password).expect("our own file");
        file
    });
    let rendered =
        Command::new(repository().join("deploy/redis/acl")).args(files.iter().map(|file| file.path())).output();
    let rendered = rendered.expect("deploy/redis/acl runs");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let users = String::from_utf8(rendered.stdout).expect("text");
    assert!(users.contains("user default off\n"), "nobody gets in without a name: {users}");
    users.replace("user default off\n", &format!("{ADMIN}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn restarted_redis_keeps_its_data() {
        let mut redis = Redis::away().setting("appendfsync", "always");
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
        tokio::time::timeout(Duration::from_secs(1), asked).await.expect_err("nobody answers");
        redis.cont();
        assert_eq!(redis.call::<String>("PING").await, "PONG");
    }
}
