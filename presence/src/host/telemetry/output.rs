//! [`LineOutput`]: whole lines on an open file or pipe, and stderr as a destination of the logs.
//!
//! Invariant: a line that was cut by an error never joins the next one. Writes block; only the thread of a
//! [`LogQueue`](super::queue::LogQueue) makes them.

use std::fs::{File, Metadata};
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

    /// Returns the metadata of the open file.
    ///
    /// # Errors
    /// The system cannot read them.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::OpenOptions;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;

    use nix::libc::O_NONBLOCK;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    /// Returns a line of this many bytes, more than a pipe holds.
    fn long_line() -> Vec<u8> {
        let mut line = vec![b'x'; 200 << 10];
        line.push(b'\n');
        line
    }

    fn fifo() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        (folder, path)
    }

    #[test]
    fn full_nonblocking_pipe_gets_whole_lines() {
        let (_folder, path) = fifo();
        let pipe = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        let mut reader = File::open(&path).unwrap();
        let writer = thread::spawn(move || {
            let mut output = LineOutput::new(pipe);
            output.write_line(&long_line()).unwrap();
            output.write_line(b"next\n").unwrap();
        });
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        writer.join().unwrap();
        assert!(text == [long_line(), b"next\n".to_vec()].concat(), "{} bytes", text.len());
    }

    #[test]
    fn cut_line_never_joins_the_next_one() {
        let (_folder, path) = fifo();
        let opened = path.clone();
        let writer = thread::spawn(move || {
            let mut output = LineOutput::new(OpenOptions::new().write(true).open(opened).unwrap());
            assert_eq!(output.write_line(&long_line()).unwrap_err().kind(), ErrorKind::BrokenPipe);
            output
        });
        let mut reader = File::open(&path).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        drop(reader);
        let mut output = writer.join().unwrap();
        let mut reader = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        // Makes room for the next line.
        reader.read_exact(&mut [0; 5000]).unwrap();
        output.write_line(b"next\n").unwrap();
        output.write_line(b"last\n").unwrap();
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("x\nnext\nlast\n"), "{:?}", &text[text.len().saturating_sub(20)..]);
    }
}
