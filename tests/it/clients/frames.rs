//! The example clients of binary frames, in C and in Python: they chat with users of WebSockets, and end cleanly on
//! whatever a server sends.

use std::io::{PipeWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use harness::{ChildProgram, Cluster, Process, eventually, repository};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::SOON;

const GREETING: &[u8] = b"* hello\n* lines of text\n";
const MAGIC: [u8; 4] = [0xCA, 0xFE, 0xBA, 0xBE];

/// The compiler's output, which is removed in the end.
struct CompiledExample {
    folder: TempDir,
}

impl CompiledExample {
    /// Compiles the client in C as its comment says, with checks of memory and of undefined behaviour.
    async fn compile() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = repository().join("clients/examples/frames.c").display().to_string();
        let output = folder.path().join("frames").display().to_string();
        let flags =
            ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover"];
        let words = flags.map(str::to_owned).into_iter().chain(["-o".to_owned(), output, source]);
        let compiled = ChildProgram::system("cc", "cc").args(words).run(Duration::from_secs(60)).await;
        assert_eq!((compiled.code, compiled.stderr.as_str()), (Some(0), ""));
        Self { folder }
    }

    fn program(&self) -> String {
        self.folder.path().join("frames").display().to_string()
    }
}

/// A running example, and its input.
struct FrameExample {
    process: Process,
    input: Option<PipeWriter>,
}

impl FrameExample {
    fn start(words: &[&str], address: SocketAddr, nick: &str) -> Self {
        let (reader, input) = std::io::pipe().unwrap();
        let (program, script) = words.split_first().unwrap();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let words = script.iter().copied().chain([&host, &port, nick, "#lobby"]).map(str::to_owned);
        let process = ChildProgram::system(program, nick).args(words).stdin(reader).spawn();
        Self { process, input: Some(input) }
    }

    fn types(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    async fn prints(&self, line: &str) {
        eventually(SOON, "the line", || async {
            let lines = self.process.output().lines();
            if lines.iter().any(|printed| printed == line) { Ok(()) } else { Err((line, lines)) }
        })
        .await;
    }

    /// Ends the input. Returns the exit code.
    async fn end(mut self) -> (Option<i32>, Vec<String>) {
        self.input.take();
        let code = self.process.exit_code(SOON).await;
        (code, self.process.log().lines())
    }
}

/// Chats with a user over two gateways.
async fn chat(words: &[&str]) {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    let mut device = FrameExample::start(words, cluster.gateways[1].tcp(), "device");
    device.prints("* you are in #lobby").await;
    device.types("hello\n\nfrom a \"device\" \u{e9}\n");
    ann.receives("#lobby", "device", "hello").await;
    ann.receives("#lobby", "device", "from a \"device\" \u{e9}").await;
    ann.sends("#lobby", "hi \u{1b}[2J\n").await;
    device.prints("<ann> hi ?[2J?").await;
    device.prints("<device> hello").await;
    let long = "x".repeat(60_000);
    ann.sends("#lobby", &long).await;
    device.prints(&format!("<ann> {long}")).await;
    // An unfinished line is sent before the end.
    device.types("bye");
    assert_eq!(device.end().await, (Some(0), Vec::new()));
    ann.receives("#lobby", "device", "bye").await;
    ann.sees_left("#lobby", "device", "closed").await;
    refused(words, &cluster).await;
    cluster.finish().await;
}

/// Begins under a nickname in use.
async fn refused(words: &[&str], cluster: &Cluster) {
    let mut refused = FrameExample::start(words, cluster.gateways[0].tcp(), "Ann");
    refused.prints("! nick_in_use: this nickname is in use").await;
    assert_eq!(refused.process.exit_code(SOON).await, Some(1));
}

/// Returns a frame with a payload.
fn frame(version: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&MAGIC[..], &[version], &length.to_be_bytes(), &kind.to_be_bytes(), payload].concat()
}

/// Sends these bytes to a client, one by one if `is_slow`. Returns its exit code, its error, and the bytes that it
/// sent.
async fn answer(words: &[&str], bytes: &[u8], is_slow: bool) -> (Option<i32>, Vec<String>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut example = FrameExample::start(words, listener.local_addr().unwrap(), "ann");
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    write(&mut stream, bytes, is_slow).await;
    let _ = stream.shutdown().await;
    let mut received = Vec::new();
    // A client that leaves input unread resets the connection.
    let _ = timeout(SOON, stream.read_to_end(&mut received)).await.expect("in time");
    let code = example.process.exit_code(SOON).await;
    (code, example.process.log().lines(), received)
}

async fn write(stream: &mut TcpStream, bytes: &[u8], is_slow: bool) {
    for part in bytes.chunks(if is_slow { 1 } else { bytes.len() }) {
        // A client that has seen enough closes the connection.
        if stream.write_all(part).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Sends what no gateway sends. The payloads: one with the field `heartbeat_ms`, one that is cut off, and one with a
/// field after a text that would end far behind the payload.
async fn survive(words: &[&str], version: u8, [whole, cut, beyond]: [&[u8]; 3]) {
    let lost = || (Some(1), vec!["! the connection is lost".to_owned()]);
    let registered = frame(version, 257, whole);
    for is_slow in [false, true] {
        let good = [GREETING, &registered, &frame(version, 770, b""), &frame(version, 700, whole)].concat();
        let (code, log, received) = answer(words, &good, is_slow).await;
        assert_eq!((code, log), lost());
        assert!(received.ends_with(&frame(version, 770, b"")), "answered in the end: {received:?}");
    }
    let too_long = [&MAGIC[..], &[version], &u32::MAX.to_be_bytes(), &[2, 1]].concat();
    let random: Vec<u8> = (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let deep = [&[0x81, 4][..], &[0x91; 250_000]].concat();
    let malformed: [&[u8]; 10] = [
        &frame(version, 257, cut),
        &frame(version, 257, beyond),
        &frame(version, 513, &[0xDD; 3]),
        &frame(version, 513, &deep),
        &frame(version, 513, &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF]),
        &frame(version, 513, &[0xFF; 64]),
        &frame(9, 257, whole),
        &[&registered[..], b"* a line\n and more of it"].concat(),
        &too_long,
        &random,
    ];
    for bytes in malformed {
        let (code, log, _) = answer(words, &[GREETING, bytes].concat(), false).await;
        assert_eq!((code, log.len()), (Some(1), 1), "{bytes:?} {log:?}");
        assert!(log[0].starts_with("! ") && log[0] != lost().1[0], "{bytes:?} {log:?}");
    }
    let (code, log, _) = answer(words, &[GREETING, &registered[..14]].concat(), false).await;
    assert_eq!((code, log), lost());
    let (code, log, _) = answer(words, b"! banned: a moderator has banned you\n", false).await;
    assert_eq!((code, log), (Some(1), vec!["! the connection is lost".to_owned()]));
}

fn python() -> String {
    repository().join("clients/examples/frames.py").display().to_string()
}

#[tokio::test]
async fn frame_client_in_c_talks_to_users() {
    let compiled = CompiledExample::compile().await;
    chat(&[&compiled.program()]).await;
}

#[tokio::test]
async fn frame_client_in_python_talks_to_users() {
    chat(&["python3", &python()]).await;
}

#[tokio::test]
async fn frame_client_in_c_survives_malformed_frames() {
    let compiled = CompiledExample::compile().await;
    // {22: 30000}, and a text that is longer than the payload.
    survive(
        &[&compiled.program()],
        2,
        [b"\x81\x16\xcd\x75\x30", b"\x81\x09\xdb\xff\xff\xff\xff", b"\x82\x09\xdb\x7f\xff\xff\xff\x08\xa1a"],
    )
    .await;
}

#[tokio::test]
async fn frame_client_in_python_survives_malformed_frames() {
    survive(
        &["python3", &python()],
        3,
        [b"\xb0\x01\xb0\xea\x01", b"\x4a\xff\xff\xff\xff\x0f", b"\x4a\xff\xff\xff\xff\x07\x42\x01a"],
    )
    .await;
}

#[test]
fn frame_clients_stay_short_and_documented() {
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    let folder = repository().join("clients/examples");
    assert!(lines(&folder.join("frames.py")) < 150);
    assert!(lines(&folder.join("frames.c")) < 400);
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let source = std::fs::read_to_string(folder.join("frames.c")).unwrap();
    let command = "cc -std=c11 -Wall -Wextra -Werror -O2 -o frames frames.c";
    assert!(readme.contains(command) && source.contains(command));
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || name == "README.md" || name == "__pycache__" || readme.contains(&name),
            "{name}"
        );
    }
}
