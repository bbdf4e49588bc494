//! The matrix: every row has its reaction, ten thousand times, and nothing is left of it.

#![expect(clippy::print_stderr, reason = "shows the figures of a run, with --nocapture")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use harness::Cluster;
use serde_json::json;
use tokio::sync::watch;

use super::attacker::{Attacker, Targets};
use super::neighbours::Neighbours;
use super::resources::ProcessResources;
use super::row::BadInput;
use super::rows::{self, TokenIssuer};

/// Repetitions over all rows.
const REPETITIONS: usize = 10_000;
/// Clients that send at the same time.
const ATTACKERS: usize = 8;

/// Clients that share the rows.
struct Crowd {
    rows: Vec<BadInput>,
    attackers: Vec<Attacker>,
}

impl Crowd {
    fn new(rows: Vec<BadInput>, targets: Targets) -> Self {
        let attackers = (0..ATTACKERS).map(|number| Attacker::new(format!("eve{number}"), targets)).collect();
        Self { rows, attackers }
    }

    /// Sends every row as often as `repetitions` of it says. Returns the wrong reactions, the first of each row, and
    /// the number of inputs.
    async fn attack(&mut self, repetitions: impl Fn(&BadInput) -> usize) -> (Vec<String>, usize) {
        let (rows, next, sent) = (&self.rows, AtomicUsize::new(0), AtomicUsize::new(0));
        let work = self.attackers.iter_mut().map(async |attacker| {
            let mut wrong = Vec::new();
            while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                for _ in 0..repetitions(row) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    if let Err(found) = attacker.attack(row).await {
                        wrong.push(found);
                        break;
                    }
                }
            }
            wrong
        });
        let wrong = join_all(work).await.concat();
        (wrong, sent.into_inner())
    }

    async fn leave(&mut self) {
        for attacker in &mut self.attackers {
            attacker.leave().await;
        }
    }
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns the token of a session that has received a newer one and used it.
async fn used_token(cluster: &Cluster) -> String {
    let first = cluster.ws_on(0).await;
    let registered = first.register("owner").await;
    first.cut();
    let again = cluster.ws_on(0).await;
    let registered_again = again.resume(&registered, json!({})).await;
    again.must(json!({"type": "ping"})).await;
    // With a valid token the nickname of another client would be the reason.
    let probe = cluster.ws_on(0).await;
    let resume = json!({"type": "register", "nick": "keeper", "resume": registered["resume"]});
    let keeper = cluster.ws_on(0).await;
    keeper.register("keeper").await;
    harness::eventually(std::time::Duration::from_secs(10), "the former token is revoked", async || {
        let refused = probe.request(resume.clone()).await.unwrap_err();
        if refused.code == "resume_failed" { Ok(()) } else { Err(refused) }
    })
    .await;
    keeper.bye().await;
    assert_ne!(registered["resume"], registered_again["resume"]);
    again.bye().await;
    registered["resume"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_has_one_reaction_and_leaves_nothing() {
    let issuer = TokenIssuer::create();
    let builder = Cluster::builder().gateways(1).presence(1);
    let settings = issuer.settings();
    let mut cluster =
        settings.iter().fold(builder, |builder, (key, value)| builder.gateway_setting(key, value)).start().await;
    let used = used_token(&cluster).await;
    let mut crowd = Crowd::new(rows::all(&issuer, &used), Targets::of(&cluster));
    let neighbours = Neighbours::open(&cluster.gateways[0]).await;
    let pids = [cluster.gateways[0].process().pid(), cluster.presence[0].process().pid()];
    let nodes = [&cluster.gateways[0], &cluster.presence[0]];

    // Pools and buffers of the programs are filled, and each row is right.
    assert_none(&crowd.attack(|_| 1).await.0);
    assert_none(&crowd.attack(BadInput::weight).await.0);
    crowd.leave().await;
    neighbours.chat("after each row").await;
    let (redis, mut before) = (cluster.redis.address(), Vec::new());
    for (node, pid) in nodes.into_iter().zip(pids) {
        before.push(idle(node, pid, redis).await);
    }

    let weights: usize = crowd.rows.iter().map(BadInput::weight).sum();
    let (over, is_over) = watch::channel(false);
    let began = Instant::now();
    let attack = async {
        let attacked = crowd.attack(|row| (REPETITIONS * row.weight()).div_ceil(weights)).await;
        crowd.leave().await;
        over.send(true).unwrap();
        attacked
    };
    let ((wrong, sent), slowest) = tokio::join!(attack, neighbours.chat_until(is_over));
    assert_none(&wrong);
    assert!(sent >= REPETITIONS, "{sent} inputs");
    eprintln!("{sent} inputs of {} rows in {:?}; p99 of a neighbour {slowest:?}", crowd.rows.len(), began.elapsed());
    neighbours.assert_undisturbed();
    for ((node, pid), before) in nodes.into_iter().zip(pids).zip(before) {
        let after = before.until_released(node, pid, redis).await;
        eprintln!("{}: {} KiB before, {} KiB after", node.name(), before.memory_kib(), after.memory_kib());
    }
    // Bodies and names of clients never reach a log as they are, and no flood fills it.
    for node in nodes {
        let lines = node.log().lines();
        assert!(lines.iter().all(|line| !line.contains('\u{202e}')) && lines.len() < 200, "{}", node.log().tail(200));
    }
    for (event, field) in [("auth_failed", "reason"), ("origin_refused", "origin")] {
        let lines = nodes[0].log().lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["event"] == event).collect();
        let are_right = lines.iter().all(|line| line["level"] == "INFO" && line[field].is_string());
        assert!(are_right && !lines.is_empty(), "{event}: {lines:?}");
    }
    drop(neighbours);
    cluster.finish().await;
}

/// Waits until a program has no clients but the neighbours, and returns what it uses.
async fn idle(node: &harness::Node, pid: u32, redis: SocketAddr) -> ProcessResources {
    harness::eventually(std::time::Duration::from_secs(20), "the crowd has left", async || {
        let connections = node.metrics().await.get("parley_connections", &[]).unwrap_or(2.0);
        if connections == 2.0 { Ok(()) } else { Err(connections) }
    })
    .await;
    ProcessResources::of(node, pid, redis).await
}
