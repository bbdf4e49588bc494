//! The last lines of a text client: everything that it was sent in answer arrives before its connection closes.
//!
//! A script pipes its lines into `nc` and reads until the end. Its own messages are the only proof that they were sent.

use std::time::{Duration, Instant};

use harness::fault_proxy::Mode;
use harness::{Cluster, LineClient, Node, WsClient};
use serde_json::json;

/// Runs of each script: an end that races with an answer fails in some of them.
const RUNS: usize = 8;
/// The maximum time for an end while Redis answers nothing.
const END_MAX: Duration = Duration::from_secs(15);

/// The end of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScriptEnd {
    /// The input ends after a line feed.
    LineFeed,
    /// The input ends in place of a line feed.
    EndOfInput,
    /// The script ends with `/quit`.
    Quit,
}

const ENDS: [ScriptEnd; 3] = [ScriptEnd::LineFeed, ScriptEnd::EndOfInput, ScriptEnd::Quit];

/// Sends a whole script at once and returns everything received up to the end.
async fn run_script(client: LineClient, script: &str, end: ScriptEnd) -> Vec<String> {
    match end {
        ScriptEnd::LineFeed => client.sends(format!("{script}\n").as_bytes()).await,
        ScriptEnd::EndOfInput => client.sends(script.as_bytes()).await,
        ScriptEnd::Quit => client.sends(format!("{script}\n/quit\n").as_bytes()).await,
    }
    if end != ScriptEnd::Quit {
        client.ends_input().await;
    }
    client.closed_within(END_MAX).await;
    client.received("*")
}

/// Asserts that these lines were received, each after the one before.
fn assert_in_order(received: &[String], expected: &[&str], label: &str) {
    let mut rest = received.iter();
    for line in expected {
        assert!(rest.any(|other| other == line), "{label}: no `{line}` in its place: {received:#?}");
    }
}

/// Runs each script on a gateway, with each end.
async fn last_lines_arrive(gateway: &Node) {
    let witness = WsClient::connect(gateway.ws()).await;
    witness.register("witness").await;
    for (number, (script, expected)) in [
        ("hi", &["[#b] <NICK> hi"][..]),
        ("one\ntwo\nthree", &["[#b] <NICK> one", "[#b] <NICK> two", "[#b] <NICK> three"]),
        ("hi\n/leave", &["[#b] <NICK> hi", "* you left #b"]),
        ("hi\n/join #c\nthere", &["[#b] <NICK> hi"]),
        ("hi\n/join #c\nthere", &["* you are in #c, members: 1", "[#c] <NICK> there"]),
        ("/msg witness psst", &["-> witness: psst"]),
        ("/msg NICK note", &["-> NICK: note"]),
        ("/msg NICK note", &["<- NICK: note"]),
        ("hi\n/nick NICKy", &["[#b] <NICK> hi"]),
        ("hi\n/nick NICKy", &["* you are now known as NICKy"]),
        ("/who", &["* in #b: NICK"]),
        ("/join #d", &["* you are in #d, members: 1"]),
        ("/leave\nlost", &["* you left #b", "! not_in_room: type /join #ROOM first"]),
    ]
    .into_iter()
    .enumerate()
    {
        for end in ENDS {
            for run in 0..RUNS {
                let nick = format!("n{number}-{run}");
                let script = format!("/nick {nick}\n/join #b\n{script}").replace("NICK", &nick);
                let received = run_script(LineClient::connect(gateway.tcp()).await, &script, end).await;
                let expected: Vec<String> = expected.iter().map(|line| line.replace("NICK", &nick)).collect();
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                assert_in_order(&received, &expected, &format!("{script:?} {end:?}"));
            }
        }
    }
}

#[tokio::test]
async fn last_lines_are_answered_without_redis() {
    let mut gateway = Node::gateway("alone").start().await;
    last_lines_arrive(&gateway).await;
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn last_lines_are_answered_with_redis() {
    let cluster = Cluster::builder().gateways(2).start().await;
    for gateway in &cluster.gateways {
        last_lines_arrive(gateway).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn bye_delivers_own_messages_before_the_close() {
    let cluster = Cluster::builder().gateways(1).start().await;
    for run in 0..RUNS {
        let person = cluster.ws().await;
        person.register(&format!("ann{run}")).await;
        person.join("#lobby").await;
        person.post(json!({"type": "send", "to": "#lobby", "body": run})).await;
        person.post(json!({"type": "bye"})).await;
        person.closed().await;
        let own = person.received(|event| event["type"] == "message" && event["body"] == run);
        assert_eq!(own.len(), 1, "run {run}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn end_reports_a_message_that_did_not_return() {
    let mut cluster = Cluster::builder().gateways(1).fault_proxies(true).start().await;
    for text in ["beat", "subscription", "not ready"] {
        cluster.allow(text);
    }
    for end in ENDS {
        let client = cluster.line().await;
        client.register("ann").await;
        client.join("#b").await;
        // Messages are stored and acknowledged, but nothing comes back.
        cluster.proxies[0].set(Mode::MuteSubscriptions);
        let began = Instant::now();
        let received = run_script(client, "hi", end).await;
        let reports = received.iter().filter(|line| line.starts_with("! unavailable: ")).count();
        assert_eq!(reports, 1, "{end:?}: {received:#?}");
        assert!(began.elapsed() < END_MAX / 2, "{end:?} lasted {:?}", began.elapsed());
        cluster.proxies[0].set(Mode::Pass);
        cluster.gateways[0].until_ready(END_MAX).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn end_reports_a_message_without_an_answer() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for text in ["beat", "subscription", "not ready", "registry not answering"] {
        cluster.allow(text);
    }
    for end in ENDS {
        let client = cluster.line().await;
        client.register("ann").await;
        client.join("#b").await;
        client.types("before").await;
        client.receives("#b", "ann", "before").await;
        cluster.redis.stop_signal().await;
        let began = Instant::now();
        let received = run_script(client, "hi", end).await;
        let is_report = |line: &&String| line.starts_with("! outcome_unknown: ") || line.starts_with("! unavailable: ");
        assert_eq!(received.iter().filter(is_report).count(), 1, "{end:?}: {received:#?}");
        assert!(began.elapsed() < END_MAX, "{end:?} lasted {:?}", began.elapsed());
        cluster.redis.cont();
        cluster.gateways[0].until_ready(END_MAX).await;
    }
    cluster.finish().await;
}
