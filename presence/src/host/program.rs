//! How both programs behave towards whoever starts them: flags, exit codes, the ready line, signals.
//!
//! SIGTERM and SIGINT ask for an end in order, a second one ends at once; SIGHUP reads the settings again.
//!
//! `gateway` and `presence` are the same program in this respect, so it is written once; each `main.rs` says only what
//! it loads and what it starts. Servers and tests that start them in their own process never come here.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | drained, or did what a flag asked for |
//! | 1 | could not start |
//! | 2 | the grace period ran out, or a second signal cut it short |
//! | 64 | bad flags or bad settings: one line on stderr names the key, the value and the reason |

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::host::reload::Reloader;
use crate::host::settings::{Key, Settings, SettingsError, Sources, example};
use crate::host::telemetry::{self, Logs, Telemetry};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// In order.
    Done,
    /// Before it was ready.
    NotStarted,
    /// Before its work was drained.
    GraceRanOut,
    /// Because of its flags or settings.
    BadSettings,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotStarted => 1,
            Self::GraceRanOut => 2,
            Self::BadSettings => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything was brought to its end.
    Whole,
    /// Time was up before.
    GraceRanOut,
}

/// A program's own part: what it is told, and what it runs.
pub trait Program {
    /// Its name on the command line.
    const NAME: &'static str;
    /// What it does, for `--help`.
    const ABOUT: &'static str;
    /// Its settings, shown with secrets hidden.
    type Config: Display;
    /// What runs.
    type Server;

    /// Every setting that it knows.
    const KEYS: &'static [Key];

    /// Validates the settings.
    ///
    /// # Errors
    /// The first key that is wrong.
    fn config(settings: &Settings) -> Result<Self::Config, SettingsError>;

    /// Where logs go and which.
    fn logs(config: &Self::Config) -> &Logs;

    /// How long draining may take.
    fn grace(config: &Self::Config) -> Duration;

    /// Starts serving: every listener is bound when it returns. Dropping the future gives up.
    fn start(config: Self::Config) -> impl Future<Output = anyhow::Result<Self::Server>>;

    /// What the ready line tells beside `"ready":true`: the node's name and every bound address.
    fn ready(server: &Self::Server) -> impl Serialize;

    /// Where its numbers are.
    fn metrics(server: &Self::Server) -> &prometheus::Registry;

    /// Takes over what is [`live`](Key::live) of newer settings, and nothing else. Log level and grace period are none of
    /// its business.
    fn reload(server: &Self::Server, config: &Self::Config);

    /// Waits for an order to end that comes by another way than a signal. Dropping the future loses nothing.
    ///
    /// # Errors
    /// It should not have started, which is known only now: nobody was served yet.
    fn stop_requested(_: &Self::Server) -> impl Future<Output = anyhow::Result<()>> {
        std::future::pending()
    }

    /// Ends serving, within about `grace`. Dropping the future ends it at once.
    fn drain(server: Self::Server, grace: Duration) -> impl Future<Output = Drained>;
}

#[derive(clap::Parser)]
#[command(version)]
struct Flags {
    /// Read settings from this TOML file; environment variables such as PARLEY__NODE__ID go over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key; goes over file and environment. May be given for several keys
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check the settings, print the ones in effect with secrets hidden, and exit
    #[arg(long)]
    check: bool,
    /// Print a settings file with every key, its meaning and its default, and exit
    #[arg(long)]
    example: bool,
}

/// What a program was told when it started.
struct Told<C> {
    sources: Sources,
    settings: Settings,
    config: C,
}

/// Runs a program from its flags to its exit code.
#[must_use]
pub fn run<P: Program>() -> ExitCode {
    let told = match configure::<P>(std::env::args_os(), std::env::vars_os()) {
        Ok(told) => told,
        Err(exit) => return exit.into(),
    };
    let telemetry = match telemetry::init(P::logs(&told.config)) {
        Ok(telemetry) => telemetry,
        Err(reason) => {
            say(std::io::stderr(), format_args!("{}: {reason:#}\n", P::NAME));
            return Exit::BadSettings.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start the runtime");
            return Exit::NotStarted.into();
        }
    };
    let exit = runtime.block_on(serve::<P>(told, &telemetry));
    if exit == Exit::Done {
        telemetry.end();
    }
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    exit.into()
}

/// Flags and settings, or how the program ends without starting.
fn configure<P: Program>(
    flags: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Told<P::Config>, Exit> {
    let command = Flags::command().name(P::NAME).about(P::ABOUT);
    let flags = command.try_get_matches_from(flags).and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = flags.map_err(|answer| {
        let text = answer.to_string();
        if !answer.use_stderr() {
            say(std::io::stdout(), text);
            return Exit::Done;
        }
        let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        say(std::io::stderr(), format_args!("{0}: {reason} (see {0} --help)\n", P::NAME));
        Exit::BadSettings
    })?;
    if flags.example {
        say(std::io::stdout(), example(P::NAME, P::KEYS));
        return Err(Exit::Done);
    }
    let sources = Sources { file: flags.config, environment: environment.into_iter().collect(), flags: flags.set };
    let read = Settings::load(P::KEYS, &sources).and_then(|settings| Ok((P::config(&settings)?, settings)));
    let (config, settings) = read.map_err(|reason| {
        say(std::io::stderr(), format_args!("{}: {reason}\n", P::NAME));
        Exit::BadSettings
    })?;
    if flags.check {
        say(std::io::stdout(), config);
        return Err(Exit::Done);
    }
    Ok(Told { sources, settings, config })
}

#[derive(Serialize)]
struct ReadyLine<T> {
    ready: bool,
    #[serde(flatten)]
    server: T,
}

fn ready_line(server: impl Serialize) -> String {
    let line = ReadyLine { ready: true, server };
    serde_json::to_string(&line).expect("a name and addresses are always JSON") + "\n"
}

async fn serve<P: Program>(told: Told<P::Config>, telemetry: &Telemetry) -> Exit {
    let Told { sources, settings, config } = told;
    let mut grace = P::grace(&config);
    let started = async {
        let mut signals = Signals::listen().context("listen for signals")?;
        let server = tokio::select! {
            server = P::start(config) => server?,
            () = signals.end() => return Ok(None),
        };
        anyhow::Ok(Some((server, signals)))
    };
    let (server, mut signals) = match started.await {
        Ok(Some(running)) => running,
        Ok(None) => return Exit::Done,
        Err(error) => return not_started(&error),
    };
    let mut reloader = Reloader::new(P::KEYS, sources, settings, P::metrics(&server));
    say(std::io::stdout(), ready_line(P::ready(&server)));

    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            dismissed = P::stop_requested(&server) => match dismissed {
                Ok(()) => Wish::End,
                Err(error) => return not_started(&error),
            },
        };
        if wish == Wish::End {
            break;
        }
        reloader.reload(P::config, |config| {
            grace = P::grace(config);
            if let Err(reason) = telemetry.set_level(&P::logs(config).level) {
                tracing::error!(reason, "log level not changed");
            }
            P::reload(&server, config);
        });
    }
    tracing::info!(grace_seconds = grace.as_secs(), "draining");
    let drained = tokio::select! {
        drained = P::drain(server, grace) => drained,
        () = signals.end() => {
            tracing::warn!("second signal, ending at once");
            return Exit::GraceRanOut;
        }
    };
    match drained {
        Drained::Whole => {
            tracing::info!("drained");
            Exit::Done
        }
        Drained::GraceRanOut => {
            tracing::warn!("the grace period ran out");
            Exit::GraceRanOut
        }
    }
}

fn not_started(error: &anyhow::Error) -> Exit {
    tracing::error!(error = format!("{error:#}"), "could not start");
    Exit::NotStarted
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Reload,
}

/// The signals that we hear.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }

    /// Waits for one. Those of a kind that came since the last call count as one; an end goes before a reload.
    async fn next(&mut self) -> Wish {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for one that asks for an end. A wish for a reload stays until somebody asks [`Signals::next`].
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Writes to whoever started us. That nobody reads it is no reason to end.
fn say(mut to: impl Write, text: impl Display) {
    if write!(to, "{text}").and_then(|()| to.flush()).is_err() {
        tracing::debug!("nobody reads our output");
    }
}

#[cfg(test)]
mod tests;
