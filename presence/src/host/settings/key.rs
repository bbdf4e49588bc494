//! [`Key`]: a setting of a program, as a row of its table.
//!
//! Loading, validation of names, the example file, `--check`, the reload and docs/CONFIGURATION.md all read these rows,
//! so a setting is described once. Pure values; nothing here reads a file.

use super::tables;

/// Type of the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A string.
    Text,
    /// An address to listen on: `IP:PORT`, or `NAME:PORT` with a name that can be resolved.
    Address,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Several words: an array in TOML, separated by commas in the environment.
    List,
    /// Several tables with their own secrets: an array of tables in TOML, the same as JSON in the environment.
    Tables,
    /// A string that is never displayed. It may be read from a file, named by the same key with the suffix `_file`.
    Secret,
}

/// A setting that a program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// Type of its value.
    pub kind: KeyKind,
    /// Value of a key that is not set.
    pub default: Option<&'static str>,
    /// Example value of a setting without a default.
    pub sample: &'static str,
    /// Description with unit and bounds.
    pub meaning: &'static str,
    /// True if a reload applies it; otherwise a change needs a restart.
    pub live: bool,
    /// True if its value may also be in a file of its own.
    pub in_file: bool,
}

/// `node.id`, of both programs.
pub const NODE_ID: Key = Key::text("node.id")
    .sample("g1")
    .meaning("Name of this process, unique in the cluster. Default: the host name with a random suffix.");
/// `redis.tls_ca`, of both programs.
pub const REDIS_TLS_CA: Key = Key::text("redis.tls_ca").sample("/etc/parley/redis-ca.pem").meaning(
    "PEM file of the authorities that a rediss:// Redis may have its certificate from. Default: those of the system.",
);
/// `redis.tls_cert`, of both programs.
pub const REDIS_TLS_CERT: Key = Key::text("redis.tls_cert")
    .sample("/etc/parley/redis-client.pem")
    .meaning("PEM file of the client certificate for a rediss:// Redis, with its chain. Read at the start.");
/// `redis.tls_key`, of both programs.
pub const REDIS_TLS_KEY: Key = Key::text("redis.tls_key")
    .sample("/etc/parley/redis-client.key")
    .meaning("PEM file of the private key of redis.tls_cert.");
/// `redis.prefix`, of both programs.
pub const REDIS_PREFIX: Key = Key::text("redis.prefix")
    .default("parley")
    .meaning("First part of every Redis key and channel. Clusters that share a Redis need different prefixes.");
/// `history.max_messages`, of both programs.
pub const HISTORY_MAX_MESSAGES: Key = Key::number("history.max_messages")
    .default("10000")
    .live()
    .meaning("Maximum number of messages kept in a room, 1 to 1000000. Redis may keep up to 100 more.");
/// `history.max_bytes`, of both programs.
pub const HISTORY_MAX_BYTES: Key = Key::number("history.max_bytes").default("16777216").live().meaning(
    "Maximum number of bytes of the messages kept in a room, 65536 to 1073741824. Redis may keep a sixteenth and one \
         message more.",
);
/// `history.max_age_hours`, of both programs.
pub const HISTORY_MAX_AGE_HOURS: Key = Key::number("history.max_age_hours").default("72").live().meaning(
    "Maximum age of messages kept in a room in hours, 1 to 8760. Older ones are removed at a later message, once they \
         are a 64th too old.",
);
/// `history.inbox_messages`, of both programs.
pub const HISTORY_INBOX_MESSAGES: Key = Key::number("history.inbox_messages")
    .default("1000")
    .live()
    .meaning("Maximum number of messages kept in an inbox, 1 to 1000000. Redis may keep up to 100 more.");
/// `history.inbox_bytes`, of both programs.
pub const HISTORY_INBOX_BYTES: Key = Key::number("history.inbox_bytes").default("4194304").live().meaning(
    "Maximum number of bytes of the messages kept in an inbox, 65536 to 1073741824. Redis may keep a sixteenth and \
         one message more.",
);
/// `history.quiet_room_hours`, of both programs.
pub const HISTORY_QUIET_ROOM_HOURS: Key = Key::number("history.quiet_room_hours").default("24").live().meaning(
    "Hours that a room with fewer than three messages is kept after its last member left, 1 to 72. Others are kept \
         for 72 hours; a room without messages is forgotten at once. Applies from a room's next message.",
);
/// `rooms`, of both programs.
pub const ROOMS: Key = Key::tables("rooms")
    .sample(r##"[{"match":"#team-*","create":"token","roles":true},{"match":"#news","send":"moderators"}]"##)
    .live()
    .meaning(
        "Rules of rooms; the first table whose pattern match has the room holds. Fields: create (anyone, token or api), \
         history_messages, history_hours, ephemeral, members_max, invite_only, roles, send (members or moderators), \
         slow_mode_seconds. The same on all gateways and presence processes.",
    );
/// `drain.grace_seconds`, of both programs.
pub const DRAIN_GRACE: Key = Key::number("drain.grace_seconds")
    .default("30")
    .live()
    .meaning("Maximum duration of a graceful shutdown in seconds, 0 to 3600.");
/// `log.level`, of both programs.
pub const LOG_LEVEL: Key = Key::text("log.level")
    .default("info")
    .live()
    .meaning("Log level: off, error, warn, info, debug or trace, or directives such as info,gateway=debug.");
/// `log.addresses`, of both programs.
pub const LOG_ADDRESSES: Key = Key::flag("log.addresses")
    .default("true")
    .meaning("Name the addresses of refused clients in logs. Nothing else has the address of a client.");
/// `log.format`, of both programs.
pub const LOG_FORMAT: Key = Key::text("log.format")
    .default("auto")
    .meaning("Log format: text, json or auto. With auto, a terminal gets text; files and pipes get JSON lines.");
/// `log.file`, of both programs.
pub const LOG_FILE: Key = Key::text("log.file")
    .sample("/var/log/parley/node.log")
    .meaning("Log file, in addition to stderr. A full file is renamed with a number.");
/// `log.files`, of both programs.
pub const LOG_FILES: Key = Key::number("log.files")
    .default("5")
    .meaning("Maximum number of log files, 1 to 1000. The oldest is deleted first.");
/// `log.file_mib`, of both programs.
pub const LOG_FILE_MIB: Key =
    Key::number("log.file_mib").default("64").meaning("Maximum size of one log file in MiB, 1 to 65536.");

impl Key {
    const fn new(name: &'static str, kind: KeyKind) -> Self {
        Self { name, kind, default: None, sample: "", meaning: "", live: false, in_file: false }
    }

    /// Creates a key with a string.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, KeyKind::Text)
    }

    /// Creates a key with an address to listen on.
    #[must_use]
    pub const fn address(name: &'static str) -> Self {
        Self::new(name, KeyKind::Address)
    }

    /// Creates a key with a whole number.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, KeyKind::Number)
    }

    /// Creates a key with `true` or `false`.
    #[must_use]
    pub const fn flag(name: &'static str) -> Self {
        Self::new(name, KeyKind::Flag)
    }

    /// Creates a key with a list of words, empty by default.
    #[must_use]
    pub const fn list(name: &'static str) -> Self {
        Self::new(name, KeyKind::List)
    }

    /// Creates a key with several tables, none by default.
    #[must_use]
    pub const fn tables(name: &'static str) -> Self {
        Self::new(name, KeyKind::Tables)
    }

    /// Creates a key with a string that is never displayed.
    #[must_use]
    pub const fn secret(name: &'static str) -> Self {
        Self::new(name, KeyKind::Secret).in_file()
    }

    /// Sets the default.
    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Sets the example of a key without a default.
    #[must_use]
    pub const fn sample(self, sample: &'static str) -> Self {
        Self { sample, ..self }
    }

    /// Sets the description.
    #[must_use]
    pub const fn meaning(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// Marks the key as reloadable.
    #[must_use]
    pub const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    /// Lets the same key with the suffix `_file` name a file with the value.
    #[must_use]
    pub const fn in_file(self) -> Self {
        Self { in_file: true, ..self }
    }

    /// Returns true for a setting that differs between healthy nodes of one cluster: node id, addresses and logs.
    #[must_use]
    pub fn is_per_node(&self) -> bool {
        self.kind == KeyKind::Address || self.name == NODE_ID.name || self.name.starts_with("log.")
    }

    /// Returns the setting that names the file of this key; `None` for a key without one.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        self.in_file.then(|| format!("{}_file", self.name))
    }

    /// Formats a value as TOML. Validated values are printable ASCII, for which the quoting of Rust and TOML is the
    /// same.
    #[must_use]
    pub fn toml(&self, value: &str) -> String {
        match self.kind {
            KeyKind::Number | KeyKind::Flag => value.to_owned(),
            KeyKind::Text | KeyKind::Address | KeyKind::Secret => format!("{value:?}"),
            KeyKind::List => format!("{:?}", words(value).collect::<Vec<_>>()),
            KeyKind::Tables => tables::toml(value),
        }
    }
}

/// Splits the value of a [`KeyKind::List`] into words. A file has one on each line.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', '\n']).map(str::trim).filter(|word| !word.is_empty())
}

/// Maximum number of changed letters between a name and a similar one.
const LETTERS_MAX: usize = 4;

/// Returns the name that is most similar to `name`, ignoring case; the first one of several. `None` if none is similar
/// enough to be meant: within one changed letter of three, or a part of the name such as its section.
#[must_use]
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let letters = (name.chars().count() / 3).clamp(1, LETTERS_MAX);
    let is_part = |part: &str, whole: &str| {
        let rest = whole.strip_prefix(part).filter(|_| !part.is_empty());
        rest.is_some_and(|rest| rest.starts_with(['.', '_']))
    };
    let near = names.into_iter().filter_map(|known| {
        let lower = known.to_ascii_lowercase();
        let distance = distance(&name, &lower);
        (distance <= letters || is_part(&name, &lower) || is_part(&lower, &name)).then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Returns the Levenshtein distance, computed row by row.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_changed_letters() {
        for (from, to, letters) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("wss", "ws", 1), ("ä", "a", 1)]
        {
            assert_eq!(distance(from, to), letters, "{from} {to}");
        }
    }

    #[test]
    fn nearest_finds_the_name_behind_a_typing_error() {
        let names = ["node.id", "listen.ws", "listen.tcp", "log.level"];
        for (typed, meant) in [("node.idd", "node.id"), ("LISTEN.WSS", "listen.ws"), ("loglevel", "log.level")] {
            assert_eq!(nearest(typed, names), Some(meant));
        }
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn nearest_never_names_a_far_key() {
        let names = ["node.id", "listen.ws", "api.addr", "admin.addr", "limits.write_stall_seconds"];
        for far in ["", "x", "foo.bar", "redis.sentinel.master", "debug", "id", "limits.read_stall_timeout_ms"] {
            assert_eq!(nearest(far, names), None, "{far}");
        }
        let parts = [("listen", "listen.ws"), ("node.id_file", "node.id"), ("node.id.x", "node.id")];
        for (part, meant) in parts {
            assert_eq!(nearest(part, names), Some(meant));
        }
    }
}
