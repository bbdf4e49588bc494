//! The runner of `make run`: its signals, what it prints when a process is killed, the rolling restart, `make clean`.

use std::time::Duration;

use harness::{ChildProgram, LineClient, Process, eventually, http};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::runner::{CLUSTER_PATIENCE, ClusterFolder, pid_of};

const SOON: Duration = Duration::from_secs(20);

fn kill9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Waits until the runner prints a line that begins so, and returns its newest one.
async fn printed(runner: &Process, start: &str) -> String {
    eventually(SOON, &format!("the runner prints {start:?}"), async || {
        let lines = runner.output().lines();
        lines.iter().rev().find(|line| line.starts_with(start)).cloned().ok_or(lines)
    })
    .await
}

#[tokio::test]
async fn killed_gateway_is_reported_and_rolled_back_in() {
    let folder = ClusterFolder::new();
    let mut runner = folder.start().await;
    let [g1, g2] = ["g1", "g2"].map(|name| pid_of(&runner, name));
    printed(&runner, &format!("  PARLEY__REDIS__URL=redis://{}/ ", folder.address("REDIS_PORT"))).await;
    let stats = http::get(folder.address("HTTP_PORT"), "/api/v1/stats").await.unwrap();
    assert_eq!(stats.status, 200, "nginx carries the server API: {stats:?}");
    kill9(g1);
    let line = printed(&runner, "g1 ended (killed by signal 9)").await;
    assert!(line.contains("reconnect to the other gateway") && line.contains("`make roll` starts it again"), "{line}");
    let rolled = folder.run("roll").await;
    assert_eq!(rolled.code, Some(0), "{rolled:?}");
    assert!(rolled.stdout.find("  g1 ") < rolled.stdout.find("  g2 "), "the dead gateway comes first: {rolled:?}");
    assert!(pid_of(&runner, "g1") != g1 && pid_of(&runner, "g2") != g2);

    for name in ["g1", "g2"] {
        kill9(pid_of(&runner, name));
    }
    eventually(SOON, "the runner reports that no gateway runs", async || {
        let lines = runner.output().lines();
        if lines.iter().any(|line| line.contains("no gateway runs")) { Ok(()) } else { Err(lines) }
    })
    .await;
    for (name, words) in [
        ("nginx", "ports "),
        ("presence", "the chat continues without the server API"),
        ("prometheus", "the chat continues without its metrics"),
    ] {
        kill9(pid_of(&runner, name));
        let line = printed(&runner, &format!("{name} ended (killed by signal 9)")).await;
        assert!(line.contains(words), "{line}");
    }
    runner.terminate();
    assert_eq!(runner.exit_code(CLUSTER_PATIENCE).await, Some(0));
    assert_eq!(runner.log().lines(), Vec::<String>::new(), "bash adds nothing about killed children");
}

#[tokio::test]
async fn roll_without_redis_is_refused_first() {
    let folder = ClusterFolder::new();
    let mut runner = folder.start().await;
    let pids = ["g1", "g2"].map(|name| pid_of(&runner, name));
    kill9(pid_of(&runner, "redis"));
    let line = printed(&runner, "redis ended").await;
    assert!(line.contains("cannot log in, join or send until it runs again"), "{line}");
    assert!(!line.contains("continues"), "{line}");
    let rolled = folder.run("roll").await;
    assert_eq!(rolled.code, Some(1), "{rolled:?}");
    assert!(
        rolled.stdout.contains("Redis does not answer") && rolled.stdout.contains("was not restarted"),
        "{rolled:?}"
    );
    assert_eq!(["g1", "g2"].map(|name| pid_of(&runner, name)), pids, "both gateways still run");

    // The printed command starts Redis again; it runs in the checkout.
    let command = line.split('`').nth(1).unwrap();
    let command = format!("cd {} && exec {command}", folder.path().display());
    let _redis = ChildProgram::system("sh", "redis").args(["-c", &command]).spawn();
    eventually(CLUSTER_PATIENCE, "the cluster can be rolled again", async || {
        let rolled = folder.run("roll").await;
        if rolled.code == Some(0) { Ok(()) } else { Err(rolled) }
    })
    .await;
    let ann = LineClient::connect(folder.address("LINES_PORT")).await;
    ann.register("ann").await;
    runner.terminate();
    assert_eq!(runner.exit_code(CLUSTER_PATIENCE).await, Some(0));
}

#[tokio::test]
async fn unready_gateway_stops_the_rolling_restart() {
    let folder = ClusterFolder::new();
    let mut runner = folder.start().await;
    let pids = ["g1", "g2"].map(|name| pid_of(&runner, name));
    // A paused Redis accepts connections and answers nothing.
    let redis = Pid::from_raw(pid_of(&runner, "redis"));
    kill(redis, Signal::SIGSTOP).unwrap();
    let rolled = folder.run("roll").await;
    kill(redis, Signal::SIGCONT).unwrap();
    assert_eq!(rolled.code, Some(1), "{rolled:?}");
    assert!(rolled.stdout.contains("Redis does not answer"), "{rolled:?}");

    // Two gateways that are alive but do not answer: neither may drain.
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    }
    let rolled = folder.run("roll").await;
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    }
    assert_eq!(rolled.code, Some(1), "{rolled:?}");
    assert!(rolled.stdout.contains("g2 is not ready to take over the clients of g1"), "{rolled:?}");
    assert_eq!(["g1", "g2"].map(|name| pid_of(&runner, name)), pids);
    runner.terminate();
    assert_eq!(runner.exit_code(CLUSTER_PATIENCE).await, Some(0));
}

#[tokio::test]
async fn interrupt_stops_background_runner_and_clean_removes_data() {
    let folder = ClusterFolder::new();
    // A shell that starts a program with `&` lets it ignore SIGINT.
    let script = folder.path().join("deploy/run");
    let program = ChildProgram::system("sh", "run").args(["-c", "trap '' INT; exec \"$0\"", script.to_str().unwrap()]);
    let mut runner = folder.with_environment(program).spawn();
    folder.until_up(&mut runner).await;
    let busy = folder.run("clean").await;
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(busy.stderr.contains("is running") && folder.run_directory().join("up").exists(), "{busy:?}");

    runner.signal(Signal::SIGINT);
    assert_eq!(runner.exit_code(CLUSTER_PATIENCE).await, Some(0));
    let last = runner.output().lines().pop().unwrap();
    assert!(last.contains("messages stay in .run; `make clean` removes them"), "{last}");
    assert!(folder.run_directory().join("redis").exists());
    let cleaned = folder.run("clean").await;
    assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
    assert!(!folder.run_directory().exists());
}

#[tokio::test]
async fn missing_built_program_is_named_at_start() {
    let folder = ClusterFolder::new();
    let empty = tempfile::tempdir().unwrap();
    let refused = folder.script("run").env("BIN_DIR", empty.path().to_str().unwrap()).run(SOON).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("/gateway is not an executable file"), "{refused:?}");
    assert!(!folder.run_directory().exists());
}
