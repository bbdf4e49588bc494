//! The program `gateway`, and `gateway ctl`. Flags, signals, settings and logs are handled by
//! [`presence::host::program`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use gateway::config::{GatewayConfig, KEYS};
use gateway::ctl;
use gateway::identity::AuthMode;
use gateway::server::{Gateway, GatewayAddresses};
use presence::host::crypto::install_crypto;
use presence::host::program::{self, Drained, Program};
use presence::host::settings::{Key, Settings, SettingsError};
use presence::host::telemetry::Logs;
use presence::model::RoomCreation;
use serde::Serialize;

/// Returns memory to the system after a burst of connections, unlike glibc. Its options are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct GatewayProgram;

/// A running gateway and what its start reports.
struct RunningGateway {
    node: String,
    serves_page: bool,
    has_redis: bool,
    has_tls: bool,
    gateway: Gateway,
}

/// The listening line on stdout.
#[derive(Serialize)]
struct GatewayListening<'a> {
    node: &'a str,
    ws: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<SocketAddr>,
}

impl Program for GatewayProgram {
    const NAME: &'static str = "gateway";
    const ABOUT: &'static str = "Parley gateway: serves chat clients and delivers their messages. \
                                 `gateway ctl --help`: commands for operators";
    type Config = GatewayConfig;
    type Server = RunningGateway;

    const KEYS: &'static [Key] = KEYS;

    fn config(settings: &Settings) -> Result<GatewayConfig, SettingsError> {
        GatewayConfig::new(settings)
    }

    fn warnings(config: &GatewayConfig) -> Vec<String> {
        let rooms = config.rooms.warnings(|create| {
            let has_tokens = config.auth.mode != AuthMode::Open;
            (create == RoomCreation::Token && !has_tokens).then_some("auth.mode is open, so no client has a token")
        });
        [rooms, config.hooks.warnings(), config.api.webhooks.warnings()].concat()
    }

    fn logs(config: &GatewayConfig) -> &Logs {
        &config.logs
    }

    fn grace(config: &GatewayConfig) -> Duration {
        config.grace
    }

    async fn start(config: GatewayConfig) -> anyhow::Result<RunningGateway> {
        let (node, serves_page, has_redis) = (config.node.clone(), config.limits.page.served, config.redis.is_some());
        let has_tls = config.certificate.is_some();
        Ok(RunningGateway { node, serves_page, has_redis, has_tls, gateway: Gateway::start(config).await? })
    }

    fn listening(server: &RunningGateway) -> impl Serialize {
        let GatewayAddresses { ws, tcp, admin, api } = server.gateway.addresses();
        GatewayListening { node: &server.node, ws, tcp, admin, api }
    }

    fn welcome(server: &RunningGateway) -> String {
        let addresses = server.gateway.addresses();
        let (scheme, dial) =
            if server.has_tls { ("https", "openssl s_client -quiet -connect") } else { ("http", "nc") };
        let page = match server.serves_page {
            true => format!("chat page: {scheme}://{}\n", nearest(addresses.ws)),
            false => String::new(),
        };
        let lines = nearest(addresses.tcp);
        let lines = if server.has_tls { lines.to_string() } else { format!("{} {}", lines.ip(), lines.port()) };
        let alone = if server.has_redis { "" } else { "no Redis: this node alone, everything in memory\n" };
        format!("{page}text lines: {dial} {lines}\n{alone}")
    }

    fn metrics(server: &RunningGateway) -> &prometheus::Registry {
        server.gateway.metrics()
    }

    fn reload(server: &RunningGateway, config: &GatewayConfig) {
        server.gateway.reload(config);
    }

    async fn stop_requested(server: &RunningGateway) -> anyhow::Result<()> {
        Ok(server.gateway.stop_requested().await?)
    }

    async fn drain(server: RunningGateway, grace: Duration) -> Drained {
        server.gateway.drain(grace).await
    }
}

/// Returns the address at which this machine reaches a listener: loopback if it is bound to every interface.
fn nearest(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn main() -> ExitCode {
    install_crypto();
    let mut args = std::env::args_os();
    let program = args.next();
    if args.next().is_some_and(|first| first == "ctl") {
        return ctl::run(program.into_iter().chain(args), std::env::vars_os().collect());
    }
    program::run::<GatewayProgram>()
}
