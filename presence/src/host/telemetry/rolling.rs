//! [`Rolling`]: a log file of bounded size. A full file is renamed with a number, and a new file begins.
//!
//! `node.log` is always the newest file, `node.log.1` the one before; the oldest of `kept` files is deleted. The common
//! crate rolls by date, which does not bound the size, and deletes every file with the same prefix: those of node `g10`
//! for node `g1`. Files of other names are never touched here. A pipe or device under the name is never renamed. A file
//! that was deleted, alone or with its folder, is made again; lines that cannot be written then are errors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::output::LineOutput;
use super::queue::LogSink;

/// An open log file and its predecessors.
#[derive(Debug)]
pub(super) struct Rolling {
    path: PathBuf,
    kept: usize,
    /// Maximum size; `None` for a pipe or device.
    limit: Option<u64>,
    output: LineOutput,
    written: u64,
}

impl Rolling {
    /// Opens the file and appends to it. At most `kept` files of about `limit` bytes each.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(path: &Path, kept: usize, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let metadata = file.metadata()?;
        let limit = metadata.is_file().then_some(limit);
        Ok(Self { path: path.to_owned(), kept, limit, output: LineOutput::new(file), written: metadata.len() })
    }

    fn roll(&mut self) -> io::Result<()> {
        let numbered = |number: usize| match number {
            0 => self.path.clone(),
            _ => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        for number in (1..self.kept).rev() {
            match std::fs::rename(numbered(number - 1), numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.kept == 1 {
            std::fs::remove_file(&self.path)?;
        }
        self.output = LineOutput::new(append(&self.path)?);
        Ok(())
    }
}

impl LogSink for Rolling {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let size = line.len() as u64;
        if self.limit.is_some() && self.output.metadata()?.nlink() == 0 {
            self.reopen()?;
        }
        if self.limit.is_some_and(|limit| self.written > 0 && self.written + size > limit) {
            // A failed rename must not lose lines: the old file is used for another `limit` bytes.
            let _ = self.roll();
            self.written = 0;
        }
        self.output.write_line(line)?;
        self.written += size;
        Ok(())
    }

    /// Opens the file of this name, which is a new one after an external tool has renamed the former.
    fn reopen(&mut self) -> io::Result<()> {
        let file = append(&self.path)?;
        self.written = file.metadata()?.len();
        self.output = LineOutput::new(file);
        Ok(())
    }
}

/// Opens a file for appending. A pipe is opened for reading too: otherwise the call would wait for its reader.
fn append(path: &Path) -> io::Result<File> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().create(!is_pipe).append(true).read(is_pipe).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Returns every file of the folder with its content, by name.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn full_file_is_renamed_and_oldest_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g1.log");
        std::fs::write(folder.path().join("g1.log.old"), "unrelated").unwrap();
        for round in 0..3 {
            // Opened again each time, it appends to the same file.
            let mut log = Rolling::open(&path, 3, 8).unwrap();
            for line in 0..4 {
                log.write_line(format!("{round}.{line}\n").as_bytes()).unwrap();
            }
        }
        let expected = [
            ("g1.log", "2.2\n2.3\n"),
            ("g1.log.1", "2.0\n2.1\n"),
            ("g1.log.2", "1.2\n1.3\n"),
            ("g1.log.old", "unrelated"),
        ];
        assert_eq!(files(folder.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn single_file_is_replaced_with_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Rolling::open(&folder.path().join("log"), 1, 8).unwrap();
        for line in ["much longer than it may be\n", "a\n", "b\n"] {
            log.write_line(line.as_bytes()).unwrap();
        }
        assert_eq!(files(folder.path()), [("log".to_owned(), "a\nb\n".to_owned())]);
    }

    #[test]
    fn failed_rename_loses_no_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rolling::open(&path, 2, 4).unwrap();
        std::fs::create_dir(folder.path().join("log.1")).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n"] {
            log.write_line(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "1\n2\n3\n4\n");
    }

    #[test]
    fn long_first_line_leaves_no_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Rolling::open(&folder.path().join("log"), 3, 4).unwrap();
        log.write_line(b"longer than a file\n").unwrap();
        assert_eq!(files(folder.path()), [("log".to_owned(), "longer than a file\n".to_owned())]);
    }

    #[test]
    fn reopened_log_fills_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Rolling::open(&path, 2, 8).unwrap();
        log.write_line(b"moved\n").unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        log.reopen().unwrap();
        log.write_line(b"new\n").unwrap();
        log.write_line(b"yes\n").unwrap();
        let expected = [("log", "new\nyes\n"), ("moved", "moved\n")];
        assert_eq!(files(folder.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn deleted_file_is_made_again_or_reported() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        let path = logs.join("log");
        std::fs::create_dir(&logs).unwrap();
        let mut log = Rolling::open(&path, 2, 1 << 10).unwrap();
        log.write_line(b"deleted\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        log.write_line(b"again\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "again\n");
        std::fs::remove_dir_all(&logs).unwrap();
        assert_eq!(log.write_line(b"lost\n").unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir(&logs).unwrap();
        log.write_line(b"back\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "back\n");
    }

    #[test]
    fn log_into_a_pipe_is_never_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut log = Rolling::open(&path, 2, 1).unwrap();
        for _ in 0..3 {
            log.write_line(b"line\n").unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn full_device_keeps_its_name() {
        let mut log = Rolling::open(Path::new("/dev/full"), 2, 1).unwrap();
        for _ in 0..3 {
            log.write_line(b"line\n").unwrap_err();
        }
        assert!(std::fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        assert!(!Path::new("/dev/full.1").exists());
    }
}
