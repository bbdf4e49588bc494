//! A cluster as a value: Redis, gateways, presence processes and nginx. Dropping it ends all processes.
//!
//! Every test should end with [`Cluster::finish`]: all programs exit with 0 after SIGTERM, and none has logged a
//! warning that the test does not allow.

use std::net::SocketAddr;

use serde_json::Value;

use crate::client::{LineClient, Person, WsClient};
use crate::fault_proxy::FaultProxy;
use crate::http;
use crate::nginx::Nginx;
use crate::node::Node;
use crate::redis::Redis;

/// The parts of a cluster to start.
#[derive(Debug)]
pub struct ClusterBuilder {
    gateways: usize,
    presence: usize,
    nginx: bool,
    fault_proxies: bool,
    settings: Vec<(String, String)>,
    presence_settings: Vec<(String, String)>,
    redis: Redis,
}

impl ClusterBuilder {
    /// Sets the number of gateways: g1, g2, ...
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Sets the number of presence processes: p1, p2, ...
    #[must_use]
    pub fn presence(mut self, count: usize) -> Self {
        self.presence = count;
        self
    }

    /// Sets whether nginx runs in front of the gateways.
    #[must_use]
    pub fn nginx(mut self, enabled: bool) -> Self {
        self.nginx = enabled;
        self
    }

    /// Sets whether a fault proxy runs between each gateway and Redis.
    #[must_use]
    pub fn fault_proxies(mut self, enabled: bool) -> Self {
        self.fault_proxies = enabled;
        self
    }

    /// Sets a variable in the environment of every gateway.
    #[must_use]
    pub fn gateway_setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable in the environment of every presence process.
    #[must_use]
    pub fn presence_setting(mut self, key: &str, value: &str) -> Self {
        self.presence_settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Trusts proxies of this machine, such as the production nginx, as gateways do by default.
    #[must_use]
    pub fn local_proxies(self) -> Self {
        self.gateway_setting("PARLEY__LISTEN__TRUSTED_PROXIES", "127.0.0.1")
    }

    /// Changes a setting of the shipped Redis configuration.
    #[must_use]
    pub fn redis_setting(mut self, name: &str, value: &str) -> Self {
        self.redis = self.redis.setting(name, value);
        self
    }

    /// Starts all parts and waits until each is ready.
    ///
    /// # Panics
    /// If a part does not become ready.
    pub async fn start(self) -> Cluster {
        let mut redis = self.redis;
        redis.start().await;
        let mut presence = Vec::new();
        for number in 1..=self.presence {
            let node = Node::presence(&format!("p{number}")).redis(&redis);
            let node = self.presence_settings.iter().fold(node, |node, (key, value)| node.setting(key, value));
            presence.push(node.start().await);
        }
        let (mut gateways, mut proxies) = (Vec::new(), Vec::new());
        for number in 1..=self.gateways {
            let mut node = Node::gateway(&format!("g{number}")).redis(&redis).fixed_ports();
            if self.fault_proxies {
                let proxy = FaultProxy::start(redis.address()).await;
                node = node.setting("PARLEY__REDIS__URL", &Redis::url_through(proxy.address()));
                proxies.push(proxy);
            }
            let node = self.settings.iter().fold(node, |node, (key, value)| node.setting(key, value));
            gateways.push(node.start().await);
        }
        let nginx = match self.nginx {
            true => {
                let ws: Vec<SocketAddr> = gateways.iter().map(Node::ws).collect();
                let lines: Vec<SocketAddr> = gateways.iter().map(Node::tcp).collect();
                let api: Vec<SocketAddr> = presence.iter().map(Node::api).collect();
                Some(Nginx::start(&ws, &lines, &api).await)
            }
            false => None,
        };
        Cluster { nginx, gateways, presence, proxies, redis, allowed: Vec::new() }
    }
}

/// A running cluster. Its parts are public, so that a test can kill, stop or reconfigure any of them.
#[derive(Debug)]
pub struct Cluster {
    /// The nginx in front of the gateways, if enabled.
    pub nginx: Option<Nginx>,
    /// The gateways, g1 first.
    pub gateways: Vec<Node>,
    /// The presence processes, p1 first.
    pub presence: Vec<Node>,
    /// The fault proxies, in the order of the gateways; empty unless enabled.
    pub proxies: Vec<FaultProxy>,
    /// The Redis that all parts share.
    pub redis: Redis,
    allowed: Vec<String>,
}

impl Cluster {
    /// Returns a builder of a cluster with one gateway, no presence process and no nginx.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            gateways: 1,
            presence: 0,
            nginx: false,
            fault_proxies: false,
            settings: Vec::new(),
            presence_settings: Vec::new(),
            redis: Redis::not_started(),
        }
    }

    /// Connects a WebSocket client to nginx, or to the first gateway without nginx.
    pub async fn ws(&self) -> WsClient {
        WsClient::connect(self.front()).await
    }

    /// Registers a person on the client library at nginx, or at the first gateway without nginx.
    pub async fn person(&self, nick: &str) -> Person {
        Person::connect([self.front()], nick).await
    }

    /// Registers a person on the client library at this gateway, the only one that it knows; 0 is g1.
    pub async fn person_on(&self, gateway: usize, nick: &str) -> Person {
        Person::connect([self.gateways[gateway].ws()], nick).await
    }

    /// Returns the code with which this gateway refuses to register a nickname; 0 is g1.
    ///
    /// # Panics
    /// If it is registered.
    pub async fn refusal_on(&self, gateway: usize, nick: &str) -> String {
        let refused = Person::try_connect([self.gateways[gateway].ws()], nick).await;
        refused.err().unwrap_or_else(|| panic!("{nick} was registered")).code().to_owned()
    }

    fn front(&self) -> SocketAddr {
        self.nginx.as_ref().map_or_else(|| self.gateways[0].ws(), Nginx::ws)
    }

    /// Connects a line client to nginx, or to the first gateway without nginx.
    pub async fn line(&self) -> LineClient {
        LineClient::connect(self.nginx.as_ref().map_or_else(|| self.gateways[0].tcp(), Nginx::tcp)).await
    }

    /// Connects a WebSocket client to this gateway; 0 is g1.
    pub async fn ws_on(&self, gateway: usize) -> WsClient {
        WsClient::connect(self.gateways[gateway].ws()).await
    }

    /// Connects a line client to this gateway; 0 is g1.
    pub async fn line_on(&self, gateway: usize) -> LineClient {
        LineClient::connect(self.gateways[gateway].tcp()).await
    }

    /// Sends a GET request to the first presence process, and returns the JSON body.
    ///
    /// # Panics
    /// If the status is not 200.
    pub async fn ask(&self, path: &str) -> Value {
        let answer = http::get(self.presence[0].api(), path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Returns true if the first presence process shows the user as online.
    pub async fn is_online(&self, nick: &str) -> bool {
        self.ask(&format!("/v1/users/{nick}")).await["online"] == true
    }

    /// Allows logged warnings and errors that contain this text.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// Ends all running programs with SIGTERM, gateways first.
    ///
    /// # Panics
    /// If a program does not exit with 0, or has logged a warning or error that was not allowed.
    pub async fn finish(mut self) {
        let mut failures = Vec::new();
        let nodes: Vec<&mut Node> = self.gateways.iter_mut().chain(&mut self.presence).collect();
        for node in nodes {
            if node.is_running() {
                let code = node.finish().await;
                if code != Some(0) {
                    failures.push(format!("{} exited with {code:?}", node.name()));
                }
            }
            let problems = node.problems(&self.allowed);
            failures.extend(problems.into_iter().map(|line| format!("{}: {line}", node.name())));
        }
        assert!(failures.is_empty(), "the cluster did not end cleanly:\n{}", failures.join("\n"));
    }
}
