//! The program `presence`. Flags, signals, settings and logs are handled by [`presence::host::program`].

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use presence::host::crypto::install_crypto;
use presence::host::program::{self, Drained, Program};
use presence::host::settings::{Key, Settings, SettingsError};
use presence::host::telemetry::Logs;
use presence::model::RoomCreation;
use presence::service::access::ApiScope;
use presence::service::config::{KEYS, PresenceConfig};
use presence::service::server::Presence;
use serde::Serialize;

/// Returns memory to the system after a burst of connections, unlike glibc. Its options are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct PresenceProgram;

/// A running presence service and its node id.
struct RunningPresence {
    node: String,
    presence: Presence,
}

/// The listening line on stdout.
#[derive(Serialize)]
struct PresenceListening<'a> {
    node: &'a str,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Program for PresenceProgram {
    const NAME: &'static str = "presence";
    const ABOUT: &'static str = "Parley presence: serves the presence HTTP API and reaps failed gateways";
    type Config = PresenceConfig;
    type Server = RunningPresence;

    const KEYS: &'static [Key] = KEYS;

    fn config(settings: &Settings) -> Result<PresenceConfig, SettingsError> {
        PresenceConfig::new(settings)
    }

    fn warnings(config: &PresenceConfig) -> Vec<String> {
        let rooms = config.rooms.warnings(|create| {
            let has_key = config.access.keys.iter().any(|key| key.has(ApiScope::Publish));
            (create == RoomCreation::Api && !has_key).then_some("no key of api.keys has the scope publish")
        });
        [rooms, config.webhooks.warnings()].concat()
    }

    fn logs(config: &PresenceConfig) -> &Logs {
        &config.logs
    }

    fn grace(config: &PresenceConfig) -> Duration {
        config.grace
    }

    async fn start(config: PresenceConfig) -> anyhow::Result<RunningPresence> {
        Ok(RunningPresence { node: config.node.clone(), presence: Presence::start(config).await? })
    }

    fn listening(server: &RunningPresence) -> impl Serialize {
        let addresses = server.presence.addresses();
        PresenceListening { node: &server.node, api: addresses.api, admin: addresses.admin }
    }

    fn metrics(server: &RunningPresence) -> &prometheus::Registry {
        server.presence.metrics()
    }

    fn reload(server: &RunningPresence, config: &PresenceConfig) {
        server.presence.reload(config);
    }

    /// A failed API server ends the process, so its supervisor starts another one.
    async fn stop_requested(server: &RunningPresence) -> anyhow::Result<()> {
        server.presence.api_ended().await;
        Ok(())
    }

    async fn drain(server: RunningPresence, grace: Duration) -> Drained {
        server.presence.shutdown(grace).await
    }
}

fn main() -> ExitCode {
    install_crypto();
    program::run::<PresenceProgram>()
}
