//! Floor of a delivery: one process, one epoll, and one send() per member and message.
//!
//! It has no rooms, names, order or store; each frame goes to every member, its sender included. With `rounds`, all
//! messages of one wake-up go out in one send() per member: the bound for batching servers. Unsent bytes of slow
//! members wait without a limit, because all members are clients of this program.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::frame::{self, opcode};
use crate::process;
use crate::worker::await_events;

const LISTENER: Token = Token(usize::MAX - 1);
const STDIN: Token = Token(usize::MAX - 2);

/// Floor in its own process; dropping it ends the process.
#[derive(Debug)]
pub(crate) struct FloorServer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl FloorServer {
    /// Starts a floor on a free loopback port.
    pub(crate) fn start(rounds: bool) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let mut command = Command::new(program);
        command.arg("floor-server").args(rounds.then_some("--rounds"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start floor")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("floor did not start")? })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct FloorMember {
    socket: TcpStream,
    is_upgraded: bool,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

/// Writes its address to stdout and serves until its stdin ends.
pub(crate) fn serve(rounds: bool) -> Result<()> {
    process::raise_descriptors()?;
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&0), STDIN, Interest::READABLE)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;

    let mut members: HashMap<usize, FloorMember> = HashMap::new();
    let (mut events, mut buffer, mut next) = (Events::with_capacity(1024), vec![0; 64 * 1024], 0);
    let (mut batch, mut closed) = (Vec::new(), Vec::new());
    loop {
        await_events(&mut poll, &mut events, None)?;
        for event in &events {
            match event.token() {
                STDIN => return Ok(()),
                LISTENER => {
                    while let Ok((mut socket, _)) = listener.accept() {
                        socket.set_nodelay(true)?;
                        poll.registry().register(&mut socket, Token(next), Interest::READABLE | Interest::WRITABLE)?;
                        members.insert(
                            next,
                            FloorMember { socket, is_upgraded: false, received: Vec::new(), unsent: Vec::new() },
                        );
                        next += 1;
                    }
                }
                Token(number) => {
                    let before = batch.len();
                    let Some(member) = members.get_mut(&number) else { continue };
                    let is_alive = (!event.is_writable() || member.flush().is_ok())
                        && (!event.is_readable() || member.read(&mut buffer, &mut batch).is_ok());
                    if !is_alive {
                        closed.push(number);
                    }
                    if !rounds && batch.len() > before {
                        for message in messages(&batch) {
                            send_to_all(&mut members, message, &mut closed);
                        }
                        batch.clear();
                    }
                }
            }
        }
        if !batch.is_empty() {
            send_to_all(&mut members, &batch, &mut closed);
            batch.clear();
        }
        closed.drain(..).for_each(|number| drop(members.remove(&number)));
    }
}

/// Iterates over frames that were appended one after the other.
fn messages(mut batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (_, length) = frame::take(batch).ok()??;
        let (first, rest) = batch.split_at(length);
        batch = rest;
        Some(first)
    })
}

fn send_to_all(members: &mut HashMap<usize, FloorMember>, bytes: &[u8], closed: &mut Vec<usize>) {
    for (number, member) in members.iter_mut().filter(|(_, member)| member.is_upgraded) {
        if member.send(bytes).is_err() {
            closed.push(*number);
        }
    }
}

impl FloorMember {
    /// Reads the received bytes; broadcast frames go into `batch`.
    fn read(&mut self, buffer: &mut [u8], batch: &mut Vec<u8>) -> io::Result<()> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let received = std::mem::take(&mut self.received);
        let used = self.process_bytes(&received, batch)?;
        self.received = received[used..].to_vec();
        Ok(())
    }

    fn process_bytes(&mut self, bytes: &[u8], batch: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        if !self.is_upgraded {
            let Some(head) = frame::head(bytes).map_err(io::Error::other)? else { return Ok(0) };
            (self.is_upgraded, used) = (true, head);
            self.send(&frame::response())?;
        }
        while let Some((frame, length)) = frame::take(&bytes[used..]).map_err(io::Error::other)? {
            used += length;
            match frame.payload {
                b"?" => {
                    let mut echo = Vec::new();
                    frame::put_bare(opcode::TEXT, frame.payload, &mut echo);
                    self.send(&echo)?;
                }
                payload => frame::put_bare(opcode::TEXT, payload, batch),
            }
        }
        Ok(used)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write(&mut self.socket, bytes)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let sent = write(&mut self.socket, &self.unsent)?;
            if sent == 0 {
                break;
            }
            self.unsent.drain(..sent);
        }
        Ok(())
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
