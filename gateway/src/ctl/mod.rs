//! `gateway ctl`: queries and orders of operators to a cluster, from a shell.
//!
//! It is part of the gateway program, so it is available on every gateway host and finds Redis by the same settings
//! (`--config`, environment, `--set`). Reads and orders go through the registry; nothing here listens, holds a lease or
//! writes a stream. The output is a table, or one JSON document with `--json`; an error is one line on stderr.
//! Without a command, the list of commands is printed there.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused: there is no such user, room or gateway; or the audit found drift |
//! | 2 | invalid flags or settings, or Redis or a gateway does not answer |

mod audit;
mod drain;
mod key;
mod kick;
mod sanctions;
mod status;
mod table;
mod webhooks;
mod who;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use presence::host::settings::{Settings, Sources};
use presence::model::SanctionKind;
use presence::registry::{LeaseSummary, RedisRegistry, Registry, RegistryError};
use presence::store::redis::RedisStore;
use serde::Serialize;

use crate::config::{GatewayConfig, KEYS};

/// Inspect and control a cluster. Redis is found by the settings of a gateway. Exit codes: 0 done, 1 refused or drift
/// found, 2 invalid flags or settings, or Redis or a gateway does not answer.
#[derive(Debug, clap::Parser)]
#[command(disable_help_subcommand = true)]
struct CtlFlags {
    /// Read settings from this TOML file; environment variables such as PARLEY__REDIS__URL override it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set one key; overrides file and environment. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CtlCommand {
    /// Show Redis and every gateway: state, sessions, last beat
    Status,
    /// Show the users online and their gateways
    Who {
        /// Only this user, or only the members of this room (with its #)
        #[arg(value_name = "NICK|#ROOM")]
        whom: Option<String>,
    },
    /// End the session of a nickname, or every session of a user or an address, wherever it is
    Kick(sanctions::KickFlags),
    /// Ban a nickname, a user or an address from the cluster, on every gateway within 2 s
    Ban(sanctions::BanFlags),
    /// Lift a ban
    Unban(sanctions::SubjectFlags),
    /// Show the bans
    Bans,
    /// Refuse the messages of a nickname or a user, on every gateway within 2 s
    Mute(sanctions::MuteFlags),
    /// Lift a mute
    Unmute(sanctions::SubjectFlags),
    /// Show the mutes
    Mutes,
    /// Refuse the tokens of a user that were issued before now, and end the sessions that have one
    Revoke(sanctions::RevokeFlags),
    /// Show the revocations
    Revocations,
    /// Compare the store with the claims of the gateways; exit code 1 if they differ
    Audit {
        /// Address of the admin port of a gateway; overrides the address in its lease. May be repeated
        #[arg(long = "gateway", value_name = "NODE=HOST:PORT")]
        gateways: Vec<String>,
    },
    /// Show the webhooks: events that wait, dead letters, last error
    Webhooks {
        /// Send the dead letters of this webhook again
        #[arg(long, value_name = "WEBHOOK")]
        replay: Option<String>,
    },
    /// Draw a key of the server API: prints it once, with its row of api.keys
    Key {
        /// The name of the application: letters, digits, - and _
        name: String,
        /// Scopes: read, publish, moderate
        #[arg(required = true)]
        scopes: Vec<String>,
    },
    /// Drain a gateway as on SIGTERM: its clients reconnect to other gateways, then it exits with 0
    Drain {
        /// Its node.id, as shown by `status`
        node: String,
    },
}

/// Error of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum CtlError {
    /// The user, room or gateway does not exist or is not in the right state.
    #[error("{0}")]
    Refused(String),
    /// Invalid flags, arguments or settings.
    #[error("{0}")]
    Usage(String),
    /// A gateway or Redis did not answer.
    #[error("{0}")]
    Silent(String),
    /// Redis did not answer, or gave an unexpected answer.
    #[error(transparent)]
    Store(#[from] RegistryError),
}

impl CtlError {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) | Self::Silent(_) | Self::Store(_) => 2,
        }
    }
}

/// Result of a command.
struct CtlAnswer {
    /// The exit code.
    code: u8,
    /// Text output, with a line end after its last line.
    text: String,
    json: serde_json::Value,
}

impl CtlAnswer {
    fn new(text: String, json: &impl Serialize) -> Self {
        Self { code: 0, text, json: serde_json::to_value(json).expect("rows of names and numbers are always JSON") }
    }
}

/// Access to the cluster of the settings.
struct CommandAccess {
    redis: RedisStore,
    /// Address of Redis, without credentials.
    address: String,
    store: RedisRegistry,
    registry: Registry,
}

/// Errors of a call without a command, without and with flags.
const MISSING_COMMAND: [ErrorKind; 2] =
    [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];

/// Runs one command; `flags` begins with the name of the program.
#[must_use]
pub fn run(flags: impl IntoIterator<Item = OsString>, environment: Vec<(OsString, OsString)>) -> ExitCode {
    let mut command = CtlFlags::command().name("gateway ctl").bin_name("gateway ctl");
    let flags = command.try_get_matches_from_mut(flags).and_then(|matches| CtlFlags::from_arg_matches(&matches));
    let flags = match flags {
        Ok(flags) => flags,
        Err(answer) if MISSING_COMMAND.contains(&answer.kind()) => {
            print(std::io::stderr(), &command.render_help().to_string());
            return CtlError::Usage("a command is missing".to_owned()).code().into();
        }
        Err(answer) if answer.use_stderr() => {
            return fail(&CtlError::Usage(format!("{} (see gateway ctl --help)", reason(&answer))));
        }
        Err(help) => {
            print(std::io::stdout(), &help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    let CtlFlags { config, set, json, command } = flags;
    match answer(&command, &Sources { file: config, environment, flags: set }) {
        Ok(CtlAnswer { code, text, json: document }) => {
            print(std::io::stdout(), &if json { format!("{document}\n") } else { text });
            code.into()
        }
        Err(failure) => fail(&failure),
    }
}

/// Returns the first paragraph of an error in one line.
fn reason(answer: &clap::Error) -> String {
    let text = answer.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

fn answer(command: &CtlCommand, sources: &Sources) -> Result<CtlAnswer, CtlError> {
    if let CtlCommand::Key { name, scopes } = command {
        return key::key(name, scopes);
    }
    let read = Settings::read(KEYS, sources, GatewayConfig::new);
    let (_, config) = read.map_err(|report| CtlError::Usage(report.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CtlError::Usage(format!("runtime not started: {error}")))?;
    runtime.block_on(async {
        let cluster = CommandAccess::of(&config)?;
        let answer = match command {
            CtlCommand::Status => status::status(&cluster).await,
            CtlCommand::Who { whom } => who::who(&cluster, whom.as_deref()).await,
            CtlCommand::Kick(flags) => sanctions::kick(&cluster, flags, &config.limits.addresses.proxies).await,
            CtlCommand::Ban(flags) => sanctions::ban(&cluster, flags, &config.limits.addresses.proxies).await,
            CtlCommand::Unban(subject) => sanctions::lift_of(&cluster, SanctionKind::Ban, subject).await,
            CtlCommand::Bans => sanctions::list(&cluster, SanctionKind::Ban).await,
            CtlCommand::Mute(flags) => sanctions::mute(&cluster, flags).await,
            CtlCommand::Unmute(subject) => sanctions::lift_of(&cluster, SanctionKind::Mute, subject).await,
            CtlCommand::Mutes => sanctions::list(&cluster, SanctionKind::Mute).await,
            CtlCommand::Revoke(flags) => sanctions::revoke(&cluster, flags).await,
            CtlCommand::Revocations => sanctions::list(&cluster, SanctionKind::Revocation).await,
            CtlCommand::Audit { gateways } => audit::audit(&cluster, gateways).await,
            CtlCommand::Webhooks { replay: None } => webhooks::show(&cluster).await,
            CtlCommand::Webhooks { replay: Some(webhook) } => webhooks::replay(&cluster, webhook).await,
            CtlCommand::Drain { node } => drain::drain(&cluster, node).await,
            CtlCommand::Key { name, scopes } => key::key(name, scopes),
        };
        match answer {
            Err(CtlError::Store(error)) => {
                let handshake = cluster.redis.handshake_failure().await;
                let reason = handshake.map_or_else(|| error.to_string(), |reason| format!("tls handshake: {reason}"));
                Err(CtlError::Silent(format!("redis at {}: {reason}", cluster.address)))
            }
            answer => answer,
        }
    })
}

impl CommandAccess {
    /// Opens the cluster of the settings. Requires a running tokio runtime.
    fn of(config: &GatewayConfig) -> Result<Self, CtlError> {
        let Some(url) = &config.redis else {
            return Err(CtlError::Usage(
                "redis.url is not set, so there is no cluster to ask; a gateway without Redis takes orders by its server \
                 API (api.addr). For the cluster of make run: export PARLEY__REDIS__URL=redis://127.0.0.1:6390/ (with \
                 OFFSET=n the port is 6390 + n)"
                    .to_owned(),
            ));
        };
        let redis = RedisStore::open_with(url.reveal(), &config.redis_tls, &config.prefix);
        let redis = redis.map_err(|error| CtlError::Usage(error.to_string()))?;
        let store = RedisRegistry::new(redis.clone());
        Ok(Self { redis, address: url.shown_address(), registry: Registry::Redis(store.clone()), store })
    }
}

/// Returns the refusal of a node id that no serving gateway has, with those that serve.
fn no_such_gateway(node: &str, serving: &[LeaseSummary]) -> CtlError {
    let nodes: BTreeSet<&str> = serving.iter().map(|gateway| gateway.node.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let there = if nodes.is_empty() { "there is none".to_owned() } else { format!("there is {}", nodes.join(", ")) };
    CtlError::Refused(format!("no gateway {node} serves; {there}"))
}

fn fail(failure: &CtlError) -> ExitCode {
    print(std::io::stderr(), &format!("gateway ctl: {failure}\n"));
    failure.code().into()
}

/// Writes the output. A closed stream, as with `head`, is not an error.
fn print(mut to: impl Write, text: &str) {
    if to.write_all(text.as_bytes()).and_then(|()| to.flush()).is_err() {
        tracing::debug!("output stream closed");
    }
}
