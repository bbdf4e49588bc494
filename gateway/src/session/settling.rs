//! The wait of a session for its own messages, before it leaves a room or ends.
//!
//! A message returns to its sender by the same path as to every other member, usually within a millisecond after its
//! ack. A client that ends right behind it would miss it. Invariant: the wait is at most [`RETURN_WAIT`], and a text
//! client is sent an error if it was in vain. Decides nothing about the end itself.

use std::time::Duration;

use presence::model::codes::ErrorCode;
use presence::model::stream::StreamId;
use tokio::time::timeout;

use crate::wire::{Answer, Refusal, Reply};

use super::performer::Performer;

/// The maximum time for own messages to return. Longer means that the subscription is down.
const RETURN_WAIT: Duration = Duration::from_secs(2);

impl Performer {
    /// Waits until the client's own messages in all its streams are in its outbox.
    pub(super) async fn receive_own_messages(&mut self) {
        let awaited = self.own_messages.take_all();
        self.receive(awaited).await;
    }

    /// Waits until the client's own messages in one stream are in its outbox.
    pub(super) async fn receive_own_messages_of(&mut self, stream: StreamId) {
        let awaited = self.own_messages.take(&stream).map(|seq| (stream, seq));
        self.receive(awaited).await;
    }

    async fn receive(&self, awaited: impl IntoIterator<Item = (StreamId, u64)>) {
        let returned = async {
            for (stream, seq) in awaited {
                self.services.hub.written(&stream, seq).await;
            }
        };
        if timeout(RETURN_WAIT, returned).await.is_err() && self.outbox.dialect().is_line() {
            // A JSON client has the ack.
            let refusal = Refusal::from(ErrorCode::Unavailable)
                .with_detail("your last message is stored, but it did not come back to you in time");
            self.outbox.push_reply(Reply { id: None, answer: Answer::Refused(refusal) });
        }
    }
}
