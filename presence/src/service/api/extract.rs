//! Extractors of the handlers: validated names, pages and bodies.
//!
//! The extractors of Axum refuse with plain text of inner errors; these refuse with a [`Problem`] that names the
//! invalid parameter. Nothing here calls the registry.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::body_fault::BodyFault;
use super::problem::refused_as;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{KEY_BYTES, ListCursor, Nick, RoomName, UserId};
use crate::registry::PAGE_LIMIT;

/// Rows of a page without a `limit`.
const DEFAULT_LIMIT: usize = 100;

/// The nickname in the path.
pub(super) struct NickPath(pub(super) Nick);

impl<S: Send + Sync> FromRequestParts<S> for NickPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text: String = path(parts, state).await?;
        nick_of(&text).map(Self)
    }
}

/// The user id in the path.
pub(super) struct UserPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text: String = path(parts, state).await?;
        user_of(&text).map(Self)
    }
}

/// The room in the path, with or without its `#`.
pub(super) struct RoomPath(pub(super) RoomName);

impl<S: Send + Sync> FromRequestParts<S> for RoomPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        room_of(&path::<String, S>(parts, state).await?).map(Self)
    }
}

/// Returns the nickname in a text.
pub(super) fn nick_of(text: &str) -> Result<Nick, Problem> {
    Nick::parse(text).map_err(|error| refused_as(ErrorCode::BadNick, error.to_string()))
}

/// Returns the user id in a text.
pub(super) fn user_of(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).ok_or_else(|| bad("the user id is not 1 to 255 bytes of printable text"))
}

/// Returns the room of a path, with or without its `#`.
pub(super) fn room_of(text: &str) -> Result<RoomName, Problem> {
    let room = if text.starts_with('#') { RoomName::parse(text) } else { RoomName::parse(&format!("#{text}")) };
    room.map_err(|error| refused_as(ErrorCode::BadRoom, error.to_string()))
}

/// The variable parts of the path, as text. Every other extractor of a path reads them here: the one of Axum refuses in
/// plain text.
pub(super) async fn path<T: DeserializeOwned + Send, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<T, Problem> {
    match Path::<T>::from_request_parts(parts, state).await {
        Ok(Path(texts)) => Ok(texts),
        Err(_) => Err(bad("the URL path is not percent-encoded UTF-8")),
    }
}

/// The id in the path.
pub(super) struct IdPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state).await.map(Self)
    }
}

/// The query parameters of a listing, as they came.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The maximum number of items in the answer.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// `next_cursor` of the previous page. Opaque: send it back unchanged.
    cursor: Option<String>,
}

/// Start and length of a page of a list with cursors of type `C`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageStart<C> {
    pub(super) limit: usize,
    pub(super) cursor: Option<C>,
}

/// A cursor in the form of the registry.
pub(super) trait PageCursor: Sized {
    /// Reads a `next_cursor` that a client sent back; `None` if it is malformed.
    fn decode(text: &str) -> Option<Self>;
}

impl PageCursor for ListCursor {
    fn decode(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The key of a name.
impl PageCursor for String {
    fn decode(text: &str) -> Option<Self> {
        cursor_in(text)
    }
}

impl<S: Send + Sync, C: PageCursor> FromRequestParts<S> for PageStart<C> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let PageQuery { limit, cursor } = query(parts, state).await?;
        let limit = match limit.as_deref().map(str::parse) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit @ 1..=PAGE_LIMIT)) => limit,
            Some(_) => return Err(bad("limit must be a whole number from 1 to 1000")),
        };
        let cursor = match cursor.as_deref().map(C::decode) {
            Some(None) => return Err(bad("cursor must be an unchanged next_cursor of this listing")),
            Some(Some(cursor)) => Some(cursor),
            None => None,
        };
        Ok(Self { limit, cursor })
    }
}

/// Reads the query into `Q`. Its fields should be text, so the caller can name an invalid value.
pub(super) async fn query<Q: DeserializeOwned, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Q, Problem> {
    match Query::<Q>::from_request_parts(parts, state).await {
        Ok(Query(query)) => Ok(query),
        Err(_) => Err(bad("the query string is malformed: write each parameter once, as name=value")),
    }
}

/// Returns the refusal of a malformed request.
pub(super) fn bad(detail: &'static str) -> Problem {
    refused_as(ErrorCode::BadRequest, detail)
}

/// Encodes a key as a cursor: `%` becomes `.`, which no key contains, so a cursor needs no encoding in a URL.
pub(super) fn cursor_out(key: &str) -> String {
    key.replace('%', ".")
}

/// Decodes a cursor. The key must be an encoded name of valid UTF-8.
fn cursor_in(cursor: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if cursor.is_empty() || cursor.len() > KEY_BYTES || !cursor.bytes().all(plain) {
        return None;
    }
    let key = cursor.replace('.', "%");
    let name = percent_decode_str(&key).decode_utf8().ok()?;
    // A remaining `%` was not a valid escape.
    (!name.contains('%')).then_some(key)
}

/// A JSON body of any content type, because `curl -d` sends the type of a form.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = body_text(request, state).await?;
        from_object(&body).map(Self).map_err(|fault| fault.refusal("the request body"))
    }
}

/// Reads a body as text.
pub(super) async fn body_text<S: Send + Sync>(request: Request, state: &S) -> Result<String, Problem> {
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|_| bad("the request body did not arrive completely"))?;
    String::from_utf8(body.into()).map_err(|_| bad("the request body is not UTF-8"))
}

/// Reads a JSON object. An array is refused: a derived `Deserialize` takes one for the fields in their order.
///
/// # Errors
/// The first fault that is found.
pub(super) fn from_object<T: DeserializeOwned>(text: &str) -> Result<T, BodyFault> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(BodyFault::NoObject);
    }
    serde_json::from_str(text).map_err(|error| BodyFault::find::<T>(text, &error.to_string()))
}
