//! [`Rolling`]: a log file of bounded size. A full file is renamed with a number, and a new file begins.
//!
//! `node.log` is always the newest file, `node.log.1` the one before; the oldest of `kept` files is deleted. The layer
//! of [`super::init`] writes one line per call. The common crate rolls by date, which does not bound the size, and
//! deletes every file with the same prefix: those of node `g10` for node `g1`. Files of other names are never touched
//! here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An open log file and its predecessors.
#[derive(Debug)]
pub(super) struct Rolling {
    path: PathBuf,
    kept: usize,
    limit: u64,
    file: File,
    written: u64,
}

impl Rolling {
    /// Opens the file and appends to it. At most `kept` files of about `limit` bytes each.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(path: &Path, kept: usize, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), kept, limit, file, written })
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
        self.file = append(&self.path)?;
        Ok(())
    }
}

impl Write for Rolling {
    /// Writes the whole line or fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let size = line.len() as u64;
        if self.written > 0 && self.written + size > self.limit {
            // A failed rename must not lose lines: the old file is used for another `limit` bytes.
            let _ = self.roll();
            self.written = 0;
        }
        self.file.write_all(line)?;
        self.written += size;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
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
                log.write_all(format!("{round}.{line}\n").as_bytes()).unwrap();
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
            log.write_all(line.as_bytes()).unwrap();
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
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "1\n2\n3\n4\n");
    }
}
