//! Instructions of Redis for one call of each hot script: the script, its commands, their copy for the file, the push
//! to one subscribed gateway, and the reply.
//!
//! `make count` runs it. A real redis-server runs under Callgrind, for N calls and for 2 N calls; the difference
//! divided by N is one call. Only [`COUNTED`] is counted, so the work that Redis does by the clock adds nothing. Its
//! random hash seeds change a count by less than 1 %. The libraries make the calls, so the scripts are those of the
//! programs. A second run shows the difference to the first, as in `hot_path`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use gateway::backplane::{
    Backplane, PriorPosition, PublishAttempt, PublishRequest, RedisBackplane, RedisBackplaneSettings,
};
use gateway::message::{Accepted, Body};
use presence::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use presence::registry::{ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, RedisRegistry, Registry};
use presence::store::redis::RedisStore;

/// The function of Redis that executes a command of a client, with all that it calls.
const COUNTED: &str = "processCommand";
/// Calls of the shorter run.
const CALLS: usize = 200;
/// Rooms in one call of the batch.
const BATCH: usize = 16;
/// Members of each room in the joins.
const MEMBERS: usize = 10;
/// Longest start of Redis under Callgrind.
const START_MAX: Duration = Duration::from_secs(60);

/// A counted script, with the calls that the count is divided by.
#[derive(Debug, Clone, Copy)]
enum HotScript {
    /// One message of one room.
    Publish,
    /// One message each of [`BATCH`] rooms; counted per message.
    PublishBatch,
    Claim,
    Join,
    Direct,
}

impl HotScript {
    const ALL: [(&'static str, Self); 5] = [
        ("publish", Self::Publish),
        ("publish, per message of 16 rooms", Self::PublishBatch),
        ("claim", Self::Claim),
        ("join, rooms of 10", Self::Join),
        ("direct", Self::Direct),
    ];

    /// Returns the number of units that are counted in a number of calls.
    fn units(self, calls: usize) -> u64 {
        let each = if matches!(self, Self::PublishBatch) { BATCH } else { 1 };
        (calls * each) as u64
    }
}

/// A redis-server under Callgrind, in a folder of its own.
struct CountedRedis {
    child: Child,
    address: SocketAddr,
    counts: PathBuf,
}

impl Drop for CountedRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CountedRedis {
    fn start(folder: &Path) -> Self {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("a writable target folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        drop(listener);
        let counts = folder.join("callgrind.out");
        let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/redis.conf");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "valgrind", "--tool=callgrind", "--quiet"]);
        command.arg(format!("--toggle-collect={COUNTED}")).arg(format!("--callgrind-out-file={}", counts.display()));
        command.args(["redis-server", settings, "--port", &address.port().to_string(), "--dir"]).arg(folder);
        // Nothing in a command depends on the clock: neither the growth of tables nor the log of slow commands.
        command.args(["--activerehashing", "no", "--slowlog-log-slower-than", "-1"]);
        let log = fs::File::create(folder.join("log")).expect("a writable target folder");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let redis = Self { child: command.spawn().expect("setpriv and valgrind are installed"), address, counts };
        let began = Instant::now();
        while !redis.ask("PING\r\nQUIT\r\n").is_some_and(|reply| reply.starts_with("+PONG")) {
            assert!(began.elapsed() < START_MAX, "Redis does not start; its log is in {}", folder.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        redis
    }

    /// Ends the server. Returns its instructions and the number of script calls.
    fn finish(mut self) -> (u64, u64) {
        let stats = self.ask("INFO commandstats\r\nQUIT\r\n").expect("Redis runs");
        let _ = self.ask("SHUTDOWN NOSAVE\r\n");
        self.child.wait().expect("Redis ends");
        let calls = stats.split("cmdstat_evalsha:calls=").nth(1).and_then(leading_number);
        let counts = fs::read_to_string(&self.counts).expect("Callgrind wrote its counts");
        let total = counts.lines().find_map(|line| line.strip_prefix("summary: ")).and_then(leading_number);
        (total.expect("a summary"), calls.expect("calls of scripts"))
    }

    /// Sends commands of which the last one ends the connection, and returns the replies.
    fn ask(&self, commands: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.write_all(commands.as_bytes()).ok()?;
        let mut replies = String::new();
        stream.read_to_string(&mut replies).ok()?;
        Some(replies)
    }
}

fn leading_number(text: &str) -> Option<u64> {
    text.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// One gateway as Redis sees it, with a registry and a backplane.
struct CountedGateway {
    registry: Registry,
    backplane: Backplane,
    incarnation: Incarnation,
}

impl CountedGateway {
    async fn connect(address: SocketAddr) -> Self {
        let redis = RedisStore::open(&format!("redis://{address}/"), "parley").expect("a URL");
        let registry = Registry::Redis(RedisRegistry::new(redis.clone()));
        let incarnation = Incarnation::random();
        registry.open_lease(&incarnation, &gateway_info()).await.expect("a lease");
        let backplane = Backplane::Redis(RedisBackplane::start(redis, RedisBackplaneSettings::default(), Arc::new(drop)));
        backplane.subscribe_own_channel(&incarnation).await;
        Self { registry, backplane, incarnation }
    }

    /// Claims the nickname of this number for a new session.
    async fn claim(&self, number: usize) -> (Nick, Owner) {
        let (nick, session) = (Nick::parse(&format!("user{number:06}")).expect("a nickname"), SessionId::random());
        let token = TokenHash::of(format!("secret {number:06}").as_bytes());
        let incarnation = &self.incarnation;
        let request = ClaimRequest { incarnation, session: &session, nick: &nick, token: &token, user: None };
        let claimed = self.registry.claim(request).await;
        let (fence, _) = claimed.expect("a free nickname");
        (nick, Owner { incarnation: self.incarnation.clone(), session, fence })
    }

    async fn join(&self, (nick, owner): &(Nick, Owner), room: &RoomName) {
        let (status, entry) = (Status::default(), JoinEntry::New);
        let joined = self
            .registry
            .join(JoinRequest { room, nick, owner, user: None, status: &status, entry, moderates: false })
            .await;
        joined.expect("an accepted join");
    }

    async fn publish(&self, from: &(Nick, Owner), room: &RoomName) {
        let attempt = PublishAttempt::First(&PriorPosition::default());
        let published = self.backplane.publish(room, &message(from), attempt).await;
        published.expect("an accepted message");
    }

    /// Makes this number of calls. The preparations are the same for every number.
    async fn run(&self, script: HotScript, calls: usize) {
        match script {
            HotScript::Publish | HotScript::PublishBatch => {
                let mut senders = Vec::new();
                for number in 0..BATCH {
                    let (sender, room) = (self.claim(number).await, room(number));
                    self.backplane.subscribe(room.key()).await.expect("a subscription");
                    self.join(&sender, &room).await;
                    senders.push((sender, room));
                }
                for call in 0..calls {
                    if matches!(script, HotScript::Publish) {
                        let (sender, room) = &senders[call % BATCH];
                        self.publish(sender, room).await;
                    } else {
                        // On a runtime of one thread all messages are queued before the first call begins.
                        join_all(senders.iter().map(|(sender, room)| self.publish(sender, room))).await;
                    }
                }
            }
            HotScript::Claim => {
                for number in 0..calls {
                    self.claim(number).await;
                }
            }
            HotScript::Join => {
                let mut members = Vec::new();
                for number in 0..2 * CALLS {
                    members.push(self.claim(number).await);
                }
                for (number, member) in members.iter().take(calls).enumerate() {
                    self.join(member, &room(number / MEMBERS)).await;
                }
            }
            HotScript::Direct => {
                let (sender, (receiver, _)) = (self.claim(0).await, self.claim(1).await);
                for _ in 0..calls {
                    self.backplane.direct(receiver.key(), &message(&sender)).await.expect("an accepted message");
                }
            }
        }
    }
}

fn gateway_info() -> GatewayInfo {
    let address = || "127.0.0.1:1".to_owned();
    GatewayInfo { node: "g1".to_owned(), version: "0".to_owned(), ws: address(), tcp: address(), admin: address() }
}

fn room(number: usize) -> RoomName {
    RoomName::parse(&format!("#room{number:06}")).expect("a room")
}

fn message((from, owner): &(Nick, Owner)) -> PublishRequest {
    let (msg_id, body) = (SessionId::random().to_string(), Body::from_text(&"x".repeat(128)));
    let (from, owner, accepted) = (from.clone(), owner.clone(), Accepted::at(SystemTime::now()));
    PublishRequest { msg_id, key: None, from, from_user: None, owner, moderates: false, body, accepted }
}

/// Returns the instructions and the script calls of a server that answers `calls` calls.
fn counted(script: HotScript, calls: usize, folder: &Path) -> (u64, u64) {
    let redis = CountedRedis::start(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { CountedGateway::connect(redis.address).await.run(script, calls).await });
    drop(runtime);
    redis.finish()
}

/// Returns the instructions of one call.
fn instructions(script: HotScript, folder: &Path) -> u64 {
    let run = |calls: usize| counted(script, calls, &folder.join(calls.to_string()));
    let (once, twice) = std::thread::scope(|scope| {
        let once = scope.spawn(|| run(CALLS));
        let twice = run(2 * CALLS);
        (once.join().expect("a finished run"), twice)
    });
    let calls = twice.1 - once.1;
    assert_eq!(calls, CALLS as u64, "each round is one call");
    let units = script.units(CALLS);
    (twice.0.saturating_sub(once.0) + units / 2) / units
}

fn main() {
    // Cargo sets the folder for benchmarks; it lasts until `cargo clean`.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scripts");
    let record = folder.join("instructions");
    let former: BTreeMap<String, u64> =
        fs::read_to_string(&record).unwrap_or_default().lines().filter_map(parsed).collect();
    let mut text = String::new();
    for (name, script) in HotScript::ALL {
        let count = instructions(script, &folder.join("runs"));
        let change = match former.get(name) {
            Some(former) if *former == count => format!("{former} (No change)"),
            Some(former) => format!("{former} ({:+.2}%)", (count as f64 / *former as f64 - 1.0) * 100.0),
            None => "N/A".to_owned(),
        };
        println!("scripts::{name}\n  Instructions: {count:>20}|{change}");
        let _ = writeln!(text, "{count} {name}");
    }
    fs::write(record, text).expect("a writable target folder");
}

fn parsed(line: &str) -> Option<(String, u64)> {
    let (count, name) = line.split_once(' ')?;
    Some((name.to_owned(), count.parse().ok()?))
}
