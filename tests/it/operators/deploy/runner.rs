//! A cluster that `deploy/run` started, as `make run` does, with the programs of this build.
//!
//! It runs in a copy of `deploy/`, so a test may change the copy, and nothing is written into the checkout.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::port::ReservedPort;
use harness::process::binary_directory;
use harness::{ChildProgram, ExitedProcess, Process, eventually, repository};
use tempfile::TempDir;

use super::dockerfile::copy_tree;

/// Longest start or stop of a whole cluster on a busy machine.
pub(crate) const CLUSTER_PATIENCE: Duration = Duration::from_secs(60);
const PORTS: [&str; 12] = [
    "HTTP_PORT",
    "LINES_PORT",
    "G1_WS_PORT",
    "G1_LINES_PORT",
    "G1_ADMIN_PORT",
    "G2_WS_PORT",
    "G2_LINES_PORT",
    "G2_ADMIN_PORT",
    "PRESENCE_PORT",
    "PRESENCE_ADMIN_PORT",
    "REDIS_PORT",
    "PROMETHEUS_PORT",
];
/// The search path of a machine without Rust.
const PATH_WITHOUT_RUST: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A copy of the files of `make run`, and the ports of its cluster.
pub(crate) struct ClusterFolder {
    folder: TempDir,
    ports: BTreeMap<&'static str, ReservedPort>,
}

impl ClusterFolder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("parley-run-").tempdir().unwrap();
        copy_tree(&repository().join("deploy"), &folder.path().join("deploy"));
        let ports = PORTS.map(|name| (name, ReservedPort::reserve())).into();
        Self { folder, ports }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn address(&self, port: &str) -> SocketAddr {
        self.ports[port].address()
    }

    /// Changes a file of the copy.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let file = self.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text)).unwrap();
    }

    /// Returns a script of the copy with the environment of `make run`, without Rust in its search path.
    pub(crate) fn script(&self, name: &str) -> ChildProgram {
        let path = self.path().join("deploy").join(name);
        self.with_environment(ChildProgram::system(path.to_str().unwrap(), name))
    }

    /// Adds the ports and the folder of the programs.
    pub(crate) fn with_environment(&self, program: ChildProgram) -> ChildProgram {
        let binaries = binary_directory();
        let program = program.env("BIN_DIR", binaries.to_str().unwrap()).env("PATH", PATH_WITHOUT_RUST);
        self.ports.iter().fold(program, |program, (name, port)| program.env(name, &port.number().to_string()))
    }

    pub(crate) fn run_directory(&self) -> PathBuf {
        self.path().join(".run")
    }

    /// Starts the cluster and waits until it is up.
    pub(crate) async fn start(&self) -> Process {
        let mut runner = self.script("run").spawn();
        self.until_up(&mut runner).await;
        runner
    }

    pub(crate) async fn until_up(&self, runner: &mut Process) {
        eventually(CLUSTER_PATIENCE, "the cluster is up", || {
            let has_ended = runner.has_ended();
            let shown = format!("{}\n{}", runner.output().tail(30), runner.log().tail(30));
            let is_up = self.run_directory().join("up").exists();
            async move {
                assert!(!has_ended, "deploy/run ended: {shown}");
                if is_up { Ok(()) } else { Err(shown) }
            }
        })
        .await;
    }

    /// Runs a script to its end.
    pub(crate) async fn run(&self, name: &str) -> ExitedProcess {
        self.script(name).run(CLUSTER_PATIENCE).await
    }
}

/// Returns the process id of the newest process with this name, from the lines of the runner.
pub(crate) fn pid_of(runner: &Process, name: &str) -> i32 {
    let start = format!("  {name} ");
    let lines = runner.output().lines();
    let line = lines.iter().rev().find(|line| line.starts_with(&start) && line.contains("ready after"));
    let line = line.unwrap_or_else(|| panic!("{name} was not started: {lines:?}"));
    let pid = line.split_once("pid ").unwrap().1.split_whitespace().next().unwrap();
    pid.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}
