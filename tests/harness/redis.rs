//! A real redis-server with the shipped configuration, on a port and in a directory of its own.
//!
//! It can be killed, frozen and brought back with everything it had, which is what Redis does to us in production.

use std::net::SocketAddr;
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::port::Port;
use crate::process::{Process, Program};
use crate::repository;

/// How long Redis may take to come up.
const START: Duration = Duration::from_secs(10);

/// One Redis: a place for it, and the server while it runs. Killed on drop.
#[derive(Debug)]
pub struct Redis {
    port: Port,
    directory: TempDir,
    settings: Vec<String>,
    server: Option<Process>,
}

impl Redis {
    /// A place for a Redis that does not run yet: connections to it are refused.
    ///
    /// # Panics
    /// When there is no room for it on this machine.
    #[must_use]
    pub fn away() -> Self {
        let directory = tempfile::Builder::new().prefix("parley-redis-").tempdir().expect("a temporary directory");
        Self { port: Port::reserve(), directory, settings: Vec::new(), server: None }
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
    /// When it runs already or does not come up.
    pub async fn start(&mut self) {
        assert!(self.server.is_none(), "this Redis runs already");
        let configuration = repository().join("deploy/redis/redis.conf");
        let program = Program::system("redis-server", "redis")
            .args([configuration])
            .args(["--port".to_owned(), self.port.number().to_string(), "--dir".to_owned()])
            .args([self.directory.path()])
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
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.server.take().expect("this Redis runs").kill9();
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How programs are told where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// A connection of one's own.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("redis answers")
    }

    /// One command over a fresh connection: `redis.call::<u64>("DEL key").await`. Words are split at blanks.
    ///
    /// # Panics
    /// When Redis refuses it, or answers something else than a `T`.
    pub async fn call<T: FromRedisValue>(&self, command: &str) -> T {
        self.ask(&command.split_whitespace().collect::<Vec<_>>()).await
    }

    /// The same for words that hold blanks, such as a script.
    ///
    /// # Panics
    /// When Redis refuses it, or answers something else than a `T`.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await;
        let answer = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        // Patient: on a busy machine a big command may take long, and only the test's own deadline counts.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(START));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&patient).await
    }

    fn server(&mut self) -> &mut Process {
        self.server.as_mut().expect("this Redis runs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn comes_back_with_what_it_had() {
        let mut redis = Redis::away().setting("appendfsync", "always");
        redis.start().await;
        redis.call::<()>("SET name ann").await;
        redis.restart().await;
        assert_eq!(redis.call::<String>("GET name").await, "ann");
    }

    #[tokio::test]
    async fn stands_still_and_goes_on() {
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
