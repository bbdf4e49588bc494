//! The process of both programs: flags, exit codes, the listening line and signals.
//!
//! Each `main.rs` implements [`Program`] and calls [`run`]. SIGTERM and SIGINT start a graceful shutdown, a second one
//! ends the process at once; SIGHUP reloads the settings. Tests that start a server in their own process do not use it.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | drained, or the action of a flag is done |
//! | 1 | not started, or a part of it failed |
//! | 2 | not drained: the grace period expired, or a second signal arrived |
//! | 64 | invalid flags or settings: a line on stderr for each names the key, the value and the reason |

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::host::descriptors;
use crate::host::reload::Reloader;
use crate::host::settings::{IgnoredVariable, Key, Settings, SettingsError, Sources, example};
use crate::host::telemetry::{self, Logs, Telemetry};

/// Time limit for an error line on stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Sent to a process that exceeds the maximum size of a file (`RLIMIT_FSIZE`); the write then fails as well.
const FILE_SIZE_EXCEEDED: SignalKind = SignalKind::from_raw(nix::libc::SIGXFSZ);

/// Outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It drained, or a flag such as `--check` was handled.
    Done,
    /// It failed before it was ready.
    NotStarted,
    /// A part of it failed while it ran.
    Failed,
    /// It ended before its work was drained: the grace period expired, or a second signal arrived.
    NotDrained,
    /// Its flags or settings are invalid.
    BadSettings,
}

impl Exit {
    /// Returns the exit code of the process.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotStarted | Self::Failed => 1,
            Self::NotDrained => 2,
            Self::BadSettings => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Outcome of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All work is finished.
    Complete,
    /// The grace period expired first.
    GraceExceeded,
    /// A part of the server had failed, which its log names.
    Failed,
}

/// The part that differs between programs: settings and server.
pub trait Program {
    /// Its name on the command line.
    const NAME: &'static str;
    /// Its description for `--help`.
    const ABOUT: &'static str;
    /// Its settings, displayed with secrets hidden.
    type Config: Display;
    /// Its running server.
    type Server;

    /// Every known setting.
    const KEYS: &'static [Key];

    /// Validates the settings. It is called again with another value of the key that an error names.
    ///
    /// # Errors
    /// The first invalid key.
    fn config(settings: &Settings) -> Result<Self::Config, SettingsError>;

    /// Returns what is valid in the settings and cannot be meant, for people. None by default.
    fn warnings(_: &Self::Config) -> Vec<String> {
        Vec::new()
    }

    /// Returns the settings of the logs.
    fn logs(config: &Self::Config) -> &Logs;

    /// Returns the maximum duration of the drain.
    fn grace(config: &Self::Config) -> Duration;

    /// Starts serving; every listener is bound when it returns. Dropping the future cancels the start.
    fn start(config: Self::Config) -> impl Future<Output = anyhow::Result<Self::Server>>;

    /// Returns the contents of the listening line in addition to `"listening":true`: the node id and every bound
    /// address.
    fn listening(server: &Self::Server) -> impl Serialize;

    /// Returns lines for a person that starts the program at a terminal; empty for none.
    fn welcome(_: &Self::Server) -> String {
        String::new()
    }

    /// Returns the registry of its metrics.
    fn metrics(server: &Self::Server) -> &prometheus::Registry;

    /// Applies the [`live`](Key::live) keys of newer settings, except log level and grace period, which [`run`]
    /// applies.
    fn reload(server: &Self::Server, config: &Self::Config);

    /// Waits for a stop request other than a signal. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The server must not run, which is known only now; no client was served yet.
    fn stop_requested(_: &Self::Server) -> impl Future<Output = anyhow::Result<()>> {
        std::future::pending()
    }

    /// Drains the server, within about `grace`. Dropping the future ends it at once.
    fn drain(server: Self::Server, grace: Duration) -> impl Future<Output = Drained>;
}

#[derive(clap::Parser)]
#[command(version)]
struct ProgramFlags {
    /// Read settings from this TOML file; environment variables such as PARLEY__NODE__ID override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key; overrides file and environment. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check the settings, print the ones in effect with secrets hidden, and exit
    #[arg(long)]
    check: bool,
    /// Print a settings file with every key, its meaning and its default, and exit
    #[arg(long)]
    example: bool,
}

/// Configuration of a started program, and its sources.
struct Configured<C> {
    sources: Sources,
    settings: Settings,
    config: C,
}

/// Runs a program from its flags to its exit code.
#[must_use]
pub fn run<P: Program>() -> ExitCode {
    let configured = match configure::<P>(std::env::args_os(), std::env::vars_os()) {
        Ok(configured) => configured,
        Err(exit) => return exit.into(),
    };
    let telemetry = match telemetry::init(P::logs(&configured.config)) {
        Ok(telemetry) => telemetry,
        Err(reason) => {
            print_error(format!("{}: {reason:#}\n", P::NAME));
            return Exit::BadSettings.into();
        }
    };
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "descriptor limit not raised");
    }
    for IgnoredVariable { name, nearest } in configured.sources.ignored_variables(P::KEYS) {
        tracing::warn!(name, nearest, "environment variable ignored");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "runtime not started");
            return Exit::NotStarted.into();
        }
    };
    let exit = runtime.block_on(serve::<P>(configured, &telemetry));
    if exit == Exit::Done {
        telemetry.end();
    }
    // Tasks that still run have exceeded the grace period.
    runtime.shutdown_background();
    exit.into()
}

/// Reads flags and settings, or returns the outcome of a run that does not start a server.
fn configure<P: Program>(
    flags: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Configured<P::Config>, Exit> {
    let command = ProgramFlags::command().name(P::NAME).about(P::ABOUT);
    let flags = command.try_get_matches_from(flags).and_then(|matches| ProgramFlags::from_arg_matches(&matches));
    let flags = flags.map_err(|answer| {
        let text = answer.to_string();
        if !answer.use_stderr() {
            print(std::io::stdout(), text);
            return Exit::Done;
        }
        let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        print_error(format!("{0}: {reason} (see {0} --help)\n", P::NAME));
        Exit::BadSettings
    })?;
    if flags.example {
        print(std::io::stdout(), example(P::NAME, P::KEYS));
        return Err(Exit::Done);
    }
    let sources = Sources { file: flags.config, environment: environment.into_iter().collect(), flags: flags.set };
    let read = Settings::read(P::KEYS, &sources, |settings| {
        let config = P::config(settings)?;
        settings.check_log_file()?;
        Ok(config)
    });
    let (settings, config) = read.map_err(|report| {
        let ignored = sources.ignored_variables(P::KEYS);
        let lines = report.lines().chain(ignored.iter().map(ToString::to_string));
        print_error(lines.map(|line| format!("{}: {line}\n", P::NAME)).collect());
        Exit::BadSettings
    })?;
    if flags.check {
        let ignored = sources.ignored_variables(P::KEYS);
        print(
            std::io::stderr(),
            ignored.iter().map(|variable| format!("{}: {variable}\n", P::NAME)).collect::<String>(),
        );
        let warnings = P::warnings(&config).into_iter().map(|warning| format!("{}: {warning}\n", P::NAME));
        print(std::io::stderr(), warnings.collect::<String>());
        print(std::io::stdout(), config);
        return Err(Exit::Done);
    }
    Ok(Configured { sources, settings, config })
}

#[derive(Serialize)]
struct ListeningLine<T> {
    listening: bool,
    #[serde(flatten)]
    server: T,
}

/// Returns the line on stdout after the bind. It promises no readiness, which only `/readyz` reports.
fn listening_line(server: impl Serialize) -> String {
    let line = ListeningLine { listening: true, server };
    serde_json::to_string(&line).expect("a name and addresses are always JSON") + "\n"
}

async fn serve<P: Program>(configured: Configured<P::Config>, telemetry: &Telemetry) -> Exit {
    let Configured { sources, settings, config } = configured;
    let mut grace = P::grace(&config);
    log_warnings::<P>(&config);
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
    telemetry.register_metrics(P::metrics(&server));
    print_in_background(std::io::stdout, listening_line(P::listening(&server)));
    if std::io::stderr().is_terminal() {
        print_in_background(std::io::stderr, P::welcome(&server));
    }

    loop {
        let request = tokio::select! {
            request = signals.next() => request,
            requested = P::stop_requested(&server) => match requested {
                Ok(()) => SignalRequest::End,
                Err(error) => return not_started(&error),
            },
        };
        if request == SignalRequest::End {
            break;
        }
        telemetry.reopen();
        reloader.reload(P::config, |config| {
            grace = P::grace(config);
            if let Err(reason) = telemetry.set_level(&P::logs(config).level) {
                tracing::error!(reason, "log level not changed");
            }
            log_warnings::<P>(config);
            P::reload(&server, config);
        });
    }
    tracing::info!(grace_seconds = grace.as_secs(), "drain started");
    let drained = tokio::select! {
        drained = P::drain(server, grace) => drained,
        () = signals.end() => {
            tracing::warn!("second signal received, drain aborted");
            return Exit::NotDrained;
        }
    };
    match drained {
        Drained::Complete => {
            tracing::info!("drained");
            Exit::Done
        }
        Drained::Failed => Exit::Failed,
        Drained::GraceExceeded => {
            tracing::warn!("grace period expired");
            Exit::NotDrained
        }
    }
}

fn log_warnings<P: Program>(config: &P::Config) {
    for warning in P::warnings(config) {
        tracing::warn!(warning, "settings are valid and have no effect");
    }
}

fn not_started(error: &anyhow::Error) -> Exit {
    tracing::error!(error = format!("{error:#}"), "not started");
    Exit::NotStarted
}

/// Request made by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalRequest {
    End,
    Reload,
}

/// Streams of the handled signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Listened to and ignored: by default the signal would end the process.
    _file_size: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let file_size = signal(FILE_SIZE_EXCEEDED)?;
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup?, _file_size: file_size })
    }

    /// Waits for a signal. Several of one kind since the last call count as one; an end precedes a reload.
    async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => SignalRequest::End,
            _ = self.interrupt.recv() => SignalRequest::End,
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }

    /// Waits for a request to end. A request to reload stays pending until [`Signals::next`] is called.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Writes to the parent process. A closed stream is not an error.
fn print(mut to: impl Write, text: impl Display) {
    if write!(to, "{text}").and_then(|()| to.flush()).is_err() {
        tracing::debug!("output stream closed");
    }
}

/// Writes on a thread of its own, because a running program must not wait for the reader of a pipe or terminal.
fn print_in_background<W: Write + 'static>(to: fn() -> W, text: String) {
    let started = std::thread::Builder::new().name("print".to_owned()).spawn(move || print(to(), text));
    if let Err(error) = started {
        tracing::warn!(%error, "start not announced");
    }
}

/// Writes an error of the start to stderr, for at most a second: a stuck reader must not keep the process.
fn print_error(text: String) {
    let (done, written) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || {
        print(std::io::stderr(), text);
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
}

#[cfg(test)]
mod tests;
