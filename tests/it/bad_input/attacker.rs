//! [`Attacker`]: sends rows to the programs and checks the reactions.
//!
//! Connections that a row leaves open serve the next one, so a row also shows that those before it broke nothing.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::client::RawFrame;
use harness::{Cluster, RawWs, http};
use presence::model::codes::CloseCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::row::{BadInput, Reaction, Surface};

/// Longest time for a reaction on a busy machine.
const REACTION_MAX: Duration = Duration::from_secs(20);
/// The address of a trusted proxy.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// The header of a trusted proxy for a client.
pub(super) const PROXY_HEADER: &[u8] = b"PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n";
/// The first bytes of a connection with binary frames.
const FRAME_START: [u8; 2] = [0xCA, 0xFE];
/// Types of frames that are no replies.
const EVENTS: [&str; 7] = ["message", "presence", "typing", "rewound", "gap", "epoch", "resync"];
/// Parts of lines that answer no request of a row.
const NOTICES: [&str; 4] = ["* this is parley", "* /help lists", "* token noted", " joined #pit-"];

/// The ports of a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Targets {
    pub(super) ws: SocketAddr,
    pub(super) tcp: SocketAddr,
    gateway_admin: SocketAddr,
    presence_admin: SocketAddr,
    presence_api: SocketAddr,
}

impl Targets {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let (gateway, presence) = (&cluster.gateways[0], &cluster.presence[0]);
        Self {
            ws: gateway.ws(),
            tcp: gateway.tcp(),
            gateway_admin: gateway.admin(),
            presence_admin: presence.admin(),
            presence_api: presence.api(),
        }
    }
}

/// A client that sends bad input, one row at a time.
#[derive(Debug)]
pub(super) struct Attacker {
    nick: String,
    targets: Targets,
    sockets: HashMap<Surface, RawWs>,
    lines: HashMap<Surface, BufReader<TcpStream>>,
}

impl Attacker {
    pub(super) fn new(nick: String, targets: Targets) -> Self {
        Self { nick, targets, sockets: HashMap::new(), lines: HashMap::new() }
    }

    /// Sends a row and checks the reaction.
    ///
    /// # Errors
    /// The reaction instead.
    pub(super) async fn attack(&mut self, row: &BadInput) -> Result<(), String> {
        let attack = async {
            match row.surface {
                Surface::Newcomer | Surface::Member | Surface::Frames => self.attack_socket(row).await,
                Surface::Lines | Surface::MemberLines | Surface::ProxyLines => self.attack_lines(row).await,
                Surface::ClientPort => self.attack_http(row, Ipv4Addr::LOCALHOST, self.targets.ws).await,
                Surface::ProxyPort => self.attack_http(row, PROXY, self.targets.ws).await,
                Surface::GatewayAdmin => self.attack_http(row, Ipv4Addr::LOCALHOST, self.targets.gateway_admin).await,
                Surface::PresenceAdmin => self.attack_http(row, Ipv4Addr::LOCALHOST, self.targets.presence_admin).await,
                Surface::PresenceApi => self.attack_http(row, Ipv4Addr::LOCALHOST, self.targets.presence_api).await,
            }
        };
        let reaction = timeout(REACTION_MAX, attack).await.unwrap_or_else(|_| Err("no reaction in time".to_owned()));
        reaction.map_err(|found| format!("{:?}, {}: expected {:?}: {found}", row.surface, row.name, row.reaction))
    }

    /// Ends the sessions and closes all connections.
    pub(super) async fn leave(&mut self) {
        let mut member = self.sockets.remove(&Surface::Member);
        if let Some(socket) = &mut member {
            socket.sends_frame(0x81, b"{\"type\":\"bye\"}").await;
            while socket.next().await.is_some() {}
        }
        let mut lines = self.lines.remove(&Surface::MemberLines);
        if let Some(stream) = &mut lines {
            let _ = stream.get_mut().write_all(b"/quit\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        self.sockets.clear();
        self.lines.clear();
    }

    async fn attack_socket(&mut self, row: &BadInput) -> Result<(), String> {
        let mut socket = match self.sockets.remove(&row.surface) {
            Some(socket) => socket,
            None => self.open_socket(row.surface).await?,
        };
        match row.surface {
            Surface::Frames => socket.sends(&row.bytes).await,
            _ => socket.sends_frame(0x81, &row.bytes).await,
        }
        if let Reaction::Closed(code) = row.reaction {
            return expect_close(&mut socket, code).await;
        }
        let reply = reply(&mut socket).await?;
        let is_expected = match row.reaction {
            Reaction::Refused(code) => reply["type"] == "error" && reply["code"] == code,
            Reaction::Accepted(kind) => reply["type"] == kind,
            _ => return Err(format!("a WebSocket has no such reaction: {reply}")),
        };
        if !is_expected || reply["id"] != row.id {
            return Err(reply.to_string());
        }
        if let Some(undo) = &row.undo {
            undone(&mut socket, undo).await?;
        }
        // Several unknown tokens close a connection.
        if row.reaction != Reaction::Refused("resume_failed") {
            self.sockets.insert(row.surface, socket);
        }
        Ok(())
    }

    async fn open_socket(&self, surface: Surface) -> Result<RawWs, String> {
        let mut socket = RawWs::connect(self.targets.ws).await;
        if surface == Surface::Member {
            undone(&mut socket, &json!({"type": "register", "nick": format!("{}-ws", self.nick)}).to_string()).await?;
            undone(&mut socket, &json!({"type": "join", "room": format!("#pit-{}", self.nick)}).to_string()).await?;
        }
        Ok(socket)
    }

    async fn attack_lines(&mut self, row: &BadInput) -> Result<(), String> {
        // Binary data and headers are recognized at the start of a connection.
        let is_first = matches!(row.reaction, Reaction::Closed(_));
        let mut stream = match self.lines.remove(&row.surface).filter(|_| !is_first) {
            Some(stream) => stream,
            None => self.open_lines(row.surface).await?,
        };
        // A client that is being closed may be unable to send the rest.
        let _ = stream.get_mut().write_all(&row.bytes).await;
        if let Reaction::Closed(code) = row.reaction
            && row.bytes.starts_with(&FRAME_START)
        {
            return expect_closing(&mut stream, code).await;
        }
        let first = next_line(&mut stream).await?;
        let refused = |code: &str| first.starts_with(&format!("! {code}: "));
        match row.reaction {
            Reaction::Refused(code) if refused(code) => {}
            Reaction::Accepted(start) if first.starts_with(start) => {}
            Reaction::Dismissed(code) if refused(code) => return expect_end(&mut stream).await,
            Reaction::Closed(code) => {
                let closing = format!("* closing: {}", code.slug());
                let last = if first.starts_with("! ") { next_line(&mut stream).await? } else { first };
                return if last == closing { expect_end(&mut stream).await } else { Err(last) };
            }
            _ => return Err(first),
        }
        // A proxy sends its header once.
        if row.surface != Surface::ProxyLines {
            self.lines.insert(row.surface, stream);
        }
        Ok(())
    }

    async fn open_lines(&self, surface: Surface) -> Result<BufReader<TcpStream>, String> {
        let source = if surface == Surface::ProxyLines { PROXY } else { Ipv4Addr::LOCALHOST };
        let stream = harness::client::connect_from(source, self.targets.tcp).await.map_err(|e| e.to_string())?;
        let mut stream = BufReader::new(stream);
        if surface == Surface::MemberLines {
            let login = format!("/nick {0}-tcp\n/join #pit-{0}-tcp\n", self.nick);
            stream.get_mut().write_all(login.as_bytes()).await.map_err(|error| error.to_string())?;
            while !next_line(&mut stream).await?.starts_with("* you are in ") {}
        }
        Ok(stream)
    }

    async fn attack_http(&self, row: &BadInput, source: Ipv4Addr, target: SocketAddr) -> Result<(), String> {
        let answer = exchange(source, target, &row.bytes).await.map_err(|error| error.to_string())?;
        let response = http::parse(&answer);
        let (status, body) = response.map_or((0, String::new()), |response| (response.status, response.body));
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        let code = document["code"].as_str().unwrap_or_default();
        match row.reaction {
            Reaction::Ended if answer.is_empty() => Ok(()),
            Reaction::Status(expected, word) if (status, code) == (expected, word) => Ok(()),
            _ => Err(format!("{status} {body:.200}")),
        }
    }
}

/// Sends bytes and returns all that is answered. The server may close before it has read everything.
async fn exchange(source: Ipv4Addr, target: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut input, mut output) = harness::client::connect_from(source, target).await?.into_split();
    let mut answer = Vec::new();
    let (sent, read) = tokio::join!(output.write_all(bytes), input.read_to_end(&mut answer));
    // A reset after the answer, or in place of one, is an end too.
    drop((sent, read));
    Ok(answer)
}

/// Returns the next frame that is a reply.
async fn reply(socket: &mut RawWs) -> Result<Value, String> {
    loop {
        match socket.next_in_time().await {
            None => return Err("the connection ended".to_owned()),
            Some(RawFrame { opcode: 1, payload }) => {
                let reply: Value = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
                if !EVENTS.iter().any(|kind| reply["type"] == *kind) {
                    return Ok(reply);
                }
            }
            Some(RawFrame { opcode: 8, payload }) => return Err(format!("closed: {}", payload.escape_ascii())),
            Some(_) => {}
        }
    }
}

/// Sends a request that must be accepted.
async fn undone(socket: &mut RawWs, request: &str) -> Result<(), String> {
    socket.sends_frame(0x81, request.as_bytes()).await;
    let reply = reply(socket).await?;
    if reply["type"] == "error" { Err(format!("{request}: {reply}")) } else { Ok(()) }
}

async fn expect_close(socket: &mut RawWs, code: CloseCode) -> Result<(), String> {
    loop {
        match socket.next_in_time().await {
            None => return Err("ended without a close frame".to_owned()),
            Some(RawFrame { opcode: 8, payload }) => {
                let expected = [&code.number().to_be_bytes()[..], code.slug().as_bytes()].concat();
                return if payload == expected { Ok(()) } else { Err(format!("closed: {}", payload.escape_ascii())) };
            }
            Some(_) => {}
        }
    }
}

/// Waits for the end of a connection after a `closing` frame in JSON.
async fn expect_closing(stream: &mut BufReader<TcpStream>, code: CloseCode) -> Result<(), String> {
    let mut output = Vec::new();
    stream.read_to_end(&mut output).await.map_err(|error| error.to_string())?;
    let (number, slug) = (code.number(), code.slug());
    let payload = format!(r#"{{"type":"closing","close_code":{number},"code":"{slug}"}}"#);
    if output.ends_with(payload.as_bytes()) { Ok(()) } else { Err(output.escape_ascii().to_string()) }
}

/// Returns the next line that answers something.
async fn next_line(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    loop {
        let mut line = Vec::new();
        if !stream.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            return Err("the connection ended".to_owned());
        }
        // Answers to commands of telnet precede a line.
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_matches(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
        let is_notice = NOTICES.iter().any(|part| line.contains(part));
        if line.starts_with("! ") || line.starts_with("* ") && !is_notice {
            return Ok(line.to_owned());
        }
    }
}

async fn expect_end(stream: &mut BufReader<TcpStream>) -> Result<(), String> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    if rest.is_empty() { Ok(()) } else { Err(rest.escape_ascii().to_string()) }
}
