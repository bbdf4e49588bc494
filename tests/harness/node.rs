//! One running gateway or presence process, and the way to configure, start, watch and end it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::eventually::eventually;
use crate::http::{self, HttpResponse};
use crate::log::ProgramLog;
use crate::metrics::ScrapedMetrics;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};
use crate::redis::Redis;

/// Maximum time for a node to become ready when nothing is wrong.
const READY: Duration = Duration::from_secs(15);
/// Maximum time for a node to end politely. Above the grace period that it gives itself.
const END: Duration = Duration::from_secs(35);
/// What a gateway says when every client has gone, and nothing is left to do but to wait.
const LAST_WAIT: &str = "waiting until nothing that was acked can be lost";

/// The program of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    Gateway,
    Presence,
}

/// A node that is about to be started. Every port is free for the kernel to choose until it is set.
#[derive(Debug)]
pub struct NodeBuilder {
    kind: NodeKind,
    name: String,
    settings: BTreeMap<String, String>,
    config: Option<PathBuf>,
    ports: Vec<ReservedPort>,
}

impl NodeBuilder {
    fn new(kind: NodeKind, name: &str) -> Self {
        let listeners: &[&str] = match kind {
            NodeKind::Gateway => &["PARLEY__LISTEN__WS", "PARLEY__LISTEN__TCP", "PARLEY__ADMIN__ADDR"],
            NodeKind::Presence => &["PARLEY__API__ADDR", "PARLEY__ADMIN__ADDR"],
        };
        let mut settings: BTreeMap<_, _> =
            listeners.iter().map(|key| ((*key).to_owned(), "127.0.0.1:0".to_owned())).collect();
        settings.insert("PARLEY__NODE__ID".to_owned(), name.to_owned());
        Self { kind, name: name.to_owned(), settings, config: None, ports: Vec::new() }
    }

    /// Makes it a member of the cluster around this Redis.
    #[must_use]
    pub fn redis(self, redis: &Redis) -> Self {
        self.setting("PARLEY__REDIS__URL", &redis.url())
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Has it read this settings file too.
    #[must_use]
    pub fn config(self, file: &Path) -> Self {
        Self { config: Some(file.to_owned()), ..self }
    }

    /// Gives it ports that are kept over a restart, as nginx needs it.
    #[must_use]
    pub fn fixed_ports(mut self) -> Self {
        for value in self.settings.values_mut().filter(|value| *value == "127.0.0.1:0") {
            let port = ReservedPort::reserve();
            *value = port.address().to_string();
            self.ports.push(port);
        }
        self
    }

    /// Starts it and waits until its listeners are bound; it may not be ready to serve yet.
    pub async fn launch(self) -> Node {
        let mut process = self.program().spawn();
        let ready = process.ready().await;
        Node { builder: self, process, ready, past: ProgramLog::default() }
    }

    /// Starts it and waits until it is ready to serve.
    pub async fn start(self) -> Node {
        let node = self.launch().await;
        node.until_ready(READY).await;
        node
    }

    /// The program with these settings, for tests of what happens before it is up.
    #[must_use]
    pub fn program(&self) -> ChildProgram {
        let binary = match self.kind {
            NodeKind::Gateway => "gateway",
            NodeKind::Presence => "presence",
        };
        let config = self.config.iter().flat_map(|file| ["--config".into(), file.clone().into_os_string()]);
        let program = ChildProgram::parley(binary, &self.name).args(config);
        self.settings.iter().fold(program, |program, (key, value)| program.env(key, value))
    }
}

/// A running node. Killed on drop.
#[derive(Debug)]
pub struct Node {
    builder: NodeBuilder,
    process: Process,
    ready: Value,
    past: ProgramLog,
}

impl Node {
    /// A gateway of this name. Without a Redis it runs alone.
    #[must_use]
    pub fn gateway(name: &str) -> NodeBuilder {
        NodeBuilder::new(NodeKind::Gateway, name)
    }

    /// A presence process of this name.
    #[must_use]
    pub fn presence(name: &str) -> NodeBuilder {
        NodeBuilder::new(NodeKind::Presence, name)
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.builder.name
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it printed when its listeners were bound.
    #[must_use]
    pub fn ready_line(&self) -> &Value {
        &self.ready
    }

    /// The WebSocket address.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        self.address("ws")
    }

    /// The address for text lines.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// The address of the presence API.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.address("api")
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let text = self.ready[listener].as_str().unwrap_or_else(|| panic!("no `{listener}` in {}", self.ready));
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The answer of `/readyz`.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn readyz(&self) -> Result<HttpResponse, String> {
        http::get(self.admin(), "/readyz").await
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// If it does not within `within`; the reason it gave is in the message.
    pub async fn until_ready(&self, within: Duration) {
        self.until_readiness(200, within).await;
    }

    /// Waits until `/readyz` says no, and returns its answer.
    ///
    /// # Panics
    /// If it does not within `within`.
    pub async fn until_not_ready(&self, within: Duration) -> HttpResponse {
        self.until_readiness(503, within).await
    }

    async fn until_readiness(&self, status: u16, within: Duration) -> HttpResponse {
        eventually(within, &format!("{} answers {status} on /readyz", self.name()), || async {
            let answer = self.readyz().await?;
            if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    /// A scrape of its metrics.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn metrics(&self) -> ScrapedMetrics {
        let answer =
            http::get(self.admin(), "/metrics").await.unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        assert_eq!(answer.status, 200, "{answer:?}");
        ScrapedMetrics::parse(&answer.body)
    }

    /// Returns whether its process is still there.
    pub fn is_running(&mut self) -> bool {
        !self.process.has_ended()
    }

    /// SIGTERM; returns its exit code, `None` when a signal ended it.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn end(&mut self) -> Option<i32> {
        self.process.terminate();
        self.process.exit_code(END).await
    }

    /// The end of a test: SIGTERM, and its exit code. A gateway that has done everything and only waits for Redis to be
    /// sure of what was acked is not waited for.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn leave(&mut self) -> Option<i32> {
        self.process.terminate();
        eventually(END, &format!("{} has done everything", self.name()), || {
            let done = !self.is_running() || self.log().holds(LAST_WAIT);
            async move { if done { Ok(()) } else { Err("not yet") } }
        })
        .await;
        if self.is_running() {
            self.process.kill9();
            return Some(0);
        }
        self.process.exit_code(END).await
    }

    /// Starts it again after its end, with the same settings. Ports stay only when they were fixed.
    ///
    /// # Panics
    /// If it still runs, or does not become ready.
    pub async fn restart(&mut self) {
        self.relaunch().await;
        self.until_ready(READY).await;
    }

    /// Starts it again after its end and waits until its listeners are bound; it may not be ready to serve yet.
    ///
    /// # Panics
    /// If it still runs, or does not come up.
    pub async fn relaunch(&mut self) {
        assert!(!self.is_running(), "{} still runs", self.name());
        self.process.log().lines().into_iter().for_each(|line| self.past.push(line));
        self.process = self.builder.program().spawn();
        self.ready = self.process.ready().await;
    }

    /// The lines written to stderr in this life.
    #[must_use]
    pub fn log(&self) -> &ProgramLog {
        self.process.log()
    }

    /// Lines of all its lives that need a reason and have none.
    #[must_use]
    pub fn problems(&self, allowed: &[String]) -> Vec<String> {
        let mut problems = self.past.problems(allowed);
        problems.extend(self.log().problems(allowed));
        problems
    }
}
