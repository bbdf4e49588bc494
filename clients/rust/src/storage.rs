//! Storage of the resume token and the positions between two runs of a program.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wire::WirePosition;

/// Keeps one text of a few kilobytes. After an error the session continues without the storage.
pub trait Storage: Send + 'static {
    /// Returns the text that was saved last, or `None`.
    ///
    /// # Errors
    /// The session then begins a new one.
    fn load(&mut self) -> io::Result<Option<String>>;

    /// Replaces the text. Called up to five times a second from a task of the runtime, so it must not block for long.
    ///
    /// # Errors
    /// The session then continues in memory.
    fn save(&mut self, text: &str) -> io::Result<()>;
}

/// A file that only its owner can read: the token is a secret. One session uses it at a time.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
}

impl FileStorage {
    /// Returns the storage in this file, which does not need to exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Storage for FileStorage {
    fn load(&mut self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Replaces the file as a whole: a crash leaves the former or the new text.
    fn save(&mut self, text: &str) -> io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&beside)?.write_all(text.as_bytes())?;
        fs::rename(&beside, &self.path)
    }
}

/// The stored state of a session.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedSession {
    pub(crate) token: Option<String>,
    /// Positions by the name of the room, and as `@` of the inbox.
    pub(crate) positions: BTreeMap<String, WirePosition>,
    /// Read marks by the key of the conversation.
    pub(crate) read: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_storage_replaces_its_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        let mut storage = FileStorage::new(&path);
        assert_eq!(storage.load().expect("no file"), None);
        for text in ["a longer text", "short"] {
            storage.save(text).expect("saved");
            assert_eq!(FileStorage::new(&path).load().expect("a file").as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn stored_token_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        FileStorage::new(&path).save("secret").expect("saved");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
