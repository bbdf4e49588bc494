//! `gateway ctl`: what operators ask a cluster and tell it to do, from a shell.
//!
//! A part of the gateway's own program, so that it is wherever a gateway is, and finds Redis by the same settings
//! (`--config`, environment, `--set`). Reads and orders go through the registry; nothing here listens, holds a lease or
//! writes a log. A table for people, one JSON document with `--json`; everything that went wrong is one line on stderr.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | it is so, or it is done |
//! | 1 | refused: nobody of that name is there; or the audit found drift |
//! | 2 | bad flags or settings, or somebody who is needed does not answer |

mod audit;
mod drain;
mod kick;
mod status;
mod table;
mod who;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use presence::host::settings::{Settings, Sources};
use presence::registry::{RedisRegistry, Registry, RegistryError};
use presence::store::redis::Redis;
use serde::Serialize;

use crate::config::{Config, KEYS};

/// Ask a cluster, and tell it what to do. Redis is found by the settings of a gateway; the exit code is 0 when it is so or
/// done, 1 when it is refused or drift was found, 2 for bad flags or settings and when Redis does not answer.
#[derive(Debug, clap::Parser)]
#[command(disable_help_subcommand = true)]
struct Flags {
    /// Read settings from this TOML file; environment variables such as PARLEY__REDIS__URL go over it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set one key; goes over file and environment. May be given for several keys
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Answer with one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show Redis and every gateway: its state, its sessions, when it last beat
    Status,
    /// Show who is online, and on which gateway
    Who {
        /// Only this user, or only the members of this room (with its #)
        #[arg(value_name = "NICK|#ROOM")]
        whom: Option<String>,
    },
    /// End the session of a user, wherever it is
    Kick {
        /// The nickname, in any case
        nick: String,
    },
    /// Compare what the store has with what the gateways hold; exit code 1 if they differ
    Audit {
        /// Where the admin port of a gateway is, over what it tells itself. May be given for several gateways
        #[arg(long = "gateway", value_name = "NODE=HOST:PORT")]
        gateways: Vec<String>,
    },
    /// Order a gateway to end as on SIGTERM: its clients go to the others, then it exits with 0
    Drain {
        /// Its node.id, as `status` shows it
        node: String,
    },
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Failure {
    /// Whom it is about is not there.
    #[error("{0}")]
    Refused(String),
    /// What it was told makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Who is needed did not answer.
    #[error("{0}")]
    Silent(String),
    /// Redis did not answer, or not as expected.
    #[error(transparent)]
    Store(#[from] RegistryError),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) | Self::Silent(_) | Self::Store(_) => 2,
        }
    }
}

/// What a command found or did.
struct Answer {
    /// The exit code.
    code: u8,
    /// For people; ends with its last line.
    text: String,
    json: serde_json::Value,
}

impl Answer {
    fn new(text: String, json: &impl Serialize) -> Self {
        Self { code: 0, text, json: serde_json::to_value(json).expect("rows of names and numbers are always JSON") }
    }
}

/// The cluster that the settings lead to.
struct Cluster {
    redis: Redis,
    /// Where Redis is, without credentials.
    address: String,
    store: RedisRegistry,
    registry: Registry,
}

/// Runs one command; `flags` begins with the name of the program.
#[must_use]
pub fn run(flags: impl IntoIterator<Item = OsString>, environment: Vec<(OsString, OsString)>) -> ExitCode {
    let command = Flags::command().name("gateway ctl").bin_name("gateway ctl");
    let flags = command.try_get_matches_from(flags).and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = match flags {
        Ok(flags) => flags,
        Err(answer) if answer.use_stderr() => {
            return fail(&Failure::Usage(format!("{} (see gateway ctl --help)", reason(&answer))));
        }
        Err(help) => {
            say(std::io::stdout(), &help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    let Flags { config, set, json, command } = flags;
    match answer(&command, &Sources { file: config, environment, flags: set }) {
        Ok(Answer { code, text, json: document }) => {
            say(std::io::stdout(), &if json { format!("{document}\n") } else { text });
            code.into()
        }
        Err(failure) => fail(&failure),
    }
}

/// The first paragraph, in one line.
fn reason(answer: &clap::Error) -> String {
    if answer.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = answer.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

fn answer(command: &Command, sources: &Sources) -> Result<Answer, Failure> {
    let config = Settings::load(KEYS, sources).and_then(|settings| Config::new(&settings));
    let config = config.map_err(|reason| Failure::Usage(reason.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(format!("could not start the runtime: {error}")))?;
    runtime.block_on(async {
        let cluster = Cluster::of(&config)?;
        let answer = match command {
            Command::Status => status::status(&cluster).await,
            Command::Who { whom } => who::who(&cluster, whom.as_deref()).await,
            Command::Kick { nick } => kick::kick(&cluster, nick).await,
            Command::Audit { gateways } => audit::audit(&cluster, gateways).await,
            Command::Drain { node } => drain::drain(&cluster, node).await,
        };
        answer.map_err(|failure| match failure {
            Failure::Store(error) => Failure::Silent(format!("redis at {}: {error}", cluster.address)),
            other => other,
        })
    })
}

impl Cluster {
    /// Needs a running tokio runtime.
    fn of(config: &Config) -> Result<Self, Failure> {
        let Some(url) = &config.redis else {
            return Err(Failure::Usage("redis.url is not set: a gateway without it is no cluster".to_owned()));
        };
        let redis = Redis::open(url.reveal(), &config.prefix).map_err(|error| Failure::Usage(error.to_string()))?;
        let store = RedisRegistry::new(redis.clone());
        let address = url.to_string().trim_start_matches("redis://").trim_start_matches("***@").to_owned();
        let address = address.trim_end_matches('/').to_owned();
        Ok(Self { redis, address, registry: Registry::Redis(store.clone()), store })
    }
}

fn fail(failure: &Failure) -> ExitCode {
    say(std::io::stderr(), &format!("gateway ctl: {failure}\n"));
    failure.code().into()
}

/// Writes to whoever asked. That nobody reads on, as behind `head`, is no failure.
fn say(mut to: impl Write, text: &str) {
    if to.write_all(text.as_bytes()).and_then(|()| to.flush()).is_err() {
        tracing::debug!("nobody reads our output");
    }
}
