//! Logs: to stderr, as text for a person at a terminal and as JSON lines for everything else.
//!
//! Called once by each program's `main`, before anything that could log. Libraries and tests never call [`init`]: what
//! it sets is global to the process.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Sends logs to stderr from now on, panics of tasks included.
///
/// # Errors
/// `level` is no filter, see [`filter`].
///
/// # Panics
/// On a second call in one process.
pub fn init(level: &str) -> Result<(), &'static str> {
    let logs = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().flatten_event(true).init();
    }
    // A panic is a line like any other then, so whoever watches the logs for errors sees it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, panic = panic.payload_as_str(), "panicked");
    }));
    Ok(())
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
}
