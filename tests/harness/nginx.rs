//! A real nginx with the shipped configuration in front of gateways: one port for WebSocket, one for text lines.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually::eventually;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};
use crate::repository;

/// Time limit for nginx to start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The upstream of a cluster without presence; nginx needs a server in each.
const NO_API: &str = "server 127.0.0.1:9 down;";

/// Name of the configuration file.
const CONFIGURATION_FILE: &str = "nginx.conf";

/// Listen addresses of an nginx, and its only writable directory.
#[derive(Debug, Clone, Copy)]
pub struct NginxPaths<'a> {
    /// Directory with `error.log`.
    pub directory: &'a str,
    /// The port for HTTP.
    pub http: SocketAddr,
    /// The port for text lines.
    pub lines: SocketAddr,
}

/// A running nginx. Dropping it ends the process.
#[derive(Debug)]
pub struct Nginx {
    http: ReservedPort,
    lines: ReservedPort,
    master: Process,
    directory: TempDir,
}

impl Nginx {
    /// Starts nginx in front of these gateways and presence processes, and waits until both ports accept.
    ///
    /// # Panics
    /// If nginx does not start; the message contains its log.
    pub async fn start(ws: &[SocketAddr], lines: &[SocketAddr], api: &[SocketAddr]) -> Self {
        let api = if api.is_empty() { NO_API.to_owned() } else { servers(api) };
        Self::start_changed(ws, lines, |text| text.replace(NO_API, &api)).await
    }

    /// Starts nginx in front of these gateways with a change of the configuration, and waits until both ports accept.
    ///
    /// # Panics
    /// If nginx does not start; the message contains its log.
    pub async fn start_changed(ws: &[SocketAddr], lines: &[SocketAddr], change: impl FnOnce(String) -> String) -> Self {
        let module = stream_module().await;
        Self::configured(|paths| {
            change(render(&[
                ("RUN_DIR", paths.directory),
                ("HTTP_LISTEN", &paths.http.to_string()),
                ("LINES_LISTEN", &paths.lines.to_string()),
                ("WS_SERVERS", &servers(ws)),
                ("LINES_SERVERS", &servers(lines)),
                ("API_SERVERS", NO_API),
                ("STREAM_MODULE", &module),
                ("USER", ""),
            ]))
        })
        .await
    }

    /// Starts nginx with the configuration that `text` renders for its paths, and waits until both ports accept.
    ///
    /// # Panics
    /// If nginx does not start; the message contains its log.
    pub async fn configured(text: impl FnOnce(NginxPaths<'_>) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("parley-nginx-").tempdir().expect("a temporary directory");
        let run_directory = directory.path().to_str().expect("a temporary path is text");
        let (http_port, lines_port) = (ReservedPort::reserve(), ReservedPort::reserve());
        let paths = NginxPaths { directory: run_directory, http: http_port.address(), lines: lines_port.address() };
        let configuration = directory.path().join(CONFIGURATION_FILE);
        std::fs::write(&configuration, text(paths)).expect("a writable directory");
        let program = ChildProgram::system("nginx", "nginx").args(["-e", "stderr", "-p", run_directory, "-c"]);
        let mut master = program.args([configuration]).spawn();
        for address in [http_port.address(), lines_port.address()] {
            eventually(STARTUP_TIMEOUT, "nginx accepts", || {
                assert!(!master.has_ended(), "nginx ended: {}", master.log().tail(20));
                async move { TcpStream::connect(address).await }
            })
            .await;
        }
        Self { http: http_port, lines: lines_port, master, directory }
    }

    /// Changes and reloads the configuration. Returns when new workers accept connections and old ones do not.
    ///
    /// # Panics
    /// If nginx rejects it; the message contains its log.
    pub async fn reconfigure(&mut self, text: impl FnOnce(NginxPaths<'_>) -> String) {
        let directory = self.directory.path().to_owned();
        let paths = NginxPaths { directory: directory.to_str().expect("text"), http: self.ws(), lines: self.tcp() };
        std::fs::write(directory.join(CONFIGURATION_FILE), text(paths)).expect("a writable directory");
        let before = self.workers();
        self.reload();
        eventually(STARTUP_TIMEOUT, "new workers have taken over", async || {
            let workers = self.workers();
            let (old, new): (Vec<u32>, Vec<u32>) = workers.into_iter().partition(|worker| before.contains(worker));
            if !new.is_empty() && old.iter().all(|worker| is_shutting_down(*worker)) {
                return Ok(());
            }
            let errors = std::fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            Err(format!("old {old:?}, new {new:?}: {errors}"))
        })
        .await;
    }

    /// Returns the number of old workers that still serve connections.
    #[must_use]
    pub fn old_workers(&self) -> usize {
        self.workers().into_iter().filter(|worker| is_shutting_down(*worker)).count()
    }

    fn workers(&self) -> Vec<u32> {
        let master = self.master.pid();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Returns the address for WebSocket.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        self.http.address()
    }

    /// Returns the address for text lines.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.lines.address()
    }
}

impl Nginx {
    /// Reloads the configuration with SIGHUP, like an operator: new workers accept, old ones finish their connections.
    ///
    /// # Panics
    /// If nginx has ended.
    pub fn reload(&mut self) {
        self.master.signal(Signal::SIGHUP);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let errors = std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
            eprintln!("--- errors of nginx:\n{errors}");
        }
        // SIGTERM, because a killed master leaves its workers running.
        if !self.master.has_ended() {
            self.master.terminate();
            self.master.wait();
        }
    }
}

fn servers(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("server {address} max_fails=0;")).collect()
}

fn render(values: &[(&str, &str)]) -> String {
    let template = repository().join("deploy/nginx/nginx.conf.in");
    let text = std::fs::read_to_string(&template).unwrap_or_else(|error| panic!("{}: {error}", template.display()));
    values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// Returns true if the worker accepts no connections and waits for its last one; nginx shows this in its process name.
fn is_shutting_down(worker: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap_or_default();
    name.contains("shutting down")
}

/// Returns the configuration line that loads the stream module, empty if it is built in.
///
/// # Panics
/// If this nginx has no stream module.
pub async fn stream_module() -> String {
    let script = repository().join("deploy/nginx/stream-module");
    let script = script.to_str().expect("the path of the repository is text");
    let finished = ChildProgram::system(script, "stream-module").run(STARTUP_TIMEOUT).await;
    assert_eq!(finished.code, Some(0), "this nginx has no stream module: install libnginx-mod-stream");
    finished.stdout
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http;

    /// Starts a server that sends `answer` to every request.
    async fn fixed_server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) && line.trim() != "" {
                        line.clear();
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn nginx_forwards_both_ports_to_gateways() {
        let ws = [
            fixed_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ng1").await,
            fixed_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ng2").await,
        ];
        let lines = [fixed_server("hello from g1\n").await];
        let nginx = Nginx::start(&ws, &lines, &[]).await;
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(http::get(nginx.ws(), "/ws").await.expect("an answer").body);
        }
        assert!(names.contains(&"g1".to_owned()) && names.contains(&"g2".to_owned()), "{names:?}");

        let mut stream = BufReader::new(TcpStream::connect(nginx.tcp()).await.expect("nginx accepts"));
        stream.write_all(b"\n").await.expect("open");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("open");
        assert_eq!(line, "hello from g1\n");
    }
}
