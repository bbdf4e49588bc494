//! [`Neighbours`]: healthy clients that chat while others misbehave, and must not notice.

use std::time::{Duration, Instant};

use harness::{LineClient, Node, WsClient};
use tokio::sync::watch;
use tokio::time::interval;

/// Time between two messages.
const PACE: Duration = Duration::from_millis(20);
/// Longest time until a message is delivered, on a busy machine.
const DELIVERY_MAX: Duration = Duration::from_secs(5);

/// Two clients of a gateway in one room, one of each dialect.
#[derive(Debug)]
pub(super) struct Neighbours {
    ann: WsClient,
    bob: LineClient,
}

impl Neighbours {
    pub(super) async fn open(gateway: &Node) -> Self {
        let (ann, bob) = (WsClient::connect(gateway.ws()).await, LineClient::connect(gateway.tcp()).await);
        ann.register("ann").await;
        ann.join("#home").await;
        bob.register("bob").await;
        bob.join("#home").await;
        Self { ann, bob }
    }

    /// Sends a message, which both must receive.
    pub(super) async fn chat(&self, text: &str) {
        self.ann.try_send("#home", text).await.unwrap_or_else(|refused| panic!("a neighbour was refused: {refused:?}"));
        self.bob.reads_within(DELIVERY_MAX, &format!("[#home] <ann> {text}")).await;
        self.ann.receives("#home", "ann", text).await;
    }

    /// Chats until the end of something. Returns the slowest percentile of the deliveries.
    pub(super) async fn chat_until(&self, mut is_over: watch::Receiver<bool>) -> Duration {
        let (mut pace, mut delays) = (interval(PACE), Vec::new());
        while !*is_over.borrow_and_update() {
            pace.tick().await;
            let began = Instant::now();
            self.chat(&format!("message {}", delays.len())).await;
            delays.push(began.elapsed());
        }
        delays.sort_unstable();
        delays[delays.len() * 99 / 100]
    }

    /// Checks that both are connected and received nothing from others.
    pub(super) fn assert_undisturbed(&self) {
        let others = self.ann.received(|event| event["type"] == "message" && event["from"] != "ann");
        assert!(others.is_empty(), "the healthy client received {others:?}");
        assert_eq!((self.ann.has_ended(), self.bob.has_ended()), (None, None));
        let foreign = self.bob.unused(|line| line.starts_with('[') || line.starts_with("! "));
        assert!(foreign.is_empty(), "the healthy client received {foreign:?}");
    }

    pub(super) fn ann(&self) -> &WsClient {
        &self.ann
    }
}
