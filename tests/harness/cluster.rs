//! A whole cluster as a value: Redis, gateways, presence, nginx. Dropping it ends everything.
//!
//! [`Cluster::finish`] is the polite end that every test should reach: all programs leave on SIGTERM with exit code 0,
//! and none has logged a warning that the test did not allow.

use std::net::SocketAddr;

use serde_json::Value;

use crate::client::{LineClient, WsClient};
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
    redis: Redis,
}

impl ClusterBuilder {
    /// Number of gateways: g1, g2, ...
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Number of presence processes: p1, p2, ...
    #[must_use]
    pub fn presence(mut self, count: usize) -> Self {
        self.presence = count;
        self
    }

    /// True if nginx stands in front of the gateways.
    #[must_use]
    pub fn nginx(mut self, wanted: bool) -> Self {
        self.nginx = wanted;
        self
    }

    /// True if every gateway has a network of its own to Redis that can be made bad.
    #[must_use]
    pub fn fault_proxies(mut self, wanted: bool) -> Self {
        self.fault_proxies = wanted;
        self
    }

    /// Sets a variable in the environment of every gateway.
    #[must_use]
    pub fn gateway_setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Changes a setting of the shipped Redis configuration.
    #[must_use]
    pub fn redis_setting(mut self, name: &str, value: &str) -> Self {
        self.redis = self.redis.setting(name, value);
        self
    }

    /// Starts it all and waits until every part is ready.
    ///
    /// # Panics
    /// When a part does not become ready.
    pub async fn start(self) -> Cluster {
        let mut redis = self.redis;
        redis.start().await;
        let mut presence = Vec::new();
        for number in 1..=self.presence {
            presence.push(Node::presence(&format!("p{number}")).redis(&redis).start().await);
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
                Some(Nginx::start(&ws, &lines).await)
            }
            false => None,
        };
        Cluster { nginx, gateways, presence, proxies, redis, allowed: Vec::new() }
    }
}

/// A running cluster. Fields are public: a test may do to any part what the world does to it.
#[derive(Debug)]
pub struct Cluster {
    /// The nginx address, if there is one.
    pub nginx: Option<Nginx>,
    /// The gateways, g1 first.
    pub gateways: Vec<Node>,
    /// The presence processes, p1 first.
    pub presence: Vec<Node>,
    /// The network between each gateway and Redis, in the order of the gateways; empty when it was not asked for.
    pub proxies: Vec<FaultProxy>,
    /// The Redis that all parts share.
    pub redis: Redis,
    allowed: Vec<String>,
}

impl Cluster {
    /// Begins with one gateway, no presence process and no nginx.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            gateways: 1,
            presence: 0,
            nginx: false,
            fault_proxies: false,
            settings: Vec::new(),
            redis: Redis::away(),
        }
    }

    /// A WebSocket client through the nginx address: nginx, or else the first gateway.
    pub async fn ws(&self) -> WsClient {
        WsClient::connect(self.nginx.as_ref().map_or_else(|| self.gateways[0].ws(), Nginx::ws)).await
    }

    /// A line client through the nginx address.
    pub async fn line(&self) -> LineClient {
        LineClient::connect(self.nginx.as_ref().map_or_else(|| self.gateways[0].tcp(), Nginx::tcp)).await
    }

    /// A WebSocket client of this gateway, 0 being g1.
    pub async fn ws_on(&self, gateway: usize) -> WsClient {
        WsClient::connect(self.gateways[gateway].ws()).await
    }

    /// A line client of this gateway, 0 being g1.
    pub async fn line_on(&self, gateway: usize) -> LineClient {
        LineClient::connect(self.gateways[gateway].tcp()).await
    }

    /// Asks the first presence process; the answer must be 200.
    ///
    /// # Panics
    /// If it is not.
    pub async fn ask(&self, path: &str) -> Value {
        let answer = http::get(self.presence[0].api(), path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Returns whether the first presence process shows the user as online.
    pub async fn is_online(&self, nick: &str) -> bool {
        self.ask(&format!("/v1/users/{nick}")).await["online"] == true
    }

    /// Warnings and errors that hold this text belong to the story.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// The polite end: SIGTERM to every program that still runs, gateways first.
    ///
    /// # Panics
    /// If a program does not exit with 0, or has logged a warning or error that was not allowed.
    pub async fn finish(mut self) {
        let mut complaints = Vec::new();
        let nodes: Vec<&mut Node> = self.gateways.iter_mut().chain(&mut self.presence).collect();
        for node in nodes {
            if node.is_running() {
                let code = node.leave().await;
                if code != Some(0) {
                    complaints.push(format!("{} exited with {code:?}", node.name()));
                }
            }
            let problems = node.problems(&self.allowed);
            complaints.extend(problems.into_iter().map(|line| format!("{}: {line}", node.name())));
        }
        assert!(complaints.is_empty(), "the cluster did not end cleanly:\n{}", complaints.join("\n"));
    }
}
