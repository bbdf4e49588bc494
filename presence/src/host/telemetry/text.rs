//! Fields of log lines in text format, with control characters escaped, so that every event is one line.
//!
//! The message and each `name=value` look as in the default format. JSON escapes by itself and does not use it.

use std::fmt::{Debug, Result, Write};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Returns the formatter of the fields of events and spans.
pub(super) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> Result {
    if field.name() != "message" {
        let name = field.name().trim_start_matches("r#");
        if writer.has_ansi_escapes() {
            write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
        } else {
            write!(writer, "{name}=")?;
        }
    }
    write!(EscapedText(writer), "{value:?}")
}

/// Escapes control characters on their way to a writer.
struct EscapedText<'a, 'w>(&'a mut Writer<'w>);

impl Write for EscapedText<'_, '_> {
    fn write_str(&mut self, text: &str) -> Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    self.0.write_str(&part[..part.len() - last.len_utf8()])?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::lines;

    #[derive(Clone, Default)]
    struct SharedBytes(Arc<Mutex<Vec<u8>>>);

    impl io::Write for SharedBytes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the text that an event with hostile fields writes.
    fn written(coloured: bool) -> String {
        let (bytes, hostile) = (SharedBytes::default(), "Parse error\nUnexpected `33`\r\x1b[2J\u{85}");
        let writer = bytes.clone();
        let subscriber = tracing_subscriber::registry().with(lines(true, coloured, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("step", of = hostile, shown = %hostile);
            span.in_scope(|| tracing::warn!(error = %hostile, quoted = hostile, "failed: {hostile}"));
        });
        let written = bytes.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn control_characters_leave_one_line_per_event() {
        let text = written(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "the event and the end of its span: {text}");
        assert!(lines[0].contains(r"error=Parse error\nUnexpected `33`\r\u{1b}[2J\u{85}"), "{text}");
        assert!(lines[0].contains(r"failed: Parse error\nUnexpected"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        let coloured = written(true);
        assert_eq!((coloured.lines().count(), coloured.contains("\x1b[2J")), (2, false), "{coloured:?}");
    }
}
