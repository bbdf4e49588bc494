//! The program `presence`: what it loads and what it starts. The rest of its behaviour is [`presence::program`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use presence::config::Config;
use presence::program::{self, Drained, Program};
use presence::server::Presence;
use presence::settings::SettingsError;
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

    fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, SettingsError> {
        Config::load(file, environment)
    }

    fn log_level(config: &Config) -> &str {
        &config.log
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

    async fn drain(server: Running, grace: Duration) -> Drained {
        server.presence.shutdown(grace).await
    }
}

fn main() -> ExitCode {
    program::run::<Main>()
}
