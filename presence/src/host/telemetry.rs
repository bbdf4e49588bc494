//! Logs: to stderr, as text on a terminal and as JSON lines otherwise, and optionally to a file.
//!
//! Each program calls [`init`] once, before the first log line; the returned [`Telemetry`] changes the level later and
//! writes the last lines when it is dropped. A thread of its own writes each destination, so no other thread waits for
//! the reader of a log. The subscriber is global to the process, so libraries and tests never call it. Callers must not
//! log message bodies or tokens; nothing here filters them, and `tests/it/operators/logs.rs` checks it.

#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod queue;
mod rolling;
mod text;

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::host::metrics::Pulled;

use self::output::LineOutput;
use self::queue::LogQueue;
use self::rolling::Rolling;

/// Time limit for writing the last lines, at the end of the program.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Settings of the logs: level, format and destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// A level or directives, as [`filter`] accepts them.
    pub level: String,
    /// True if the lines about refusals name the addresses of clients.
    pub addresses: bool,
    /// Format of the lines on stderr.
    pub format: LogFormat,
    /// A file for the lines, in addition to stderr.
    pub file: Option<PathBuf>,
    /// Maximum number of log files, the newest included.
    pub kept: usize,
    /// Maximum size of one log file, in MiB.
    pub size_mib: u64,
    /// Collector of the spans of messages; used by builds with the feature `otlp` only.
    pub spans: Option<SpansTo>,
}

/// A collector of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpansTo {
    /// `http://HOST:PORT/v1/traces`.
    pub endpoint: String,
    /// Node id of the gateway that sends the spans.
    pub node: String,
}

/// As TOML, a line for each setting.
impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log.level = {:?}", self.level)?;
        writeln!(f, "log.addresses = {}", self.addresses)?;
        writeln!(f, "log.format = \"{}\"", self.format)?;
        match &self.file {
            Some(file) => writeln!(f, "log.file = {file:?}")?,
            None => writeln!(f, "# log.file is not set: logs go to stderr only")?,
        }
        writeln!(f, "log.files = {}", self.kept)?;
        writeln!(f, "log.file_mib = {}", self.size_mib)?;
        match &self.spans {
            Some(to) => writeln!(f, "otlp.endpoint = {:?}", to.endpoint),
            None => Ok(()),
        }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON everywhere else.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    fn is_text(self, on_terminal: bool) -> bool {
        match self {
            Self::Auto => on_terminal,
            Self::Text => true,
            Self::Json => false,
        }
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected auto, text or json"),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Handle to the logs of the running process.
#[derive(Debug)]
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    destinations: Vec<LogQueue>,
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Telemetry {
    /// Changes the level.
    ///
    /// # Errors
    /// [`filter`] does not accept `level`.
    pub fn set_level(&self, level: &str) -> Result<(), &'static str> {
        let filter = filter(level)?;
        self.level.reload(filter).map_err(|_| "the log subscriber has ended")
    }

    /// Opens the log file again: an external tool may have renamed it.
    pub fn reopen(&self) {
        self.destinations.iter().for_each(LogQueue::reopen);
    }

    /// Registers the number of dropped lines. Must be called once.
    pub fn register_metrics(&self, metrics: &prometheus::Registry) {
        let destinations = self.destinations.clone();
        let help =
            "Log lines that reached a destination neither in time nor later: its reader was too slow or it failed.";
        let dropped = move || Some(destinations.iter().map(LogQueue::dropped).sum::<u64>() as f64);
        Pulled::counter(metrics, "parley_log_lines_dropped_total", help, dropped);
    }

    /// Sends the last spans, for at most two seconds. Called at the end of a graceful shutdown.
    pub fn end(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.end();
        }
    }
}

/// Writes the last lines, for at most a second: a stuck reader never delays the end of the program for longer.
impl Drop for Telemetry {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_LINES;
        self.destinations.iter().for_each(|destination| destination.flush(deadline));
    }
}

/// Starts logging to stderr and to the file, panics of tasks included.
///
/// # Errors
/// The level is not a filter, the file cannot be written, or the address of the span collector is invalid.
///
/// # Panics
/// On a second call in one process.
pub fn init(logs: &Logs) -> anyhow::Result<Telemetry> {
    let level = filter(&logs.level).map_err(anyhow::Error::msg).context("log.level")?;
    let (level, handle) = reload::Layer::new(level);
    let on_terminal = std::io::stderr().is_terminal();
    let stderr = LineOutput::stderr().and_then(|stderr| LogQueue::start("stderr", stderr)).context("log to stderr")?;
    let mut to = vec![lines(logs.format.is_text(on_terminal), on_terminal, stderr.clone())];
    let mut destinations = vec![stderr];
    if let Some(path) = &logs.file {
        let file = Rolling::open(path, logs.kept, logs.size_mib << 20);
        let file = file.and_then(|file| LogQueue::start("file", file));
        let file = file.with_context(|| format!("log.file = {path:?}"))?;
        to.push(lines(logs.format.is_text(false), false, file.clone()));
        destinations.push(file);
    }
    let layers = vec![to.with_filter(level).boxed()];
    #[cfg(feature = "otlp")]
    let (exporter, layers) = {
        let exporter = logs.spans.as_ref().map(otlp::Exporter::start).transpose()?;
        // Spans are exported at every log level.
        let is_exported = tracing_subscriber::filter::filter_fn(otlp::is_exported);
        let spans = exporter.clone().map(|exporter| exporter.with_filter(is_exported).boxed());
        (exporter, layers.into_iter().chain(spans).collect::<Vec<_>>())
    };
    tracing_subscriber::registry().with(layers).init();
    // A panic becomes a log line, so monitoring of the logs detects it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, panic = panic.payload_as_str(), "panicked");
    }));
    Ok(Telemetry {
        level: handle,
        destinations,
        #[cfg(feature = "otlp")]
        exporter,
    })
}

/// Checks that a log file can be written, without creating it.
///
/// # Errors
/// The file exists and cannot be opened, or its folder is missing or not writable.
pub fn check_file(path: &Path) -> std::io::Result<()> {
    use nix::unistd::{AccessFlags, access};
    if path.exists() {
        return Ok(access(path, AccessFlags::W_OK).and_then(|()| is_file_like(path))?);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(access(folder, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

fn is_file_like(path: &Path) -> nix::Result<()> {
    if path.is_dir() { Err(nix::errno::Errno::EISDIR) } else { Ok(()) }
}

/// Returns the layer that writes lines to `to`. A closed span is one line: a step of a message's path, with its
/// duration.
fn lines(
    as_text: bool,
    coloured: bool,
    to: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_span_events(FmtSpan::CLOSE).with_ansi(coloured).with_writer(to);
    // Such an error would be printed to stderr by the thread that logs, and could block it.
    let lines = lines.log_internal_errors(false);
    if as_text { lines.fmt_fields(text::fields()).boxed() } else { lines.json().flatten_event(true).boxed() }
}

/// Parses `log.level`: a level, or a list such as `info,gateway=debug`.
///
/// # Errors
/// The expected form. A bare word that is not a level is refused: the filter would read it as the name of a module and
/// log nothing else.
pub fn filter(text: &str) -> Result<EnvFilter, &'static str> {
    let expected = "expected off, error, warn, info, debug or trace, or directives such as info,gateway=debug";
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    // A space would silently become part of the name of a module.
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !printable || !text.split(',').all(|part| part.contains('=') || is_level(part)) {
        return Err(expected);
    }
    EnvFilter::builder().parse(text).map_err(|_| expected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn filter_accepts_only_levels_and_directives() {
        for text in ["off", "info", "WARN", "info,gateway=debug", "gateway::listen=trace,warn"] {
            filter(text).unwrap();
        }
        for text in ["", "loud", "info,", "info gateway=debug", "gateway", "gateway=loud"] {
            filter(text).unwrap_err();
        }
    }

    #[test]
    fn auto_format_writes_text_on_a_terminal_only() {
        let table = [(LogFormat::Auto, true, true), (LogFormat::Auto, false, false)];
        let asked = [(LogFormat::Text, false, true), (LogFormat::Json, true, false)];
        for (format, on_terminal, is_text) in table.into_iter().chain(asked) {
            assert_eq!(format.is_text(on_terminal), is_text, "{format} {on_terminal}");
        }
    }
}
