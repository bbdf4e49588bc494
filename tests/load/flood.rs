//! `load flood`: a room beside connections that send nothing, then the same room while they flood the gateway with bad
//! frames.
//!
//! [`BadFlood`] floods from a thread of its own until it is dropped. A client that is closed connects again at once, as
//! a hostile one does. The outcome is that of the second room, with the first one in `quiet`, the frames in `flood`,
//! and the figures of the second as a share of the first. The members of the room know nothing of the flood.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use serde_json::{Map, Value, json};
use socket2::{Domain, Socket, Type};

use crate::cli::FloodFlags;
use crate::frame::{self, opcode};
use crate::outcome;
use crate::run;
use crate::scenario::PreparedRun;
use crate::worker::await_events;

/// Maximum time that a flood goes on after the room, until the gateway has closed a client.
const FIRST_CLOSE: Duration = Duration::from_secs(60);
/// Time between two batches of frames.
const TICK: Duration = Duration::from_millis(5);
/// The flood: malformed, of an unknown type, with a forbidden name, and a ping of the framing.
const BAD_FRAMES: [(u8, &[u8]); 4] = [
    (opcode::TEXT, b"{\"type\":"),
    (opcode::TEXT, b"{\"type\":\"dance\",\"id\":1}"),
    (opcode::TEXT, b"{\"type\":\"register\",\"nick\":\"a b\"}"),
    (opcode::PING, b"x"),
];

/// Runs the room twice beside the same number of connections, which flood the gateway the second time.
pub(crate) fn carry_out(flags: &FloodFlags) -> Result<()> {
    let quiet = measure_beside(flags, 0.0, "quiet")?;
    let mut outcome = measure_beside(flags, flags.bad_rate, "flood")?;
    outcome["shares"] = shares(&outcome, &quiet);
    println!("  flood: {}\n  shares of the quiet room: {}", outcome["flood"], outcome["shares"]);
    outcome["quiet"] = quiet;
    outcome::save(&outcome, flags.room.common.json.as_deref())
}

/// Runs the room beside a flood of so many frames per second.
fn measure_beside(flags: &FloodFlags, rate: f64, scenario: &str) -> Result<Value> {
    let (prepared, targets) = (flags.room.prepare()?, flags.room.target.ws.clone());
    ensure!(!targets.is_empty() && flags.connections > 0, "a flood needs --ws and a connection");
    let flood = BadFlood::start((flags.from, targets), flags.connections, rate)?;
    let mut outcome = measure(prepared, scenario)?;
    outcome["flood"] = flood.finish();
    Ok(outcome)
}

/// Returns the p99 of the deliveries, and the memory of each watched process, as a share of those in silence.
fn shares(outcome: &Value, quiet: &Value) -> Value {
    let share = |figure: &dyn Fn(&Value) -> Option<f64>| Some(figure(outcome)? / figure(quiet)?);
    let names = quiet["processes"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let rss: Map<String, Value> = names
        .map(|name| {
            let share = share(&|outcome| outcome["processes"][&name]["rss_ended_kib"].as_f64());
            (name, json!(share))
        })
        .collect();
    json!({"p99": share(&|outcome| outcome["delivery_ms"]["p99"].as_f64()), "rss": rss})
}

fn measure(prepared: PreparedRun, scenario: &str) -> Result<Value> {
    let finished = run::run(prepared.plan, prepared.course)?;
    let outcome = outcome::json(scenario, &finished);
    println!("{}", outcome::summary(&outcome));
    let is_clean = finished.checked.is_none_or(|checked| checked.is_clean());
    ensure!(is_clean, "the checking members did not receive each message once and in order");
    Ok(outcome)
}

/// Counts of a flood.
#[derive(Debug, Default)]
struct FloodCounts {
    frames: AtomicU64,
    connects: AtomicU64,
    closes: AtomicU64,
    is_over: AtomicBool,
}

/// A flood from its own thread.
#[derive(Debug)]
struct BadFlood {
    counts: Arc<FloodCounts>,
    thread: Option<JoinHandle<Result<()>>>,
    began: Instant,
    rate: f64,
}

impl BadFlood {
    fn start((source, targets): (IpAddr, Vec<SocketAddr>), connections: u32, rate: f64) -> Result<Self> {
        let counts = Arc::new(FloodCounts::default());
        let mut crowd = FloodCrowd {
            poll: Poll::new().context("cannot start the flood")?,
            clients: Vec::new(),
            source,
            targets,
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::spawn(move || crowd.run(connections as usize, rate));
        Ok(Self { counts, thread: Some(thread), began: Instant::now(), rate })
    }

    /// Ends the flood and returns its figures.
    fn finish(mut self) -> Value {
        let frames = self.counts.frames.load(Ordering::Relaxed);
        let per_second = frames as f64 / self.began.elapsed().as_secs_f64();
        let error = self.end();
        let [connects, closes] =
            [&self.counts.connects, &self.counts.closes].map(|count| count.load(Ordering::Relaxed));
        json!({
            "offered_per_s": self.rate, "frames": frames, "frames_per_s": per_second.round(),
            "connects": connects, "closes": closes, "error": error,
        })
    }

    fn end(&mut self) -> Option<String> {
        self.counts.is_over.store(true, Ordering::Relaxed);
        match self.thread.take()?.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("the flood panicked".to_owned()),
        }
    }
}

impl Drop for BadFlood {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// A connection of the flood.
#[derive(Debug)]
struct FloodClient {
    socket: TcpStream,
    received: Vec<u8>,
    is_upgraded: bool,
    unsent: Vec<u8>,
}

/// The connections of a flood.
#[derive(Debug)]
struct FloodCrowd {
    poll: Poll,
    clients: Vec<FloodClient>,
    source: IpAddr,
    targets: Vec<SocketAddr>,
    counts: Arc<FloodCounts>,
}

impl FloodCrowd {
    fn run(&mut self, connections: usize, rate: f64) -> Result<()> {
        for number in 0..connections {
            let client = self.connect(number)?;
            self.clients.push(client);
        }
        let (mut events, began, mut sent) = (Events::with_capacity(1024), Instant::now(), 0);
        let mut over_at = None;
        while !self.has_ended(rate, &mut over_at) {
            await_events(&mut self.poll, &mut events, Some(TICK))?;
            for event in &events {
                let Token(number) = event.token();
                if self.clients[number].take_input().is_err() {
                    self.counts.closes.fetch_add(1, Ordering::Relaxed);
                    self.clients[number] = self.connect(number)?;
                }
            }
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                let (code, payload) = BAD_FRAMES[sent as usize % BAD_FRAMES.len()];
                // Consecutive frames of all kinds for each client.
                let number = (sent as usize / BAD_FRAMES.len()) % connections;
                self.clients[number].queue(code, payload, &self.counts);
                sent += 1;
            }
            self.clients.iter_mut().for_each(FloodClient::flush);
        }
        Ok(())
    }

    /// Returns true if the room has ended and a client was closed. Frames that a gateway without processor time has not
    /// read yet wait in sockets, so the first close may come late.
    fn has_ended(&self, rate: f64, over_at: &mut Option<Instant>) -> bool {
        if !self.counts.is_over.load(Ordering::Relaxed) {
            return false;
        }
        let over_at = over_at.get_or_insert_with(Instant::now);
        rate == 0.0 || self.counts.closes.load(Ordering::Relaxed) > 0 || over_at.elapsed() > FIRST_CLOSE
    }

    fn connect(&mut self, number: usize) -> io::Result<FloodClient> {
        let target = self.targets[number % self.targets.len()];
        let mut socket = connect_from(self.source, target)?;
        self.poll.registry().register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        self.counts.connects.fetch_add(1, Ordering::Relaxed);
        Ok(FloodClient {
            socket,
            received: Vec::new(),
            is_upgraded: false,
            unsent: frame::request("/ws", target, None),
        })
    }
}

/// Begins to connect from a local address.
fn connect_from(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl FloodClient {
    /// Reads all input, and drops it once the connection is upgraded.
    ///
    /// # Errors
    /// The connection has ended.
    fn take_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) if !self.is_upgraded => {
                    self.received.extend_from_slice(&buffer[..count]);
                    if frame::upgraded(&self.received).map_err(io::Error::other)?.is_some() {
                        (self.is_upgraded, self.received) = (true, Vec::new());
                    }
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues a frame, unless the gateway has not taken the ones before it.
    fn queue(&mut self, code: u8, payload: &[u8], counts: &FloodCounts) {
        if self.is_upgraded && self.unsent.len() < 64 * 1024 {
            frame::put_masked(code, payload, &mut self.unsent);
            counts.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what the socket takes. A broken one is noticed by the next read.
    fn flush(&mut self) {
        if let Ok(written) = self.socket.write(&self.unsent) {
            self.unsent.drain(..written);
        }
    }
}
