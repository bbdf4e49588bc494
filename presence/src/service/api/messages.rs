//! Messages of an application: one, or up to 100 in one request.
//!
//! A row is checked here and published by [`Registry::post`](crate::registry::Registry::post), all rows of a request in
//! one call. Each row has its own result, so a malformed one affects no other.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::extract::{JsonBody, bad, from_object, nick_of, user_of};
use super::keys::{ApiKey, Publish};
use super::problem::{BatchRefusals, PostRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::json_value::{DEPTH_MAX, depth, has_lone_surrogate, is_interoperable};
use crate::model::{Nick, RoomName, is_printable_text};
use crate::registry::{ApiPost, PayloadFields, PostError, PostTarget, PostedMessage, RegistryError, payload};

/// Maximum number of messages of one request.
const BATCH_MAX: usize = 100;
/// Maximum size of the bodies that go to the store in one call.
const PORTION_BYTES: usize = 512 * 1024;
/// Maximum size of a body, as of a client's message.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of an idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;

/// The target of a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum MessageTarget {
    /// A room with its `#`, or a nickname.
    Name(String),
    /// Every nickname of a user.
    User(MessageUser),
}

/// A user of tokens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageUser {
    /// The user id, the claim `sub` of tokens.
    user: String,
}

/// A message to publish.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewMessage {
    /// A room with its `#`, or a nickname; or an object with the id of a `user`, for every nickname of that user.
    #[schema(value_type = MessageTarget)]
    to: Box<RawValue>,
    /// The sender's name as clients see it, a valid nickname; the name of the key if it is absent. Clients also get
    /// `from_api`, so the name is never taken for a user.
    from: Option<String>,
    /// Any JSON value of at most 64 KiB; passed through untouched.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
    /// Idempotency key, 1 to 128 bytes: a second message with it to the same target is not stored, for at least 5
    /// minutes.
    key: String,
}

/// The answer to a message that the store has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedMessage {
    /// The room or the nickname, as it was sent.
    to: String,
    /// The id that clients see.
    msg_id: String,
    /// Its position in the room. Absent for a nickname.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// The epoch of the position.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    /// Unix milliseconds.
    time: u64,
    /// True if an earlier message with this key was stored; then the rest describes that one.
    duplicate: bool,
    /// For a nickname: `online`, or `offline` if the message waits in the inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<&'static str>,
}

/// The answer to a message to a user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedToUser {
    /// The user, as it was sent.
    to: MessageUser,
    /// The messages, one for each nickname of the user that can receive it.
    deliveries: Vec<PublishedMessage>,
}

/// The answer to a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PublishAnswer {
    /// To a room or a nickname.
    One(PublishedMessage),
    /// To a user.
    User(PublishedToUser),
}

/// Messages of one request.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct MessageBatch {
    /// 1 to 100 messages.
    #[schema(value_type = Vec<NewMessage>)]
    messages: Vec<Box<RawValue>>,
}

/// Results, one for each message in its order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    items: Vec<BatchRow>,
}

/// The result of one message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchRow {
    /// The published message.
    message: Option<PublishedMessage>,
    /// The code of the refusal.
    code: Option<&'static str>,
    /// What is wrong with the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Publish a message
///
/// To the members of a room, or to the session of a nickname, also if it is offline. The message has its place in the
/// order of the room, and in its history. Send the same request again after `outcome_unknown`, `unavailable` or a lost
/// answer: the key prevents a second copy.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "messages",
    security(("key" = ["publish"])),
    request_body(content = NewMessage, example = json!({
        "to": "#lobby", "from": "news", "body": "the match begins", "key": "match-7-start",
    })),
    responses(
        (status = 200, description = "The published message.", body = PublishAnswer, example = json!({
            "to": "#lobby", "msg_id": "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "seq": 132,
            "epoch": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4", "time": 1_795_252_200_000_u64, "duplicate": false,
        })),
        PostRefusals,
    ),
)]
pub(super) async fn publish(
    key: ApiKey<Publish>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(message): JsonBody<NewMessage>,
) -> Result<Json<PublishAnswer>, Problem> {
    let message = CheckedMessage::of(message, key.name())?;
    match &message.to {
        MessageTarget::Name(to) => {
            let mut results = api.post(client, &[message.post(to)?]).await?;
            let posted = results.pop().ok_or_else(|| refused(ErrorCode::Internal))?;
            let posted = posted.map_err(|error| api.post_refusal(error))?;
            Ok(Json(PublishAnswer::One(published(to.clone(), posted))))
        }
        MessageTarget::User(user) => {
            let deliveries = api.post_to_user(client, &message, user).await?;
            Ok(Json(PublishAnswer::User(PublishedToUser { to: user.clone(), deliveries })))
        }
    }
}

/// Publish many messages
///
/// Up to 100 messages in a body of at most 512 KiB, in one step of the store for each kind of target. The answer has
/// one row for each message: `message`, or the `code` of its refusal. A refused message affects no other.
#[utoipa::path(
    post,
    path = "/v1/messages/batch",
    tag = "messages",
    security(("key" = ["publish"])),
    request_body(content = MessageBatch, example = json!({
        "messages": [{ "to": "#lobby", "body": { "goal": 1 }, "key": "match-7-goal-1" }],
    })),
    responses(
        (status = 200, description = "The results, in the order of the messages.", body = BatchAnswer, example = json!({
            "items": [{
                "message": {
                    "to": "#lobby", "msg_id": "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1c", "seq": 133,
                    "epoch": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4", "time": 1_795_252_200_000_u64, "duplicate": false,
                },
                "code": null,
            }],
        })),
        BatchRefusals,
    ),
)]
pub(super) async fn batch(
    key: ApiKey<Publish>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(MessageBatch { messages }): JsonBody<MessageBatch>,
) -> Result<Json<BatchAnswer>, Problem> {
    if !(1..=BATCH_MAX).contains(&messages.len()) {
        return Err(bad("messages must have 1 to 100 rows"));
    }
    let rows: Vec<Result<(String, ApiPost), Problem>> = messages
        .iter()
        .map(|row| {
            let message = from_object(row.get()).map_err(|fault| fault.refusal("the row"))?;
            CheckedMessage::of(message, key.name())?.row()
        })
        .collect();
    let posts: Vec<ApiPost> = rows.iter().flatten().map(|(_, post)| post.clone()).collect();
    let mut results = api.post(client, &posts).await?.into_iter();
    let answer = |row: Result<(String, ApiPost), Problem>| {
        let result = row.and_then(|(to, _)| match results.next() {
            Some(Ok(posted)) => Ok(published(to, posted)),
            Some(Err(error)) => Err(api.post_refusal(error)),
            None => Err(refused(ErrorCode::Internal)),
        });
        match result {
            Ok(message) => BatchRow { message: Some(message), code: None, detail: None },
            Err(problem) => BatchRow {
                message: None,
                code: Some(problem.code().slug()),
                detail: problem.detail().map(str::to_owned),
            },
        }
    };
    Ok(Json(BatchAnswer { items: rows.into_iter().map(answer).collect() }))
}

/// A message whose parts are valid.
struct CheckedMessage<'a> {
    to: MessageTarget,
    from: String,
    application: &'a str,
    key: String,
    body: Box<RawValue>,
}

impl<'a> CheckedMessage<'a> {
    fn of(NewMessage { to, from, body, key }: NewMessage, application: &'a str) -> Result<Self, Problem> {
        let to = match serde_json::from_str(to.get()) {
            Ok(name) => MessageTarget::Name(name),
            Err(_) => {
                let user = from_object(to.get()).map(MessageTarget::User);
                user.map_err(|_| bad("to must be a room, a nickname, or an object with the id of a user"))?
            }
        };
        let from = from.unwrap_or_else(|| application.to_owned());
        if let Err(error) = Nick::parse(&from) {
            return Err(refused_as(ErrorCode::BadNick, format!("from: {error}")));
        }
        check_key(&key)?;
        check_body(&body)?;
        Ok(Self { to, from, application, key, body })
    }

    /// Returns the message to a room or nickname for the store.
    fn post(&self, to: &str) -> Result<ApiPost, Problem> {
        let target = if to.starts_with('#') {
            let room = RoomName::parse(to).map_err(|error| refused_as(ErrorCode::BadRoom, error.to_string()))?;
            PostTarget::Room(room.key().clone())
        } else {
            let nick = nick_of(to)?;
            PostTarget::Nick(nick.key().clone())
        };
        let Self { from, application, key, body, .. } = self;
        let msg_id = uuid::Uuid::now_v7().to_string();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let accepted = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let fields = PayloadFields { to, from, msg_id: &msg_id, accepted, application, body };
        let payload = payload(fields);
        Ok(ApiPost { to: target, application: (*application).to_owned(), key: key.clone(), msg_id, payload })
    }

    /// Returns the row of a batch: its target as it was sent, with the message for the store.
    fn row(self) -> Result<(String, ApiPost), Problem> {
        match &self.to {
            MessageTarget::Name(to) => Ok((to.clone(), self.post(to)?)),
            MessageTarget::User(_) => Err(bad("a row of a batch names a room or a nickname")),
        }
    }
}

/// Refuses an idempotency key that is not one.
pub(super) fn check_key(key: &str) -> Result<(), Problem> {
    let is_valid = is_printable_text(key, KEY_BYTES_MAX);
    is_valid.then_some(()).ok_or(bad("key must be 1 to 128 bytes of printable text"))
}

/// Refuses a body that a client's message could not have.
pub(super) fn check_body(body: &RawValue) -> Result<(), Problem> {
    if body.get().len() > BODY_BYTES_MAX {
        return Err(refused_as(ErrorCode::TooLarge, "the body of the message exceeds 64 KiB"));
    }
    if depth(body.get()) > DEPTH_MAX {
        return Err(bad("the body is nested deeper than 32 levels"));
    }
    if has_lone_surrogate(body.get()) || !is_interoperable(body) {
        return Err(bad("the body has half of a surrogate pair, a number that no double holds, or a key given twice"));
    }
    Ok(())
}

fn published(to: String, posted: PostedMessage) -> PublishedMessage {
    let PostedMessage { msg_id, seq, epoch, time, duplicate, online } = posted;
    let is_room = to.starts_with('#');
    PublishedMessage {
        to,
        msg_id,
        seq: is_room.then_some(seq),
        epoch: is_room.then_some(epoch),
        time,
        duplicate,
        delivered: (!is_room).then_some(if online { "online" } else { "offline" }),
    }
}

impl Api {
    /// Publishes messages in a place of their client.
    async fn post(
        &self,
        client: ClientAddress,
        posts: &[ApiPost],
    ) -> Result<Vec<Result<PostedMessage, PostError>>, Problem> {
        let _place = self.place(super::ReadKind::Post, client).await?;
        let results = self.registry.post(posts).await;
        for result in &results {
            self.counts.post(result);
        }
        Ok(results)
    }

    /// Publishes a message to every nickname of a user whose session is online or can return. If one of them fails the
    /// answer is its refusal: a repeat with the key makes no second copy.
    async fn post_to_user(
        &self,
        client: ClientAddress,
        message: &CheckedMessage<'_>,
        MessageUser { user }: &MessageUser,
    ) -> Result<Vec<PublishedMessage>, Problem> {
        let user = user_of(user)?;
        let rows = self.list(client, self.registry.bound_to(&user)).await?;
        // In portions as large as a batch: one call must not hold up the store.
        let portion = (PORTION_BYTES / message.body.get().len()).clamp(1, BATCH_MAX);
        let mut results = Vec::new();
        for rows in rows.chunks(portion) {
            let posts: Vec<ApiPost> = rows.iter().map(|row| message.post(&row.nick)).collect::<Result<_, _>>()?;
            results.extend(self.post(client, &posts).await?);
        }
        let mut deliveries = Vec::new();
        for (row, result) in rows.into_iter().zip(results) {
            match result {
                Ok(posted) => deliveries.push(published(row.nick, posted)),
                Err(PostError::NoSuchUser) => {}
                Err(error) => return Err(self.post_refusal(error)),
            }
        }
        if deliveries.is_empty() {
            return Err(refused_as(ErrorCode::NoSuchUser, "the user has no nickname that can receive a message"));
        }
        Ok(deliveries)
    }

    /// Returns the refusal of a message, and records an outage.
    fn post_refusal(&self, error: PostError) -> Problem {
        match error {
            PostError::NoSuchRoom => refused(ErrorCode::NoSuchRoom),
            PostError::NoSuchUser => refused_as(
                ErrorCode::NoSuchUser,
                "the nickname is not known, or its session cannot return; a room begins with #",
            ),
            PostError::Exhausted { .. } => {
                refused_as(ErrorCode::Overloaded, "the store has no space for another idempotency key")
            }
            PostError::Registry(RegistryError::Unknown(reason)) => {
                tracing::warn!(reason, "message outcome unknown");
                refused(ErrorCode::OutcomeUnknown)
            }
            PostError::Registry(error) => self.answered::<()>(Err(error)).err().unwrap_or(refused(ErrorCode::Internal)),
        }
    }
}
