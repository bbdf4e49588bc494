//! The program `gateway`: what it loads and what it starts, and its other face, `gateway ctl`. The rest of its behaviour is [`presence::host::program`].

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use gateway::config::{Config, KEYS};
use gateway::ctl;
use gateway::server::Gateway;
use presence::host::program::{self, Drained, Program};
use presence::host::settings::{Key, Settings, SettingsError};
use presence::host::telemetry::Logs;
use serde::Serialize;

/// glibc keeps what a storm of connections took; this one gives it back. Its options are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Main;

/// A gateway at work, and the name it goes by.
struct Running {
    node: String,
    gateway: Gateway,
}

#[derive(Serialize)]
struct Ready<'a> {
    node: &'a str,
    ws: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
}

impl Program for Main {
    const NAME: &'static str = "gateway";
    const ABOUT: &'static str = "Parley gateway: holds chat clients' connections and carries what they say. \
                                 `gateway ctl --help`: commands for operators";
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
        Ok(Running { node: config.node.clone(), gateway: Gateway::start(config).await? })
    }

    fn ready(server: &Running) -> impl Serialize {
        let addresses = server.gateway.addresses();
        Ready { node: &server.node, ws: addresses.ws, tcp: addresses.tcp, admin: addresses.admin }
    }

    fn metrics(server: &Running) -> &prometheus::Registry {
        server.gateway.metrics()
    }

    fn reload(server: &Running, config: &Config) {
        server.gateway.reload(config);
    }

    async fn dismissed(server: &Running) -> anyhow::Result<()> {
        Ok(server.gateway.dismissed().await?)
    }

    async fn drain(server: Running, grace: Duration) -> Drained {
        server.gateway.drain(grace).await
    }
}

fn main() -> ExitCode {
    let mut flags = std::env::args_os();
    let program = flags.next();
    if flags.next().is_some_and(|first| first == "ctl") {
        return ctl::run(program.into_iter().chain(flags), std::env::vars_os().collect());
    }
    program::run::<Main>()
}
