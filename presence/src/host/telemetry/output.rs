//! [`LineOutput`]: whole lines on an open file or pipe, and stderr as a destination of the logs.
//!
//! Invariant: a line that was cut by an error never joins the next one. Writes block; only the thread of a
//! [`LogQueue`](super::queue::LogQueue) makes them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::queue::LogSink;

/// Pause before another attempt on a full pipe in non-blocking mode, which another process may have set.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

/// An open file or pipe.
#[derive(Debug)]
pub(super) struct LineOutput {
    file: File,
    /// True after an error in the middle of a line.
    is_cut: bool,
}

impl LineOutput {
    pub(super) fn new(file: File) -> Self {
        Self { file, is_cut: false }
    }

    /// Opens stderr under a descriptor of its own, so that no lock of the standard library is held during a write.
    ///
    /// # Errors
    /// No descriptor is available.
    pub(super) fn stderr() -> io::Result<Self> {
        Ok(Self::new(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }

    /// Writes a whole line.
    ///
    /// # Errors
    /// The line is lost, or a part of it.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.is_cut = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Stderr has no name to open again.
impl LogSink for LineOutput {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        Self::write_line(self, line)
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}
