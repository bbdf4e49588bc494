//! A real nginx with a shipped configuration in front of gateways: one door for WebSocket, one for text lines.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually::eventually;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};
use crate::repository;

/// Maximum time for nginx to come up.
const START: Duration = Duration::from_secs(10);

/// Its file within its directory.
const CONFIGURATION: &str = "nginx.conf";

/// Where an nginx is to listen, and the only directory that it may write to.
#[derive(Debug, Clone, Copy)]
pub struct NginxPaths<'a> {
    /// A directory of its own; errors go to `error.log` in it.
    pub directory: &'a str,
    /// The port for HTTP.
    pub http: SocketAddr,
    /// The port for text lines.
    pub lines: SocketAddr,
}

/// A running nginx. Ended on drop.
#[derive(Debug)]
pub struct Nginx {
    http: ReservedPort,
    lines: ReservedPort,
    master: Process,
    directory: TempDir,
}

impl Nginx {
    /// Starts nginx in front of these gateways and waits until both ports accept.
    ///
    /// # Panics
    /// If it does not come up; its own words are in the message.
    pub async fn start(ws: &[SocketAddr], lines: &[SocketAddr]) -> Self {
        let module = stream_module().await;
        Self::configured(|place| {
            render(&[
                ("RUN_DIR", place.directory),
                ("HTTP_LISTEN", &place.http.to_string()),
                ("LINES_LISTEN", &place.lines.to_string()),
                ("WS_SERVERS", &servers(ws)),
                ("LINES_SERVERS", &servers(lines)),
                ("STREAM_MODULE", &module),
                ("USER", ""),
            ])
        })
        .await
    }

    /// Starts nginx with the configuration that `text` makes for its place, and waits until both ports accept.
    ///
    /// # Panics
    /// If it does not come up; its own words are in the message.
    pub async fn configured(text: impl FnOnce(NginxPaths<'_>) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("parley-nginx-").tempdir().expect("a temporary directory");
        let run_directory = directory.path().to_str().expect("a temporary path is text");
        let (http_port, lines_port) = (ReservedPort::reserve(), ReservedPort::reserve());
        let place = NginxPaths { directory: run_directory, http: http_port.address(), lines: lines_port.address() };
        let configuration = directory.path().join(CONFIGURATION);
        std::fs::write(&configuration, text(place)).expect("our own directory");
        let program = ChildProgram::system("nginx", "nginx").args(["-e", "stderr", "-p", run_directory, "-c"]);
        let mut master = program.args([configuration]).spawn();
        for address in [http_port.address(), lines_port.address()] {
            eventually(START, "nginx accepts", || {
                assert!(!master.has_ended(), "nginx ended: {}", master.log().tail(20));
                async move { TcpStream::connect(address).await }
            })
            .await;
        }
        Self { http: http_port, lines: lines_port, master, directory }
    }

    /// Changes the configuration and reloads it: returns when new workers accept and all old ones no longer do.
    ///
    /// # Panics
    /// If nginx does not take it; its own words are in the message.
    pub async fn reconfigure(&mut self, text: impl FnOnce(NginxPaths<'_>) -> String) {
        let directory = self.directory.path().to_owned();
        let place = NginxPaths { directory: directory.to_str().expect("text"), http: self.ws(), lines: self.tcp() };
        std::fs::write(directory.join(CONFIGURATION), text(place)).expect("our own directory");
        let before = self.workers();
        self.reload();
        eventually(START, "new workers have taken over", async || {
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

    /// Old workers that still serve connections.
    #[must_use]
    pub fn old_workers(&self) -> usize {
        self.workers().into_iter().filter(|worker| is_shutting_down(*worker)).count()
    }

    fn workers(&self) -> Vec<u32> {
        let master = self.master.pid();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The port for WebSocket.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        self.http.address()
    }

    /// The port for text lines.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.lines.address()
    }
}

impl Nginx {
    /// Reads its configuration anew, as an operator does it: new workers serve, old ones finish what they have.
    ///
    /// # Panics
    /// If it has ended.
    pub fn reload(&mut self) {
        self.master.signal(Signal::SIGHUP);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let errors = std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
            eprintln!("--- nginx, its errors:\n{errors}");
        }
        // SIGTERM, not the SIGKILL of a dropped process: only the master takes its workers along.
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

/// nginx says so in the name of a worker that accepts no connection and waits for its last connection.
fn is_shutting_down(worker: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap_or_default();
    name.contains("shutting down")
}

/// The line that gives this nginx its TCP proxy, if it needs one.
///
/// # Panics
/// If it has none.
pub async fn stream_module() -> String {
    let script = repository().join("deploy/nginx/stream-module");
    let script = script.to_str().expect("the path of the repository is text");
    let finished = ChildProgram::system(script, "stream-module").run(START).await;
    assert_eq!(finished.code, Some(0), "this nginx has no stream module: install libnginx-mod-stream");
    finished.stdout
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http;

    /// Answers every connection with its name, whatever is asked.
    async fn stand_in(answer: &'static str) -> SocketAddr {
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
            stand_in("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ng1").await,
            stand_in("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ng2").await,
        ];
        let lines = [stand_in("hello from g1\n").await];
        let nginx = Nginx::start(&ws, &lines).await;
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
