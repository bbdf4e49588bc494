//! Logs: to stderr, as text for a person at a terminal and as JSON lines for everything else, and to files when asked.
//!
//! Called once by each program, before anything that could log; the [`Telemetry`] that it answers changes the level later.
//! Libraries and tests never call [`init`]: what it sets is global to the process.
//! Whoever logs keeps the promise that no body of a message and no token gets here; `tests/it/operators/logs.rs` looks.

#[cfg(feature = "otlp")]
mod otlp;
mod rolling;

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;

use anyhow::Context;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::rolling::Rolling;

/// Where logs go and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// A level, or directives: what [`filter`] understands.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// A file that lines go to beside stderr.
    pub file: Option<PathBuf>,
    /// How many of those files are kept, the newest included.
    pub kept: usize,
    /// How large one of them gets, in MiB.
    pub size_mib: u64,
    /// Where spans of messages are sent; only builds with the feature `otlp` do.
    pub spans: Option<SpansTo>,
}

/// A collector of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpansTo {
    /// `http://HOST:PORT/v1/traces`.
    pub endpoint: String,
    /// Whose spans these are.
    pub node: String,
}

/// As TOML, a line for each setting.
impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log.level = {:?}", self.level)?;
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

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON everywhere else.
    Auto,
    /// For people.
    Text,
    /// One object a line.
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

/// The logs of this process, while it runs.
#[derive(Debug)]
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Telemetry {
    /// Writes the lines of another level from now on.
    ///
    /// # Errors
    /// `level` is no filter, see [`filter`].
    pub fn set_level(&self, level: &str) -> Result<(), &'static str> {
        let filter = filter(level)?;
        self.level.reload(filter).map_err(|_| "logs are not written any more")
    }

    /// Sends the last spans, for at most two seconds: for an end in order, not for one at once.
    pub fn end(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.end();
        }
    }
}

/// Sends logs to stderr from now on, panics of tasks included, and into the file.
///
/// # Errors
/// The level is no filter, the file cannot be written, or spans cannot be sent there.
///
/// # Panics
/// On a second call in one process.
pub fn init(logs: &Logs) -> anyhow::Result<Telemetry> {
    let level = filter(&logs.level).map_err(anyhow::Error::msg).context("log.level")?;
    let (level, handle) = reload::Layer::new(level);
    let on_terminal = std::io::stderr().is_terminal();
    let mut to = vec![lines(logs.format.is_text(on_terminal), on_terminal, std::io::stderr)];
    if let Some(path) = &logs.file {
        let file = Rolling::open(path, logs.kept, logs.size_mib << 20);
        let file = file.with_context(|| format!("log.file = {path:?}"))?;
        to.push(lines(logs.format.is_text(false), false, Mutex::new(file)));
    }
    let layers = vec![to.with_filter(level).boxed()];
    #[cfg(feature = "otlp")]
    let (exporter, layers) = {
        let exporter = logs.spans.as_ref().map(otlp::Exporter::start).transpose()?;
        // Spans go there at every level of the logs.
        let is_exported = tracing_subscriber::filter::filter_fn(otlp::is_exported);
        let spans = exporter.clone().map(|exporter| exporter.with_filter(is_exported).boxed());
        (exporter, layers.into_iter().chain(spans).collect::<Vec<_>>())
    };
    tracing_subscriber::registry().with(layers).init();
    // A panic is a line like any other then, so whoever watches the logs for errors sees it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, panic = panic.payload_as_str(), "panicked");
    }));
    Ok(Telemetry {
        level: handle,
        #[cfg(feature = "otlp")]
        exporter,
    })
}

/// Writes lines. A span is a line when it is over: each is one step of a message's way, with its time.
fn lines(
    as_text: bool,
    coloured: bool,
    to: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_span_events(FmtSpan::CLOSE).with_ansi(coloured).with_writer(to);
    if as_text { lines.boxed() } else { lines.json().flatten_event(true).boxed() }
}

/// Understands `log.level`: a level, or a list such as `info,gateway=debug`.
///
/// # Errors
/// What is wrong with it. A bare word that is no level is refused: the filter would take it for a module's name and
/// log nothing else.
pub fn filter(text: &str) -> Result<EnvFilter, &'static str> {
    let expected = "expected off, error, warn, info, debug or trace, or directives such as info,gateway=debug";
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    // A space would silently become part of a module's name.
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
    fn a_level_is_a_level_or_a_list_of_directives() {
        for text in ["off", "info", "WARN", "info,gateway=debug", "gateway::listen=trace,warn"] {
            filter(text).unwrap();
        }
        for text in ["", "loud", "info,", "info gateway=debug", "gateway", "gateway=loud"] {
            filter(text).unwrap_err();
        }
    }

    #[test]
    fn only_a_terminal_gets_text_unasked() {
        let table = [(LogFormat::Auto, true, true), (LogFormat::Auto, false, false)];
        let asked = [(LogFormat::Text, false, true), (LogFormat::Json, true, false)];
        for (format, on_terminal, is_text) in table.into_iter().chain(asked) {
            assert_eq!(format.is_text(on_terminal), is_text, "{format} {on_terminal}");
        }
    }
}
