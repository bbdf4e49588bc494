//! The program `presence`: what it loads and what it starts. The rest of its behaviour is [`presence::host::program`].

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use presence::host::program::{self, Drained, Program};
use presence::host::settings::{Key, Settings, SettingsError};
use presence::host::telemetry::Logs;
use presence::service::config::{Config, KEYS};
use presence::service::server::Presence;
use serde::Serialize;

struct Main;

/// A presence service at work, and the name it goes by.
struct Running {
    node: String,
    presence: Presence,
}

#[derive(Serialize)]
struct Ready<'a> {
    node: &'a str,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Program for Main {
    const NAME: &'static str = "presence";
    const ABOUT: &'static str = "Parley presence: answers who is online, and cleans up after gateways that died";
    type Config = Config;
    type Server = Running;

    const KEYS: &'static [Key] = KEYS;

    fn config(settings: &Settings) -> Result<Config, SettingsError> {
        Config::new(settings)
    }

    fn logs(config: &Config) -> &Logs {
        &config.logs
    }

    fn grace(config: &Config) -> Duration {
        config.grace
    }

    async fn start(config: Config) -> anyhow::Result<Running> {
        Ok(Running { node: config.node.clone(), presence: Presence::start(config).await? })
    }

    fn ready(server: &Running) -> impl Serialize {
        let addresses = server.presence.addresses();
        Ready { node: &server.node, api: addresses.api, admin: addresses.admin }
    }

    fn metrics(server: &Running) -> &prometheus::Registry {
        server.presence.metrics()
    }

    /// What is live here, the program itself takes over: level of logs and grace period.
    fn reload(_server: &Running, _config: &Config) {}

    async fn drain(server: Running, grace: Duration) -> Drained {
        server.presence.shutdown(grace).await
    }
}

fn main() -> ExitCode {
    program::run::<Main>()
}
