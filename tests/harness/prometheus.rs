//! A real Prometheus that scrapes the nodes of a test and evaluates the shipped rules, and queries to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::http;
use crate::port::ReservedPort;
use crate::process::{ChildProgram, Process};

/// Time limit for Prometheus to start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running Prometheus. Dropping it kills the process.
#[derive(Debug)]
pub struct Prometheus {
    port: ReservedPort,
    _server: Process,
    _directory: TempDir,
}

/// A node to scrape.
#[derive(Debug, Clone, Copy)]
pub struct ScrapeTarget<'a> {
    /// Label `job`.
    pub job: &'a str,
    /// Label `instance`.
    pub instance: &'a str,
    /// Admin address.
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts Prometheus with an interval of one second, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(targets: &[ScrapeTarget<'_>], rules: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("parley-prometheus-").tempdir().expect("a temporary directory");
        let port = ReservedPort::reserve();
        let configuration = directory.path().join("prometheus.yml");
        std::fs::write(&configuration, configured(targets, rules)).expect("a writable directory");
        let mut server = ChildProgram::system("prometheus", "prometheus")
            .args([
                format!("--config.file={}", configuration.display()),
                format!("--storage.tsdb.path={}", directory.path().join("data").display()),
                format!("--web.listen-address={}", port.address()),
            ])
            .spawn();
        eventually(STARTUP_TIMEOUT, "prometheus answers", async || {
            assert!(!server.has_ended(), "prometheus ended: {}", server.log().tail(20));
            match http::get(port.address(), "/-/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        Self { port, _server: server, _directory: directory }
    }

    /// Evaluates a query now, and returns its series.
    ///
    /// # Errors
    /// The error message of Prometheus.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = http::get(self.port.address(), &format!("/api/v1/query?query={}", encoded(query))).await?;
        let answer = answer.json();
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().unwrap_or("no reason given").to_owned());
        }
        match answer["data"]["resultType"].as_str() {
            Some("vector") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Ok(vec![answer["data"]["result"].clone()]),
        }
    }

    /// Returns the state of every rule of every group.
    ///
    /// # Errors
    /// Prometheus does not answer.
    pub async fn rules(&self) -> Result<Vec<Value>, String> {
        let answer = http::get(self.port.address(), "/api/v1/rules").await?.json();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }
}

fn configured(targets: &[ScrapeTarget<'_>], rules: &Path) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n",
        rules.display()
    );
    let mut jobs: Vec<&str> = targets.iter().map(|target| target.job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    for job in jobs {
        let _ = writeln!(text, "  - job_name: {job}\n    static_configs:");
        for ScrapeTarget { instance, address, .. } in targets.iter().filter(|target| target.job == job) {
            let _ = writeln!(text, "      - {{ targets: [\"{address}\"], labels: {{ instance: {instance} }} }}");
        }
    }
    text
}

/// Percent-encodes text for a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prometheus_answers_queries_and_reports_errors() {
        let rules = tempfile::NamedTempFile::new().expect("a temporary file");
        let prometheus = Prometheus::start(&[], rules.path()).await;
        let one = prometheus.query("vector(1) + 1").await.expect("a query");
        assert_eq!(one[0]["value"][1], "2");
        assert_eq!(prometheus.query("nothing_at_all").await, Ok(Vec::new()));
        let wrong = prometheus.query("sum(").await.expect_err("not a query");
        assert!(wrong.contains("parse error"), "{wrong}");
    }
}
