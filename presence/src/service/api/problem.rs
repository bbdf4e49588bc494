//! Refusals of the API: the codes that it uses, and their description in the OpenAPI document.
//!
//! Every handler, extractor and fallback refuses with [`refused`] or [`refused_as`], so a client parses one shape. The
//! lists of codes in the annotations of handlers become the error responses of the OpenAPI document. The answer itself
//! is built by [`Problem`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::host::problem::{MEDIA_TYPE, Problem};
use crate::model::codes::ErrorCode;

/// Every code of this API, in the order of the documentation page.
pub(super) const CODES: &[ErrorCode] = &[
    ErrorCode::BadRequest,
    ErrorCode::BadNick,
    ErrorCode::BadRoom,
    ErrorCode::Unauthorized,
    ErrorCode::Forbidden,
    ErrorCode::NotAllowed,
    ErrorCode::NoSuchUser,
    ErrorCode::NoSuchRoom,
    ErrorCode::NotFound,
    ErrorCode::MethodNotAllowed,
    ErrorCode::TooLarge,
    ErrorCode::Overloaded,
    ErrorCode::Unavailable,
    ErrorCode::OutcomeUnknown,
    ErrorCode::Internal,
];

/// URL path of the page that explains the codes.
const PAGE: &str = "/docs";

/// Returns a refusal with the message of the table as its detail.
pub(super) fn refused(code: ErrorCode) -> Problem {
    debug_assert!(CODES.contains(&code), "{} is missing in the list of codes", code.slug());
    Problem::new(code).explained_at(PAGE)
}

/// Returns a refusal with a detail for this client, which must not be the text of an inner error.
pub(super) fn refused_as(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Problem {
    refused(code).with_detail(detail)
}

/// Schema of a problem document. It is not derived, because its `code` is limited to [`CODES`].
#[derive(Debug)]
pub(super) struct ProblemSchema;

impl utoipa::PartialSchema for ProblemSchema {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(about));
        let slugs = CODES.iter().map(|code| code.slug());
        ObjectBuilder::new()
            .description(Some("Reason for a refused request (RFC 9457)."))
            .property("type", text("Link to the explanation of the code."))
            .required("type")
            .property("title", text("Meaning of the code, for people. It may change."))
            .required("title")
            .property("status", ObjectBuilder::new().schema_type(Type::Integer).description(Some("The HTTP status.")))
            .required("status")
            .property("detail", text("Error in this request, for people. It may change."))
            .required("detail")
            .property("code", text("Stable name for programs to branch on.").enum_values(Some(slugs)))
            .required("code")
            .examples(CODES.iter().map(|&code| refused(code).document()))
            .into()
    }
}

impl utoipa::ToSchema for ProblemSchema {
    fn name() -> Cow<'static, str> {
        "Problem".into()
    }
}

/// Returns the error responses of an OpenAPI operation with `codes`: one for each status, an example for each code.
pub(super) fn responses(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for &code in codes {
        by_status.entry(code.http_status()).or_default().push(code);
    }
    let response = |codes: &[ErrorCode]| {
        let slugs: Vec<_> = codes.iter().map(|code| format!("`{}`", code.slug())).collect();
        let example = |&code: &ErrorCode| {
            let value = refused(code).document();
            (code.slug(), ExampleBuilder::new().summary(code.message()).value(Some(value)).build())
        };
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .examples_from_iter(codes.iter().map(example))
            .build();
        ResponseBuilder::new().description(slugs.join(" or ")).content(MEDIA_TYPE, content).build()
    };
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

/// Declares named sets of codes, for the `responses(...)` of a handler.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($code:ident)|+;)*) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
                responses(&[$(ErrorCode::$code),+])
            }
        }
    )* };
}

refusals! {
    /// Refusals of a read without parameters.
    Refusals: Unauthorized | Forbidden | Overloaded | Unavailable;
    /// Refusals of a read with validated parameters.
    ListRefusals: BadRequest | Unauthorized | Forbidden | Overloaded | Unavailable;
    /// Refusals of the lookup, whose body is validated too.
    LookupRefusals: BadRequest | Unauthorized | Forbidden | TooLarge | Overloaded | Unavailable;
    /// Refusals of paths below `/v1/users/{nick}`.
    NickRefusals: BadRequest | Unauthorized | Forbidden | BadNick | NoSuchUser | Overloaded | Unavailable;
    /// Refusals of `/v1/users/id/{user}`.
    UserRefusals: BadRequest | Unauthorized | Forbidden | NoSuchUser | Overloaded | Unavailable;
    /// Refusals of an order of a moderator.
    OrderRefusals: BadRequest | Unauthorized | Forbidden | TooLarge | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of the end of an order.
    LiftRefusals: BadRequest | Unauthorized | Forbidden | NotFound | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of paths below `/v1/rooms/{room}`.
    RoomRefusals: BadRequest | Unauthorized | Forbidden | BadRoom | NoSuchRoom | Overloaded | Unavailable;
    /// Refusals of a listing of sessions.
    SessionRefusals: BadRequest | BadNick | Unauthorized | Forbidden | Overloaded | Unavailable;
    /// Refusals of an event stream.
    StreamRefusals: BadRequest | BadNick | BadRoom | Unauthorized | Forbidden | NoSuchRoom | Overloaded | Unavailable;
    /// Refusals of the change of a room.
    ChangeRefusals: BadRequest | Unauthorized | Forbidden | BadRoom | NoSuchRoom | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of the change of one message.
    SeqRefusals: BadRequest | Unauthorized | Forbidden | BadRoom | NoSuchRoom | NotFound | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of the removal of a member.
    MemberRefusals: BadRequest | BadNick | BadRoom | Unauthorized | Forbidden | NoSuchUser | NoSuchRoom | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of an order for a room.
    RoomOrderRefusals: BadRequest | BadNick | BadRoom | Unauthorized | Forbidden | NotAllowed | NoSuchUser | NoSuchRoom | NotFound | TooLarge | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of rules of a room.
    RuleRefusals: BadRequest | Unauthorized | Forbidden | BadRoom | TooLarge | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of a message.
    PostRefusals: BadRequest | BadNick | BadRoom | Unauthorized | Forbidden | NoSuchUser | NoSuchRoom | TooLarge | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of an announcement.
    AnnouncementRefusals: BadRequest | Unauthorized | Forbidden | TooLarge | Overloaded | Unavailable | OutcomeUnknown;
    /// Refusals of a request with many messages.
    BatchRefusals: BadRequest | Unauthorized | Forbidden | TooLarge | Overloaded | Unavailable;
}
