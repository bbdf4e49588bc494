//! A gateway or presence process: its configuration, start, observation and end.

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

/// Time limit for a node to become ready without faults.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit for a node to exit after SIGTERM; longer than its grace period.
const EXIT_TIMEOUT: Duration = Duration::from_secs(35);
/// Log message of a drained gateway that only waits until Redis cannot lose acknowledged messages.
const DRAINED_LOG: &str = "connections drained, waiting for acknowledged messages to be safe";

/// The address from which the local nginx connects to gateways.
const NGINX_ADDRESS: &str = "127.0.0.9";

/// The program of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    Gateway,
    Presence,
}

/// The configuration of a node. The kernel chooses each port that is not set.
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
        if kind == NodeKind::Gateway {
            // As in deploy/run: nginx has an address of its own, and other clients of this machine are no proxies.
            settings.insert("PARLEY__LISTEN__TRUSTED_PROXIES".to_owned(), NGINX_ADDRESS.to_owned());
            settings.insert("PARLEY__LISTEN__TCP_PROXY_PROTOCOL".to_owned(), "true".to_owned());
            // Clients of tests are faster than people, and stay shorter. Tests of these limits set them.
            settings.insert("PARLEY__LIMITS__PROFILE".to_owned(), "open".to_owned());
            settings.insert("PARLEY__SESSION__HOLD_AFTER_SECONDS".to_owned(), "0".to_owned());
        }
        Self { kind, name: name.to_owned(), settings, config: None, ports: Vec::new() }
    }

    /// Adds the node to the cluster of this Redis.
    #[must_use]
    pub fn redis(self, redis: &Redis) -> Self {
        self.setting("PARLEY__REDIS__URL", &redis.url())
    }

    /// Sets an environment variable of the node.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a configuration file.
    #[must_use]
    pub fn config(self, file: &Path) -> Self {
        Self { config: Some(file.to_owned()), ..self }
    }

    /// Reserves ports that stay the same over restarts, which nginx needs.
    #[must_use]
    pub fn fixed_ports(mut self) -> Self {
        for value in self.settings.values_mut().filter(|value| *value == "127.0.0.1:0") {
            let port = ReservedPort::reserve();
            *value = port.address().to_string();
            self.ports.push(port);
        }
        self
    }

    /// Starts the node and waits until its listeners are bound; it may not be ready to serve yet.
    pub async fn launch(self) -> Node {
        self.launch_as(|program| program).await
    }

    /// Starts the node as a changed program, such as one with other limits, and waits until its listeners are bound.
    pub async fn launch_as(self, change: impl FnOnce(ChildProgram) -> ChildProgram) -> Node {
        let mut process = change(self.program()).spawn();
        let listening = process.listening().await;
        Node { builder: self, process, listening, earlier_log: ProgramLog::default() }
    }

    /// Starts the node and waits until it is ready to serve.
    pub async fn start(self) -> Node {
        let node = self.launch().await;
        node.until_ready(READY_TIMEOUT).await;
        node
    }

    /// Returns the program with these settings, for tests of its start.
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

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    builder: NodeBuilder,
    process: Process,
    listening: Value,
    earlier_log: ProgramLog,
}

impl Node {
    /// Returns the configuration of a gateway. Without a Redis it runs alone.
    #[must_use]
    pub fn gateway(name: &str) -> NodeBuilder {
        NodeBuilder::new(NodeKind::Gateway, name)
    }

    /// Returns the configuration of a presence process.
    #[must_use]
    pub fn presence(name: &str) -> NodeBuilder {
        NodeBuilder::new(NodeKind::Presence, name)
    }

    /// Returns the name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.builder.name
    }

    /// Returns the process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the listening line that the node printed after it bound its listeners.
    #[must_use]
    pub fn listening_line(&self) -> &Value {
        &self.listening
    }

    /// Returns the WebSocket address.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        self.address("ws")
    }

    /// Returns the address for text lines.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// Returns the admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// Returns the address of the server API.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.address("api")
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let text = self.listening[listener].as_str().unwrap_or_else(|| panic!("no `{listener}` in {}", self.listening));
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Returns the response of `/readyz`.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn readyz(&self) -> Result<HttpResponse, String> {
        http::get(self.admin(), "/readyz").await
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Panics
    /// If it does not within `within`; the message contains its last response.
    pub async fn until_ready(&self, within: Duration) {
        self.until_readiness(200, within).await;
    }

    /// Waits until `/readyz` answers 503, and returns the response.
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

    /// Scrapes the metrics of the node.
    ///
    /// # Panics
    /// If the node does not answer.
    pub async fn metrics(&self) -> ScrapedMetrics {
        let answer =
            http::get(self.admin(), "/metrics").await.unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        assert_eq!(answer.status, 200, "{answer:?}");
        ScrapedMetrics::parse(&answer.body)
    }

    /// Returns true if the process is running.
    pub fn is_running(&mut self) -> bool {
        !self.process.has_ended()
    }

    /// Sends SIGTERM, and returns the exit code; `None` if a signal ended the process.
    ///
    /// # Panics
    /// If the process does not end.
    pub async fn end(&mut self) -> Option<i32> {
        self.process.terminate();
        self.process.exit_code(EXIT_TIMEOUT).await
    }

    /// Ends the node at the end of a test: sends SIGTERM, and returns the exit code. Kills a drained gateway that only
    /// waits until Redis cannot lose acknowledged messages, and returns 0 for it.
    ///
    /// # Panics
    /// If the process does not end.
    pub async fn finish(&mut self) -> Option<i32> {
        self.process.terminate();
        eventually(EXIT_TIMEOUT, &format!("{} is drained", self.name()), || {
            let is_drained = !self.is_running() || self.log().holds(DRAINED_LOG);
            async move { if is_drained { Ok(()) } else { Err("still draining") } }
        })
        .await;
        if self.is_running() {
            self.process.kill9();
            return Some(0);
        }
        self.process.exit_code(EXIT_TIMEOUT).await
    }

    /// Starts an ended node with the same settings, and waits until it is ready. Only fixed ports stay the same.
    ///
    /// # Panics
    /// If the node still runs, or does not become ready.
    pub async fn restart(&mut self) {
        self.relaunch().await;
        self.until_ready(READY_TIMEOUT).await;
    }

    /// Starts an ended node and waits until its listeners are bound; it may not be ready to serve yet.
    ///
    /// # Panics
    /// If the node still runs, or does not start.
    pub async fn relaunch(&mut self) {
        assert!(!self.is_running(), "{} still runs", self.name());
        self.process.log().lines().into_iter().for_each(|line| self.earlier_log.push(line));
        self.process = self.builder.program().spawn();
        self.listening = self.process.listening().await;
    }

    /// Returns the lines written to stderr since the last start.
    #[must_use]
    pub fn log(&self) -> &ProgramLog {
        self.process.log()
    }

    /// Returns the warnings and errors since the first start that contain none of the `allowed` texts.
    #[must_use]
    pub fn problems(&self, allowed: &[String]) -> Vec<String> {
        let mut problems = self.earlier_log.problems(allowed);
        problems.extend(self.log().problems(allowed));
        problems
    }
}
