//! Real programs: started as in production, observed by listening line and log, ended by signals.
//!
//! Plain threads read both pipes, so no output is lost while a test blocks or panics. A program ends with the test
//! process. Invariant: signals go only to its own child, and the child has ended when the [`Process`] is dropped.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::eventually::eventually;
use crate::log::ProgramLog;

/// Time limit for the listening line of a program, and for its pipes to close.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of log lines that a failed test prints per program.
const LOG_LINES_SHOWN: usize = 60;

/// A program with its arguments and environment.
#[derive(Debug)]
pub struct ChildProgram {
    name: String,
    command: Command,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl ChildProgram {
    /// Returns a program of Parley, without the Parley settings in this process's environment.
    ///
    /// # Panics
    /// If the program was not built.
    #[must_use]
    pub fn parley(binary: &str, name: &str) -> Self {
        Self::tied_to_this_process("KILL", built(binary).into(), name).without_settings()
    }

    /// Returns a program of Parley that runs on a pseudo-terminal, whose text is its output. Signals and listening
    /// lines do not work with it.
    ///
    /// # Panics
    /// If the program was not built.
    #[must_use]
    pub fn parley_on_a_terminal(binary: &str, name: &str) -> Self {
        let command = built(binary);
        // The terminal's session is its own, and its end is a hangup, which a program may survive.
        let command = format!("exec setpriv --pdeathsig TERM -- {}", command.to_str().expect("a UTF-8 path"));
        let terminal = ["--quiet", "--return", "--command", &command, "/dev/null"];
        Self::tied_to_this_process("TERM", "script".into(), name).args(terminal).without_settings()
    }

    fn without_settings(mut self) -> Self {
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PARLEY_") || key == "RUST_LOG" {
                self.command.env_remove(key);
            }
        }
        self
    }

    /// Returns a program of the system; the search path includes `sbin`.
    #[must_use]
    pub fn system(binary: &str, name: &str) -> Self {
        // TERM, because a killed server leaves its workers running.
        let mut program = Self::tied_to_this_process("TERM", binary.into(), name);
        let path = std::env::var("PATH").unwrap_or_default();
        program.command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
        program
    }

    /// Returns a program that gets `signal` when this process ends. `setpriv` registers the signal, and then becomes
    /// the program with the same pid.
    fn tied_to_this_process(signal: &str, binary: OsString, name: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(signal).arg("--").arg(binary);
        Self { name: name.to_owned(), command, stdin: None, stdout: None, stderr: None }
    }

    /// Starts the program with these resource limits, in the notation of `prlimit`, such as `--nofile=256:256`.
    #[must_use]
    pub fn limited(mut self, limit: &str) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(limit).arg(self.command.get_program()).args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        self.command = command;
        self
    }

    /// Connects stdin, which is empty by default.
    #[must_use]
    pub fn stdin(self, from: impl Into<Stdio>) -> Self {
        Self { stdin: Some(from.into()), ..self }
    }

    /// Connects stdout, which the [`Process`] then does not read.
    #[must_use]
    pub fn stdout(self, to: impl Into<Stdio>) -> Self {
        Self { stdout: Some(to.into()), ..self }
    }

    /// Connects stderr, which the [`Process`] then does not read.
    #[must_use]
    pub fn stderr(self, to: impl Into<Stdio>) -> Self {
        Self { stderr: Some(to.into()), ..self }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// If there is no such program.
    #[must_use]
    pub fn spawn(mut self) -> Process {
        self.command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        self.command.stdout(self.stdout.unwrap_or_else(Stdio::piped)).stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        let (output, log) = (ProgramLog::default(), ProgramLog::default());
        let stdout = child.stdout.take().map(|pipe| follow(pipe, output.clone()));
        let stderr = child.stderr.take().map(|pipe| follow(pipe, log.clone()));
        let readers = stdout.into_iter().chain(stderr).collect();
        Process { name: self.name, child, ended: None, output, log, readers }
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    /// If it does not end within `within`.
    pub async fn run(self, within: Duration) -> ExitedProcess {
        let mut process = self.spawn();
        let code = process.exit_code(within).await;
        ExitedProcess { code, stdout: process.output.lines().join("\n"), stderr: process.log.lines().join("\n") }
    }
}

/// Results of a program that has ended.
#[derive(Debug)]
pub struct ExitedProcess {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// The text on stdout.
    pub stdout: String,
    /// The text on stderr.
    pub stderr: String,
}

/// A running program. Dropping it kills the process, and prints the end of its log if the test panics.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    output: ProgramLog,
    log: ProgramLog,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Returns the name given by the test.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the lines written to stderr.
    #[must_use]
    pub fn log(&self) -> &ProgramLog {
        &self.log
    }

    /// Returns the lines written to stdout.
    #[must_use]
    pub fn output(&self) -> &ProgramLog {
        &self.output
    }

    /// Waits for the first line on stdout, which must be a JSON object with `"listening":true`.
    ///
    /// # Panics
    /// If the process ends first, prints another line, or prints nothing in time.
    pub async fn listening(&mut self) -> Value {
        let name = self.name.clone();
        let line = eventually(READY_TIMEOUT, &format!("{name} prints its listening line"), || {
            let line = self.output.lines().into_iter().next();
            let ended = self.has_ended().then(|| panic!("{name} ended ({:?}) before it listened", self.ended));
            async move { line.ok_or(ended) }
        })
        .await;
        let line_json: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name}: not JSON: {line}"));
        assert_eq!(line_json["listening"], true, "{name}: {line}");
        line_json
    }

    /// Sends a signal to this process only.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(!self.has_ended(), "{} has ended ({:?}) and cannot receive {signal}", self.name, self.ended);
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Sends SIGSTOP and waits until the process has stopped. Its sockets stay open.
    pub async fn stop_signal(&mut self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        eventually(READY_TIMEOUT, &format!("{} is stopped", self.name), || {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            let is_stopped = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
            async move { if is_stopped { Ok(()) } else { Err(state) } }
        })
        .await;
    }

    /// Sends SIGCONT: a stopped process continues.
    pub fn cont(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Blocks until the process ends; only for a process that is certain to end.
    pub fn wait(&mut self) {
        self.ended = Some(self.child.wait().expect("a child of this process"));
    }

    /// Returns true if the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.exit_status().is_some()
    }

    /// Returns the exit status if the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child of this process");
        }
        self.ended
    }

    /// Waits for the exit code; `None` if a signal ended the process. Its whole output is in its logs then.
    ///
    /// # Panics
    /// If the process does not end in time.
    pub async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let what = format!("{} ends", self.name);
        let status = eventually(within, &what, || {
            let status = if self.has_ended() { self.ended } else { None };
            async move { status.ok_or("still running") }
        })
        .await;
        eventually(READY_TIMEOUT, "both pipes are closed; a child of the program would keep them open", || {
            let is_read = self.readers.iter().all(JoinHandle::is_finished);
            async move { if is_read { Ok(()) } else { Err("open") } }
        })
        .await;
        status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} ({:?}), end of the log:\n{}", self.name, self.ended, self.log.tail(LOG_LINES_SHOWN));
        }
    }
}

/// Returns the folder of the built programs: `PARLEY_BIN_DIR`, or the folder of this program, without `deps` for a
/// test.
///
/// # Panics
/// If this program does not know its path.
#[must_use]
pub fn binary_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("PARLEY_BIN_DIR") {
        return directory.into();
    }
    let this = std::env::current_exe().expect("a test knows its own path");
    let folder = this.parent().expect("target/<profile>/<program> or target/<profile>/deps/<test>");
    if folder.ends_with("deps") { folder.parent().expect("as above") } else { folder }.to_path_buf()
}

fn built(binary: &str) -> PathBuf {
    let path = binary_directory().join(binary);
    assert!(
        path.is_file(),
        "{} does not exist: run `cargo build --workspace --bins` first, or set PARLEY_BIN_DIR",
        path.display()
    );
    path
}

fn follow(pipe: impl Read + Send + 'static, log: ProgramLog) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> ChildProgram {
        ChildProgram::system("sh", "stand-in").args(["-c", script])
    }

    #[tokio::test]
    async fn process_reports_listening_line_and_exit_code() {
        let script =
            r#"trap 'echo bye >&2; exit 3' TERM; echo '{"listening":true,"node":"x"}'; while :; do sleep 0.05; done"#;
        let mut process = shell(script).spawn();
        assert_eq!(process.listening().await["node"], "x");
        process.terminate();
        assert_eq!(process.exit_code(SOON).await, Some(3));
        assert!(process.log().holds("bye"));
    }

    #[tokio::test]
    async fn signals_stop_continue_and_kill_process() {
        let mut process = ChildProgram::system("cat", "stand-in").args(["/dev/zero"]).spawn();
        process.stop_signal().await;
        process.cont();
        process.kill9();
        assert_eq!(process.exit_code(SOON).await, None);
    }

    #[tokio::test]
    #[should_panic(expected = "ended")]
    async fn listening_wait_fails_when_process_exits_early() {
        shell("exit 64").spawn().listening().await;
    }

    #[tokio::test]
    async fn run_returns_exit_code_and_output() {
        let finished = shell("echo out; echo err >&2; exit 7").run(SOON).await;
        assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(7), "out", "err"));
    }
}
