//! Tokens of the user: their text, the function of the application that gives them, and a running question.
//!
//! [`TokenText`] never shows its content. [`TokenQuestion`] runs the function in a task of its own, so a panic or a
//! hang of the application reaches neither the engine nor `close`. `machine::user_token` decides when to ask.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinHandle;

/// A token of the user, hidden in descriptions.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TokenText(pub(crate) String);

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Answer of the application: a token, or `None` for a guest.
pub(crate) type TokenAnswer = Option<TokenText>;

type AnswerFuture = Pin<Box<dyn Future<Output = Option<TokenAnswer>> + Send>>;

/// The function of the application. Its future resolves to `None` if it failed.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<dyn Fn() -> AnswerFuture + Send + Sync>);

impl TokenSource {
    pub(crate) fn new<F, Fut, E>(get_token: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<String>, E>> + Send + 'static,
    {
        Self(Arc::new(move || {
            let asked = get_token();
            Box::pin(async move { asked.await.ok().map(|token| token.map(TokenText)) })
        }))
    }
}

/// The sign-in of a session: the first token, and the source of others.
#[derive(Clone, Default)]
pub(crate) struct TokenOptions {
    pub(crate) token: Option<TokenText>,
    pub(crate) source: Option<TokenSource>,
}

/// A running question. Dropping it cancels the function.
pub(crate) struct TokenQuestion(JoinHandle<Option<TokenAnswer>>);

impl TokenQuestion {
    pub(crate) fn ask(source: TokenSource) -> Self {
        // The call itself is a part of the task: it may panic.
        Self(tokio::spawn(async move { (source.0)().await }))
    }

    /// Waits for the answer; `None` if the function failed. Cancel safe.
    pub(crate) async fn answer(&mut self) -> Option<TokenAnswer> {
        (&mut self.0).await.ok().flatten()
    }
}

impl Drop for TokenQuestion {
    fn drop(&mut self) {
        self.0.abort();
    }
}
