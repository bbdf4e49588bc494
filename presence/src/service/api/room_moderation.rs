//! Orders of an application for a room: those of its moderators, in the name of the key, and above every owner.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{JsonBody, RoomPath, bad, nick_of, path, query, room_of, user_of};
use super::keys::{ApiKey, Moderate};
use super::problem::{MemberRefusals, RoomOrderRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::RoomName;
use crate::model::codes::ErrorCode;
use crate::model::moderation::{
    MODERATION_SECONDS_MAX, Moderation, ModerationAction, ModerationOrder, ModerationTarget, REASON_CHARS, RoomRole,
    TOPIC_CHARS, is_one_line,
};
use crate::registry::{ModerationCaller, ModerationError, ModerationRequest, RegistryError};

/// An order for a room. All but a topic name one of `nick` and `user`.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RoomOrder {
    /// `kick`, `ban`, `unban`, `mute`, `unmute`, `op`, `deop`, `invite` or `topic`.
    action: ModerationAction,
    /// A nickname.
    nick: Option<String>,
    /// A user id, for `ban`, `unban`, `mute`, `unmute` and `invite`.
    user: Option<String>,
    /// For how long a ban or mute is in force. Without it, until it is lifted.
    seconds: Option<u64>,
    /// The reason, one line of at most 256 characters. The room sees it.
    reason: Option<String>,
    /// For `op`: `moderator`, if it is absent, or `owner`.
    role: Option<RoomRole>,
    /// The topic, one line of at most 1,024 characters. An empty one removes it.
    text: Option<String>,
}

impl RoomOrder {
    fn checked(self) -> Result<ModerationOrder, Problem> {
        let Self { action, nick, user, seconds, reason, role, text } = self;
        let target = match (action, nick, user) {
            (ModerationAction::Topic, ..) => None,
            (_, Some(nick), None) => {
                let nick = nick_of(&nick)?;
                Some(ModerationTarget::Nick(nick))
            }
            (action, None, Some(user)) if action.names_users() => Some(ModerationTarget::User(user_of(&user)?)),
            (action, ..) if action.names_users() => return Err(bad("name one of nick and user")),
            _ => return Err(bad("name the nick")),
        };
        let text = match action {
            ModerationAction::Topic => text.ok_or_else(|| bad("the text is missing"))?,
            _ => reason.unwrap_or_default(),
        };
        if seconds.is_some_and(|seconds| !(1..=MODERATION_SECONDS_MAX).contains(&seconds)) {
            return Err(bad("seconds must be a whole number from 1 to 316224000"));
        }
        let role = role.unwrap_or(RoomRole::Moderator);
        if role == RoomRole::Muted {
            return Err(bad("role must be moderator or owner"));
        }
        checked_text(ModerationOrder { action, target, seconds, text, role })
    }
}

/// Refuses an order whose reason or topic is too long, or more than one line.
fn checked_text(order: ModerationOrder) -> Result<ModerationOrder, Problem> {
    let is_topic = order.action == ModerationAction::Topic;
    if is_one_line(&order.text, if is_topic { TOPIC_CHARS } else { REASON_CHARS }) {
        return Ok(order);
    }
    Err(bad(match is_topic {
        true => "text must be one line of at most 1024 characters, without control and invisible characters",
        false => "reason must be one line of at most 256 characters, without control and invisible characters",
    }))
}

/// The order as it was carried out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModeratedRoom {
    /// The room as its members see it.
    room: String,
    #[serde(flatten)]
    notice: Moderation,
}

/// Moderate a room
///
/// The order is carried out and announced to the room at once, and is in effect on every gateway within 2 s. The key
/// may act on everybody. The answer is what the room receives.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/moderation",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby")),
    request_body(content = RoomOrder, example = json!({
        "action": "ban", "nick": "ann", "seconds": 3600, "reason": "flood",
    })),
    responses(
        (status = 200, description = "The order as the room receives it.", body = ModeratedRoom, example = json!({
            "room": "#lobby", "action": "ban", "nick": "ann", "by": "backend", "reason": "flood",
            "until": 1_795_255_800_000_u64, "time": 1_795_252_200_000_u64,
        })),
        RoomOrderRefusals,
    ),
)]
pub(super) async fn moderate(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    Extension(client): Extension<ClientAddress>,
    JsonBody(order): JsonBody<RoomOrder>,
) -> Result<Json<ModeratedRoom>, Problem> {
    let notice = api.moderate(client, &room, (&order.checked()?, key.name())).await?;
    // The order is carried out: without an answer the name is as it was sent.
    let shown = api.read(client, api.registry.room(room.key())).await.ok().flatten();
    let room = shown.map_or_else(|| room.as_str().to_owned(), |shown| shown.room);
    Ok(Json(ModeratedRoom { room, notice }))
}

/// The query parameters, as they came.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemovalQuery {
    /// The reason, one line of at most 256 characters. The room sees it.
    reason: Option<String>,
}

/// The room and the member in the path, and the order to remove it.
pub(super) struct MemberRemoval(RoomName, ModerationOrder);

impl<S: Send + Sync> FromRequestParts<S> for MemberRemoval {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (room, nick): (String, String) = path(parts, state).await?;
        let nick = nick_of(&nick)?;
        let RemovalQuery { reason } = query(parts, state).await?;
        let order = ModerationOrder::new(ModerationAction::Kick, Some(ModerationTarget::Nick(nick)));
        let order = checked_text(ModerationOrder { text: reason.unwrap_or_default(), ..order })?;
        Ok(Self(room_of(&room)?, order))
    }
}

/// Remove a member from a room
///
/// As the order `kick`. The member may join again at once.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/members/{nick}",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        ("nick" = String, Path, description = "The nickname, in any case.", example = "ann"),
        RemovalQuery,
    ),
    responses((status = 204, description = "The member is removed."), MemberRefusals),
)]
pub(super) async fn remove(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    MemberRemoval(room, order): MemberRemoval,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    api.moderate(client, &room, (&order, key.name())).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// Carries out the order of an application.
    async fn moderate(
        &self,
        client: ClientAddress,
        room: &RoomName,
        (order, by): (&ModerationOrder, &str),
    ) -> Result<Moderation, Problem> {
        let request = ModerationRequest { room, caller: ModerationCaller::Api(by), order };
        let outcome = async {
            match self.registry.moderate(request).await {
                Err(ModerationError::Registry(error)) => Err(error),
                outcome => Ok(outcome),
            }
        };
        let notice = self.change_room(client, outcome).await?.map_err(|error| refusal(&error))?;
        let (action, room) = (order.action.as_str(), room.as_str());
        tracing::info!(event = "rooms", action, room, by, "room changed");
        Ok(notice)
    }
}

/// Returns the refusal of an order that the store has decided.
fn refusal(error: &ModerationError) -> Problem {
    match error {
        ModerationError::NoSuchUser => {
            refused_as(ErrorCode::NoSuchUser, "the nickname is not known, or is not in the room")
        }
        ModerationError::NothingToLift => {
            refused_as(ErrorCode::NotFound, "the user is not banned, is not muted, or has no role")
        }
        ModerationError::LastOwner => refused_as(ErrorCode::NotAllowed, "the room would have no owner"),
        ModerationError::Full => {
            refused_as(ErrorCode::Overloaded, "the room has too many roles, bans or invites: lift some of them")
        }
        // An application needs no role.
        ModerationError::NotInRoom | ModerationError::NotModerator | ModerationError::OwnersOnly => {
            refused(ErrorCode::Internal)
        }
        ModerationError::Registry(RegistryError::NoSuchRoom) => refused(ErrorCode::NoSuchRoom),
        ModerationError::Registry(_) => refused(ErrorCode::Unavailable),
    }
}
