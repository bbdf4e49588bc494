//! The load generator against a real cluster: a small run of each scenario loses nothing and writes a JSON outcome.

use std::net::SocketAddr;
use std::time::Duration;

use harness::{ChildProgram, Cluster, Node, eventually, http};
use presence::service::access::{ApiScope, NewKey};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scenario, and returns its outcome.
async fn run_scenario(scenario: &str, arguments: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outcome.json");
    let arguments = format!("{scenario} {arguments} --seconds 1 --warmup 0.2 --json {}", path.display());
    let run = ChildProgram::parley("load", "load").args(arguments.split_whitespace()).run(PATIENCE).await;
    assert_eq!(run.code, Some(0), "{arguments}\n{}\n{}", run.stdout, run.stderr);
    assert!(run.stdout.starts_with(scenario), "no summary on stdout: {}", run.stdout);
    let outcome: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(outcome["scenario"], scenario);
    assert_eq!(outcome["errors"], serde_json::json!({}), "{scenario}");
    for fault in ["lost", "duplicated", "out_of_order", "refused"] {
        assert_eq!(outcome[fault], 0, "{scenario}: {fault}");
    }
    let received = outcome["checked"]["received"].as_u64();
    let line = received.map(|received| format!("  checked: {received} received, 0 lost, 0 doubled, 0 reordered\n"));
    assert!(line.is_none_or(|line| run.stdout.contains(&line)), "no results of the checks: {}", run.stdout);
    outcome
}

fn addresses(cluster: &Cluster, address: impl Fn(&Node) -> SocketAddr) -> String {
    let all: Vec<String> = cluster.gateways.iter().map(|gateway| address(gateway).to_string()).collect();
    all.join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_load_scenario_delivers_once_in_order() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ws, tcp) = (addresses(&cluster, Node::ws), addresses(&cluster, Node::tcp));

    let room = run_scenario("room", &format!("--ws {ws} --members 20 --rate 50 --publishers 4 --per-process 7")).await;
    assert_eq!(
        (room["sent"].as_u64(), room["delivered"].as_u64(), room["acked"].as_u64()),
        (Some(50), Some(1000), Some(50))
    );
    assert_eq!((room["load"]["processes"].as_u64(), room["delivery_ms"]["count"].as_u64()), (Some(3), Some(1000)));
    assert!(room["delivery_ms"]["p50"].as_f64().unwrap() > 0.0);
    // The checking members also receive the ten messages of the warm-up.
    assert_eq!((&room["checked"]["members"], &room["checked"]["received"]), (&json!(4), &json!(4 * 60)));

    let both = run_scenario("room", &format!("--ws {ws} --tcp {tcp} --members 20 --rate 50 --publishers 4")).await;
    assert_eq!(both["delivered"], 1000, "clients at both ports receive each other");
    assert_eq!(both["checked"]["received"], 4 * 60);

    let rooms = run_scenario("rooms", &format!("--ws {ws} --rooms 5 --members 4 --rate 50 --checked 6")).await;
    assert_eq!((rooms["sent"].as_u64(), rooms["delivered"].as_u64()), (Some(50), Some(200)));
    assert_eq!(rooms["checked"]["received"], 6 * 60 / 5, "the sixth member is in the first room");

    let dm = run_scenario("dm", &format!("--ws {ws} --pairs 5 --rate 50")).await;
    assert_eq!((dm["sent"].as_u64(), dm["delivered"].as_u64()), (Some(50), Some(50)));
    assert_eq!(dm["checked"], Value::Null, "no room has messages");

    let paced = run_scenario("echo", &format!("--ws {ws} --connections 10 --rate 100")).await;
    assert_eq!((paced["sent"].as_u64(), paced["echo_ms"]["count"].as_u64()), (Some(100), Some(100)));
    let unpaced = run_scenario("echo", &format!("--tcp {tcp} --connections 5")).await;
    assert!(unpaced["sent"].as_u64() > Some(100), "{unpaced}");

    let login = run_scenario("login", &format!("--ws {ws} --connections 60 --rate 200 --members 6")).await;
    assert_eq!(login["login"]["ms"]["count"], 60);
    assert!(login["login"]["seconds"].as_f64().unwrap() > 0.25, "the login rate is kept: {}", login["login"]);
    let held = run_scenario("idle", &format!("--ws {ws} --connections 30 --members 10")).await;
    assert_eq!(held["clients"], 30);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_delivers_messages_to_all() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ws, tcp) = (addresses(&cluster, Node::ws), addresses(&cluster, Node::tcp));
    let target = "--rooms 2 --members 8 --rate 40 --publishers 8";
    for (clients, peer, checked) in [
        (format!("--ws {ws} --tcp {tcp} --format mix"), "parley-mix", 4),
        (format!("--ws {ws} --format protobuf"), "parley-protobuf", 4),
        (format!("--tcp {tcp} --frames --format protobuf"), "parley-frames-protobuf", 0),
        (format!("--tcp {tcp} --frames"), "parley-frames-json", 0),
    ] {
        let outcome = run_scenario("rooms", &format!("{clients} {target}")).await;
        assert_eq!(outcome["peer"], peer);
        assert_eq!(
            (&outcome["sent"], &outcome["acked"], &outcome["delivered"]),
            (&json!(40), &json!(40), &json!(320)),
            "{peer}"
        );
        assert_eq!(outcome["checked"]["members"].as_u64().unwrap_or_default(), checked, "{peer}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capacity_search_counts_every_window() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let target = format!("--ws {} --rooms 5 --members 2 --rate 8", addresses(&cluster, Node::ws));

    let held = run_scenario("capacity", &format!("{target} --p99-max 60000 --windows 2")).await;
    assert_eq!(
        (&held["holds"], &held["offered_per_s"], &held["fails_at_per_s"]),
        (&json!(true), &json!(16.0), &Value::Null)
    );
    // The figures are those of the second window alone.
    assert_eq!((&held["sent"], &held["acked"], &held["delivered"]), (&json!(16), &json!(16), &json!(32)));
    assert_eq!((&held["delivery_ms"]["count"], &held["ack_ms"]["count"]), (&json!(32), &json!(16)));
    let shares: Vec<_> = held["steps"].as_array().unwrap().iter().map(|step| &step["delivered_share"]).collect();
    assert_eq!(shares, [&json!(1.0), &json!(1.0)]);
    // Both members of each room send: one on each gateway.
    assert_eq!(held["plan"]["traffic"]["rooms"]["publishers"], 2);

    let failed = run_scenario("capacity", &format!("{target} --p99-max 0 --windows 3")).await;
    assert_eq!(
        (&failed["holds"], &failed["offered_per_s"], &failed["fails_at_per_s"]),
        (&json!(false), &json!(4.0), &json!(8.0))
    );
    let rates: Vec<_> = failed["steps"].as_array().unwrap().iter().map(|step| &step["offered_per_s"]).collect();
    assert_eq!(rates, [&json!(8.0), &json!(8.0), &json!(4.0)]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_beside_a_flood_loses_nothing() {
    // Both rooms register from one address within a minute.
    let mut cluster = Cluster::builder()
        .gateways(1)
        .gateway_setting("PARLEY__LIMITS__PROFILE", "default")
        .gateway_setting("PARLEY__LIMITS__REGISTRATIONS_BURST", "1000")
        .start()
        .await;
    let pid = cluster.gateways[0].process().pid();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outcome.json");
    let arguments = format!(
        "flood --ws {} --members 20 --rate 20 --publishers 4 --connections 20 --bad-rate 10000 --pid gateway={pid} \
         --seconds 3 --warmup 0.5 --json {}",
        cluster.gateways[0].ws(),
        path.display()
    );
    let run = ChildProgram::parley("load", "load").args(arguments.split_whitespace()).run(PATIENCE).await;
    assert_eq!(run.code, Some(0), "{arguments}\n{}\n{}", run.stdout, run.stderr);
    let outcome: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for room in [&outcome, &outcome["quiet"]] {
        assert_eq!((room["delivered"].as_u64(), &room["lost"], &room["errors"]), (Some(1200), &json!(0), &json!({})));
    }
    let flood = &outcome["flood"];
    assert!(flood["frames"].as_u64() > Some(5000) && flood["error"].is_null(), "{flood}");
    assert!(flood["closes"].as_u64() > Some(0), "a client that does not wait is closed: {flood}");
    assert!(outcome["shares"]["p99"].is_f64() && outcome["shares"]["rss"]["gateway"].is_f64(), "{}", outcome["shares"]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_load_stores_every_message_once() {
    let key = NewKey::draw("load", ApiScope::ALL).unwrap();
    let builder = Cluster::builder().gateways(1).presence(1);
    let cluster = builder.presence_setting("PARLEY__API__KEYS", &key.known.to_string()).start().await;
    let api = cluster.presence[0].api();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outcome.json");
    let arguments = format!(
        "api --http {api} --key {} --rooms 2 --connections 2 --batch 5 --rate 40 --seconds 1 --warmup 0 --json {}",
        key.secret,
        path.display()
    );
    let run = ChildProgram::parley("load", "load").args(arguments.split_whitespace()).run(PATIENCE).await;
    assert_eq!(run.code, Some(0), "{}\n{}", run.stdout, run.stderr);
    let outcome: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (&outcome["messages"], &outcome["refused"], &outcome["call_ms"]["count"]),
        (&json!(40), &json!(0), &json!(8))
    );
    let mut stored = 0;
    for room in 0..2 {
        let request = format!(
            "GET /v1/rooms/load-{room}/messages HTTP/1.1\r\nHost: p\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            key.secret
        );
        let history = http::exchange(api, request.as_bytes()).await.unwrap().json();
        stored += history["items"].as_array().unwrap().len();
    }
    assert_eq!(stored, 40);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_client_counts_answers_in_every_room() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ws = addresses(&cluster, Node::ws);
    for (rooms, depth) in [(1, 8), (3, 32)] {
        let outcome = run_scenario("pipeline", &format!("--ws {ws} --rooms {rooms} --depth {depth}")).await;
        assert_eq!((&outcome["clients"], &outcome["checked"]), (&json!(1), &Value::Null));
        let sent = outcome["sent"].as_u64().unwrap();
        assert!(sent > 0, "{outcome}");
        assert_eq!((&outcome["acked"], &outcome["delivered"]), (&json!(sent), &json!(sent)));
        assert_eq!(outcome["ack_ms"]["count"], sent);
        assert_eq!(outcome["acked_per_s"].as_f64(), Some(sent as f64), "in a window of one second");
        assert_eq!(outcome["unanswered_max"], depth);
        let logs: Vec<String> = cluster.redis.call("KEYS parley:{0}:log:*").await;
        let mut lengths = Vec::new();
        for log in &logs {
            lengths.push(cluster.redis.call::<u64>(&format!("XLEN {log}")).await);
        }
        assert!(lengths.iter().all(|length| *length > 0), "each room got messages: {lengths:?}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_run_fails_after_a_lost_message() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let arguments = format!("room --ws {} --members 10 --rate 20 --seconds 3", addresses(&cluster, Node::ws));
    let run = ChildProgram::parley("load", "load").args(arguments.split_whitespace()).run(PATIENCE);
    let losing = async {
        // All members are in the room once it has a message. Its next seq then belongs to no message.
        let log = eventually(PATIENCE, "the first message", async || {
            let logs: Vec<String> = cluster.redis.call("KEYS parley:{0}:log:*").await;
            logs.into_iter().next().ok_or("no room")
        });
        let room = log.await.replace(":log:", ":room:");
        cluster.redis.call::<u64>(&format!("HINCRBY {room} seq 1")).await;
    };
    let (run, ()) = tokio::join!(run, losing);
    assert!(run.stdout.contains(" received, 4 lost, 0 doubled, 0 reordered\n"), "{run:?}");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("the checking members"), "{run:?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floor_scenario_uses_the_same_clients() {
    let floor = run_scenario("floor", "--members 20 --rate 50").await;
    assert_eq!((floor["delivered"].as_u64(), floor["peer"].as_str()), (Some(1000), Some("bare")));
    assert!(floor["server_us_per_message"].is_number());
    assert_eq!(floor["checked"], Value::Null, "a bare server has no sessions");
}
