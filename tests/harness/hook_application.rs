//! An application that is asked by hooks: checks signatures, keeps the questions, and answers as a test wants.
//!
//! It answers each connection once. Written against docs/HOOKS.md only.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::webhook_receiver::{read_request, signed_json};

/// The reply to a question.
#[derive(Debug, Clone)]
pub enum HookReply {
    /// Answers 200 with this text.
    Text(String),
    /// Answers this status, with an address in `Location`.
    Status(u16, String),
    /// Answers 200 with this text after [`HookApplication::release`].
    Held(String),
    /// Never answers.
    Hang,
}

impl HookReply {
    /// Answers 200 with JSON.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // Tests pass `json!`.
    pub fn json(answer: Value) -> Self {
        Self::Text(answer.to_string())
    }

    /// Allows the request.
    #[must_use]
    pub fn allow() -> Self {
        Self::Text(r#"{"allow":true}"#.to_owned())
    }
}

type ReplyRule = Box<dyn FnMut(&Value) -> HookReply + Send>;

struct ApplicationState {
    rule: ReplyRule,
    questions: Vec<Value>,
    faults: Vec<String>,
}

/// A running application. Dropping it closes its port.
pub struct HookApplication {
    address: SocketAddr,
    secret: String,
    state: Arc<Mutex<ApplicationState>>,
    releases: Arc<Semaphore>,
    server: JoinHandle<()>,
}

impl fmt::Debug for HookApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookApplication").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for HookApplication {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl HookApplication {
    /// Starts an application that expects questions signed with this secret, and allows everything.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let rule: ReplyRule = Box::new(|_| HookReply::allow());
        let state = Arc::new(Mutex::new(ApplicationState { rule, questions: Vec::new(), faults: Vec::new() }));
        let releases = Arc::new(Semaphore::new(0));
        let (shared, key, permits) = (Arc::clone(&state), secret.to_owned(), Arc::clone(&releases));
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (state, key, releases) = (Arc::clone(&shared), key.clone(), Arc::clone(&permits));
                tokio::spawn(async move { serve(socket, &state, &key, &releases).await });
            }
        });
        Self { address, secret: secret.to_owned(), state, releases, server }
    }

    /// Returns an address for the settings `hooks.*`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook?from=parley", self.address)
    }

    /// Returns the secret.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Changes the replies.
    pub fn reply_with(&self, rule: impl FnMut(&Value) -> HookReply + Send + 'static) {
        self.lock().rule = Box::new(rule);
    }

    /// Sends a number of held replies.
    pub fn release(&self, replies: usize) {
        self.releases.add_permits(replies);
    }

    /// Returns the questions, in the order of their arrival.
    ///
    /// # Panics
    /// If a question was malformed or had no valid signature.
    #[must_use]
    pub fn questions(&self) -> Vec<Value> {
        let state = self.lock();
        assert_eq!(state.faults, Vec::<String>::new(), "every question is signed and well-formed");
        state.questions.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ApplicationState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one question and replies.
async fn serve(mut socket: TcpStream, state: &Mutex<ApplicationState>, secret: &str, releases: &Semaphore) {
    let Ok((head, body)) = read_request(&mut socket).await else { return };
    let reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match signed_json(&head, &body, secret) {
            Ok(question) => {
                let reply = (state.rule)(&question);
                state.questions.push(question);
                reply
            }
            Err(fault) => {
                state.faults.push(fault);
                HookReply::Status(401, String::new())
            }
        }
    };
    let (status, location, body) = match reply {
        HookReply::Text(body) => (200, String::new(), body),
        HookReply::Status(status, location) => (status, location, r#"{"allow":true}"#.to_owned()),
        HookReply::Held(body) => {
            let Ok(permit) = releases.acquire().await else { return };
            permit.forget();
            (200, String::new(), body)
        }
        HookReply::Hang => {
            // Ends with the connection of the gateway.
            let _ = socket.read(&mut [0]).await;
            return;
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: {}\r\n", body.len());
    let _ = socket.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await;
}
