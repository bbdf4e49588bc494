//! Readers of logs that stand still, and destinations that fail.
//!
//! Invariant: no reader of stderr, stdout or a log file stops a program; lost lines are counted, and reported later.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use harness::log::ProgramLog;
use harness::port::ReservedPort;
use harness::{Node, Redis, WsClient, eventually, http};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// Time limit for filling a queue of log lines.
const FILLED: Duration = Duration::from_secs(240);
/// Capacity of a pipe on Linux.
const PIPE_BYTES: usize = 64 << 10;
const DROPPED: &str = "parley_log_lines_dropped_total";

async fn dropped(node: &Node) -> f64 {
    node.metrics().await.get(DROPPED, &[]).unwrap_or_else(|| panic!("no {DROPPED}"))
}

/// Sends messages until a log destination of the node drops lines. Every message is acknowledged meanwhile.
async fn chat_until_lines_drop(node: &Node, ann: &WsClient) {
    eventually(FILLED, "log lines are dropped", async || {
        join_all((0..100).map(|_| ann.sends("#lobby", "hi"))).await;
        let dropped = dropped(node).await;
        if dropped > 0.0 { Ok(()) } else { Err(dropped) }
    })
    .await;
}

async fn ann_in_the_lobby(node: &Node) -> WsClient {
    let ann = WsClient::connect(node.ws()).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann
}

/// Checks that a gateway serves: health, a newcomer, and messages both ways.
async fn assert_serves(node: &Node, ann: &WsClient, newcomer: &str) {
    for path in ["/livez", "/readyz"] {
        let answer = http::get(node.admin(), path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let other = WsClient::connect(node.ws()).await;
    other.register(newcomer).await;
    other.join("#lobby").await;
    other.sends("#lobby", newcomer).await;
    ann.receives("#lobby", newcomer, newcomer).await;
}

/// Reads the lines of a pipe to its end, on a thread.
fn follow(pipe: PipeReader) -> ProgramLog {
    let log = ProgramLog::default();
    let lines = log.clone();
    std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| lines.push(line)));
    log
}

/// Returns the total number of lines that the reports of a log name.
fn reported(lines: &[String], destination: &str) -> u64 {
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let reports = lines.filter(|line| line["message"] == "log lines dropped" && line["destination"] == destination);
    reports.map(|line| line["lost"].as_u64().unwrap()).sum()
}

/// Waits until the reports of a log name every dropped line.
async fn until_all_are_reported(node: &Node, destination: &str, lines: impl Fn() -> Vec<String>) {
    eventually(SOON, "every dropped line is reported", async || {
        let (dropped, reported) = (dropped(node).await, reported(&lines(), destination));
        if dropped > 0.0 && reported as f64 == dropped { Ok(()) } else { Err((dropped, reported)) }
    })
    .await;
}

/// Returns a pipe into which no further byte fits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
    (reader, writer)
}

#[tokio::test]
async fn stalled_stderr_reader_never_stops_the_chat() {
    let redis = Redis::running().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let gateway = Node::gateway("g1").redis(&redis).setting("PARLEY__LOG__LEVEL", "trace");
    let node = gateway.launch_as(|program| program.stderr(writer)).await;
    node.until_ready(SOON).await;
    let ann = ann_in_the_lobby(&node).await;
    chat_until_lines_drop(&node, &ann).await;
    // Redis reconnects, which takes more than the one thread that a blocked log would leave.
    redis.call::<u64>("CLIENT KILL TYPE normal").await;
    node.until_ready(SOON).await;
    eventually(SOON, "messages are acknowledged again", async || {
        ann.try_send("#lobby", "again").await.map_err(|refusal| format!("{refusal:?}"))
    })
    .await;
    assert_serves(&node, &ann, "bob").await;

    let log = follow(reader);
    until_all_are_reported(&node, "stderr", || log.lines()).await;
    let lines = log.lines();
    assert!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "a line is cut");
    assert_serves(&node, &ann, "cy").await;
}

#[tokio::test]
async fn stalled_stderr_reader_delays_no_exit() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let gateway = Node::gateway("g1").setting("PARLEY__LOG__LEVEL", "trace");
    let mut node = gateway.launch_as(|program| program.stderr(writer)).await;
    node.until_ready(SOON).await;
    let ann = ann_in_the_lobby(&node).await;
    chat_until_lines_drop(&node, &ann).await;
    assert_eq!(node.end().await, Some(0));
}

#[tokio::test]
async fn stalled_stderr_reader_never_stops_presence() {
    let redis = Redis::running().await;
    let (reader, writer) = full_pipe();
    let presence = Node::presence("p1").redis(&redis).setting("PARLEY__LOG__LEVEL", "trace");
    let mut node = presence.launch_as(|program| program.stderr(writer)).await;
    node.until_ready(SOON).await;
    for _ in 0..200 {
        assert_eq!(http::get(node.api(), "/v1/stats").await.unwrap().status, 200);
    }
    assert_eq!(http::get(node.admin(), "/livez").await.unwrap().status, 200);
    let log = follow(reader);
    eventually(SOON, "the queued lines arrive", async || {
        if log.holds("connection limit set") { Ok(()) } else { Err(log.tail(3)) }
    })
    .await;
    assert_eq!(node.end().await, Some(0));
}

#[tokio::test]
async fn full_stdout_pipe_never_stops_a_start() {
    let (_reader, writer) = full_pipe();
    let (_errors, error_writer) = full_pipe();
    let admin = ReservedPort::reserve();
    let gateway = Node::gateway("g1").setting("PARLEY__ADMIN__ADDR", &admin.address().to_string()).program();
    let mut process = gateway.stdout(writer).stderr(error_writer).spawn();
    eventually(SOON, "the gateway is ready", async || {
        let answer = http::get(admin.address(), "/readyz").await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
    process.terminate();
    assert_eq!(process.exit_code(SOON).await, Some(0));
}

#[tokio::test]
async fn full_stderr_pipe_never_keeps_a_failed_start() {
    let (_reader, writer) = full_pipe();
    let refused = Node::gateway("g1").setting("PARLEY__LOG__LEVEL", "loud").program().stderr(writer);
    assert_eq!(refused.spawn().exit_code(SOON).await, Some(64));
    let (_reader, writer) = full_pipe();
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let failing = Node::gateway("g1").setting("PARLEY__LISTEN__WS", &address).program().stderr(writer);
    assert_eq!(failing.spawn().exit_code(SOON).await, Some(1));
}

#[tokio::test]
async fn pipe_as_log_file_needs_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let gateway = Node::gateway("g1").setting("PARLEY__LOG__FILE", file.to_str().unwrap());
    let node = gateway.setting("PARLEY__LOG__LEVEL", "trace").start().await;
    let ann = ann_in_the_lobby(&node).await;
    chat_until_lines_drop(&node, &ann).await;
    assert_serves(&node, &ann, "bob").await;
    // The first line that stderr gets about it comes with the reader.
    let reader = std::fs::File::open(&file).unwrap();
    std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).for_each(drop));
    until_all_are_reported(&node, "file", || node.log().lines()).await;
}

#[tokio::test]
async fn full_log_disk_is_reported_and_counted() {
    let mut node = Node::gateway("g1").setting("PARLEY__LOG__FILE", "/dev/full").start().await;
    let ann = ann_in_the_lobby(&node).await;
    assert_serves(&node, &ann, "bob").await;
    eventually(SOON, "stderr names the failed file", async || {
        let lines = node.log().lines();
        let is_failure = |line: &&String| line.contains("log line not written") && line.contains("No space left");
        if lines.iter().filter(is_failure).count() == 1 { Ok(()) } else { Err(lines) }
    })
    .await;
    assert!(dropped(&node).await > 0.0);
    assert_eq!(node.end().await, Some(0));
}

#[tokio::test]
async fn log_file_continues_after_its_limit_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let gateway = Node::gateway("g1").setting("PARLEY__LOG__FILE", file.to_str().unwrap());
    let gateway = gateway.setting("PARLEY__LOG__LEVEL", "debug");
    let mut node = gateway.launch_as(|program| program.limited("--fsize=2000:unlimited")).await;
    node.until_ready(SOON).await;
    let ann = ann_in_the_lobby(&node).await;
    eventually(SOON, "the file is full", async || {
        ann.sends("#lobby", "hi").await;
        let dropped = dropped(&node).await;
        if dropped > 1.0 { Ok(()) } else { Err(dropped) }
    })
    .await;
    assert!(node.log().holds("log line not written"));
    let pid = node.process().pid().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status().unwrap();
    assert!(raised.success());
    ann.sends("#lobby", "again").await;
    let lines = || std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    until_all_are_reported(&node, "file", lines).await;
    let cut = lines().iter().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(cut <= 1, "only the line at the limit is cut: {cut}");
}

#[tokio::test]
async fn hangup_opens_a_renamed_log_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let mut node = Node::gateway("g1").setting("PARLEY__LOG__FILE", file.to_str().unwrap()).start().await;
    std::fs::rename(&file, &moved).unwrap();
    node.process().signal(nix::sys::signal::Signal::SIGHUP);
    eventually(SOON, "the new file has the line of the reload", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.contains("settings reloaded") { Ok(()) } else { Err(text) }
    })
    .await;
}
