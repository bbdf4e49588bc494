//! A Redis whose replies are given: [`ScriptedRedis`]. It listens on a Unix socket, so the whole way of a reply is
//! checked: the socket, the parser of the client library, and the decoder of the call.
//!
//! Each command gets the next reply, byte for byte. After the last one every command is refused. A reply without an
//! end closes the connection behind it, as a Redis that dies does. A relay takes the replies from a real Redis instead,
//! and records them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The reply after the last given one.
const REFUSAL: &[u8] = b"-ERR no reply is left\r\n";

/// The number of servers that this process has started, for the names of their sockets.
static STARTED: AtomicU32 = AtomicU32::new(0);

pub(crate) struct ScriptedRedis {
    socket: PathBuf,
    script: Arc<Mutex<ReplyScript>>,
    accepting: JoinHandle<()>,
}

/// The replies to all commands in one database.
#[derive(Default)]
struct ReplyScript {
    database: u32,
    left: VecDeque<Vec<u8>>,
    is_spent: bool,
    recorded: Vec<u8>,
}

impl ScriptedRedis {
    /// Starts a server with the replies in these bytes.
    pub(crate) fn with_replies(bytes: &[u8]) -> Self {
        let server = Self::start(None);
        server.set_replies(bytes);
        server
    }

    /// Starts a relay to a real Redis.
    pub(crate) fn relay(redis: SocketAddr) -> Self {
        Self::start(Some(redis))
    }

    /// Begins a new database with the replies in these bytes. Commands in a former one are refused.
    pub(crate) fn set_replies(&self, mut bytes: &[u8]) {
        let mut left = VecDeque::new();
        while !bytes.is_empty() {
            let (reply, rest) = bytes.split_at(value_end(bytes).unwrap_or(bytes.len()));
            left.push_back(reply.to_vec());
            bytes = rest;
        }
        let mut script = lock(&self.script);
        *script = ReplyScript { database: script.database.wrapping_add(1), left, ..ReplyScript::default() };
    }

    fn start(relayed: Option<SocketAddr>) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("parley-replies-{}-{number}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket in the folder for temporary files");
        let script = Arc::<Mutex<ReplyScript>>::default();
        let accepted = Arc::clone(&script);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&accepted), relayed));
            }
        });
        Self { socket, script, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?db={}", self.socket.display(), lock(&self.script).database)
    }

    /// Returns true once a command was refused because no reply was left.
    pub(crate) fn is_spent(&self) -> bool {
        lock(&self.script).is_spent
    }

    /// Returns the replies of the real Redis since the last call.
    pub(crate) fn take_recorded(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.script).recorded)
    }
}

impl Drop for ScriptedRedis {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl ReplyScript {
    /// Appends the next reply, with the pushes in front of it. Returns false if it has no end.
    fn answer(&mut self, replies: &mut Vec<u8>) -> bool {
        loop {
            let Some(reply) = self.left.pop_front() else {
                self.is_spent = true;
                replies.extend(REFUSAL);
                return true;
            };
            replies.extend(&reply);
            if value_end(&reply).is_none() {
                return false;
            }
            if reply[0] != b'>' {
                return true;
            }
        }
    }

    /// Keeps a reply of the real Redis, unless this server will give it itself.
    fn record(&mut self, own_reply: Option<&[u8]>, reply: &[u8]) {
        if own_reply.is_none() && !reply.starts_with(b"-NOSCRIPT") {
            self.recorded.extend(reply);
        }
    }
}

/// Answers the commands of a client until its connection ends.
async fn serve(mut client: UnixStream, script: Arc<Mutex<ReplyScript>>, relayed: Option<SocketAddr>) {
    let mut redis = match relayed {
        Some(address) => Some(TcpStream::connect(address).await.expect("the real Redis listens")),
        None => None,
    };
    let (mut commands, mut state) = (Vec::new(), ConnectionState::default());
    while client.read_buf(&mut commands).await.is_ok_and(|read| read > 0) {
        let (mut replies, mut continues) = (Vec::new(), true);
        while let (true, Some(end)) = (continues, value_end(&commands)) {
            let command: Vec<u8> = commands.drain(..end).collect();
            let own_reply = state.own_reply(&command);
            if let Some(redis) = &mut redis {
                let reply = relayed_reply(redis, &command).await;
                lock(&script).record(own_reply.as_deref(), &reply);
                replies.extend(reply);
            } else if let Some(reply) = own_reply {
                replies.extend(reply);
            } else if lock(&script).database == state.database {
                continues = lock(&script).answer(&mut replies);
            } else {
                replies.extend(REFUSAL);
            }
        }
        if client.write_all(&replies).await.is_err() || !continues {
            return;
        }
    }
}

/// Sends a command to the real Redis, and reads its reply.
async fn relayed_reply(redis: &mut TcpStream, command: &[u8]) -> Vec<u8> {
    redis.write_all(command).await.expect("the real Redis reads");
    let mut reply = Vec::new();
    while value_end(&reply) != Some(reply.len()) {
        let read = redis.read_buf(&mut reply).await.expect("the real Redis answers");
        assert!(read > 0, "the real Redis has ended a connection");
    }
    reply
}

/// The state of a connection.
#[derive(Default)]
struct ConnectionState {
    database: u32,
    /// The hash of the script that was called last.
    hash: Vec<u8>,
}

impl ConnectionState {
    /// Returns the reply to a command of the connection itself, and to the load of the script that was called last.
    fn own_reply(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        let words: Vec<&[u8]> = command.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
        // Behind the number of words each has its length in front.
        let word = *words.get(4).unwrap_or(&&b""[..]);
        match *words.get(2)? {
            b"PING" => Some([b"+", word, b"\r\n"].concat()),
            b"UNWATCH" => Some(b"+OK\r\n".to_vec()),
            b"SELECT" => {
                self.database = str::from_utf8(word).ok()?.parse().ok()?;
                Some(b"+OK\r\n".to_vec())
            }
            b"SCRIPT" => Some([b"+", &self.hash[..], b"\r\n"].concat()),
            b"EVALSHA" => {
                self.hash = word.to_vec();
                None
            }
            _ => None,
        }
    }
}

/// Returns the length of the first value of RESP; `None` if it has no end here.
fn value_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut pending) = (0, 1_u64);
    while pending > 0 {
        let kind = *bytes.get(at)?;
        let line = bytes[at + 1..].windows(2).position(|pair| pair == b"\r\n")?;
        let length = str::from_utf8(&bytes[at + 1..][..line]).ok().and_then(|line| line.trim().parse::<i64>().ok());
        let (length, items) = (length.unwrap_or(0), u64::try_from(length.unwrap_or(0)).unwrap_or(0));
        at += line + 3;
        pending -= 1;
        match kind {
            b'*' | b'~' | b'>' => pending = pending.saturating_add(items),
            b'%' => pending = pending.saturating_add(items.saturating_mul(2)),
            b'|' => pending = pending.saturating_add(items.saturating_mul(2)).saturating_add(1),
            b'$' if length < 0 => {}
            b'$' | b'!' | b'=' => at = at.checked_add(usize::try_from(length).ok()?)?.checked_add(2)?,
            _ => {}
        }
        if at > bytes.len() {
            return None;
        }
    }
    Some(at)
}

fn lock(script: &Mutex<ReplyScript>) -> MutexGuard<'_, ReplyScript> {
    script.lock().expect("no panic while it is locked")
}
