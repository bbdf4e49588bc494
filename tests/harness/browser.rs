//! A real Chromium without a window, driven over its DevTools protocol: it opens a page and evaluates scripts in it.
//!
//! The page has the origin of its server, so scripts are subject to the same rules as those of the page itself. The
//! profile is a temporary directory. Nothing is downloaded.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::eventually::eventually;
use crate::process::{ChildProgram, Process};

/// Time limit for Chromium to start, and for the answer to a command.
const PATIENCE: Duration = Duration::from_secs(30);
/// Beginning of the line in which Chromium prints the address of its debugger.
const DEVTOOLS_LINE: &str = "DevTools listening on ";
/// Error of Chromium while one page is being replaced by another.
const NO_CONTEXT: &str = "Cannot find default execution context";

/// A browser with one page. Dropping it ends the browser.
#[derive(Debug)]
pub struct Browser {
    debugger: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The debugger's session with the page.
    page: Option<String>,
    commands: u64,
    process: Process,
    /// Deleted after the browser has ended.
    _profile: TempDir,
}

impl Browser {
    /// Opens a page and waits until it is loaded.
    ///
    /// # Panics
    /// If Chromium does not start or does not load the page.
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("parley-browser-").tempdir().expect("a temporary directory");
        let directory = profile.path().to_str().expect("a temporary path is text");
        // Without a sandbox it also runs as root and in containers; it loads pages of the tests only.
        let process = ChildProgram::system("chromium", "chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--remote-debugging-port=0".to_owned(), format!("--user-data-dir={directory}"), url.to_owned()])
            .spawn();
        let devtools = eventually(PATIENCE, "chromium prints the address of its debugger", || async {
            let lines = process.log().lines();
            lines.iter().find_map(|line| line.strip_prefix(DEVTOOLS_LINE).map(str::to_owned)).ok_or(lines)
        })
        .await;
        let (debugger, _) = connect_async(devtools).await.expect("chromium accepts its debugger");
        let mut browser = Self { debugger, page: None, commands: 0, process, _profile: profile };
        let target = json!({ "targetId": browser.page_target().await, "flatten": true });
        let attached = browser.command("Target.attachToTarget", target).await;
        browser.page = attached["sessionId"].as_str().map(str::to_owned);
        browser.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
        browser
    }

    async fn page_target(&mut self) -> String {
        let opened = async {
            loop {
                let targets = self.command("Target.getTargets", json!({})).await;
                let mut targets = targets["targetInfos"].as_array().into_iter().flatten();
                let page = targets.find(|target| target["type"] == "page");
                if let Some(page) = page.and_then(|page| page["targetId"].as_str()) {
                    return page.to_owned();
                }
            }
        };
        timeout(PATIENCE, opened).await.expect("chromium opens its page")
    }

    /// Shows the page as on a phone of this width in CSS pixels.
    pub async fn resize(&mut self, width: u32) {
        let screen = json!({ "width": width, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        self.command("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// Evaluates a script in the page and returns its value; a promise is awaited.
    ///
    /// # Panics
    /// If the script throws.
    pub async fn evaluate(&mut self, script: &str) -> Value {
        let (method, parameters) = evaluation(script);
        let answer = self.command(method, parameters).await;
        value(script, &answer)
    }

    /// Waits until a script returns `true`.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn until(&mut self, script: &str) {
        let met = async {
            loop {
                let (method, parameters) = evaluation(script);
                let answer = self.exchange(method, parameters).await;
                // Between two pages there is no context for scripts.
                if answer["error"]["message"] != NO_CONTEXT && value(script, &answer["result"]) == true {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, met).await.is_ok(), "not in time: {script}");
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.exchange(method, parameters).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Sends a command and returns the whole answer, which may be an error.
    async fn exchange(&mut self, method: &str, parameters: Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(page) = &self.page {
            command["sessionId"] = page.as_str().into();
        }
        let exchange = async {
            self.debugger.send(Message::text(command.to_string())).await.expect("chromium reads commands");
            loop {
                let message = self.debugger.next().await.expect("chromium answers").expect("a message");
                let Ok(text) = message.to_text() else { continue };
                let answer: Value = serde_json::from_str(text).unwrap_or_default();
                if answer["id"] == id {
                    return answer;
                }
            }
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{} did not answer {method}", self.process.name()))
    }
}

/// Returns the command that evaluates a script.
fn evaluation(script: &str) -> (&'static str, Value) {
    ("Runtime.evaluate", json!({ "expression": script, "awaitPromise": true, "returnByValue": true }))
}

/// Returns the value of an evaluated script.
fn value(script: &str, result: &Value) -> Value {
    assert!(result.get("exceptionDetails").is_none(), "{script}: {result}");
    result["result"]["value"].clone()
}
