//! [`HookVerdict`]: the application's answer to a question, as far as it can be used.
//!
//! Pure. Invariant: `"allow":false` is a refusal, whatever else the answer has; a reason that clients must not see is
//! left out.

use std::sync::Arc;
use std::time::Duration;

use presence::host::callback::{CallbackAnswer, CallbackError};
use presence::model::is_printable_text;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Maximum length of a reason, in bytes.
const REASON_BYTES: usize = 500;
/// Maximum time for which an answer is remembered: an hour.
const VALID_MAX: Duration = Duration::from_secs(3600);

/// The decision of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HookVerdict {
    /// The request is performed.
    Allowed,
    /// It is refused, with a reason for the client if there is one.
    Refused(Option<Arc<str>>),
}

/// An answer of the application.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HookAnswer {
    pub(super) verdict: HookVerdict,
    /// The time for which it is remembered, if the answer states one.
    pub(super) valid_for: Option<Duration>,
}

/// Reason why a question has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HookFailure {
    /// Too many questions were under way.
    #[error("too many questions are under way")]
    Crowded,
    /// The deadline has passed.
    #[error("no answer in time")]
    Late,
    /// There was no answer.
    #[error(transparent)]
    Unanswered(CallbackError),
    /// The answer has another status than 200.
    #[error("the application answered {0}")]
    Status(u16),
    /// The answer is not the JSON that is expected, or too long.
    #[error("the answer is not as expected: {0}")]
    Malformed(String),
}

/// The answer as written. Fields that this version does not know are ignored, and so are unusable values of the
/// optional ones: neither may turn a refusal into a failure.
#[derive(Deserialize)]
struct WrittenAnswer<'a> {
    allow: bool,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_seconds: Option<&'a RawValue>,
}

impl HookAnswer {
    /// Reads the outcome of a call.
    pub(super) fn read(called: Result<CallbackAnswer, CallbackError>) -> Result<Self, HookFailure> {
        let answer = match called {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return Err(HookFailure::Status(answer.status)),
            Err(CallbackError::Late) => return Err(HookFailure::Late),
            Err(error) => return Err(HookFailure::Unanswered(error)),
        };
        if !answer.is_whole {
            return Err(HookFailure::Malformed("longer than 64 KiB".to_owned()));
        }
        let written: WrittenAnswer<'_> = serde_json::from_slice(&answer.body).map_err(|error| {
            // Without its text, which may quote the application.
            HookFailure::Malformed(format!("line {}, column {}", error.line(), error.column()))
        })?;
        let reason = written.reason.and_then(|reason| serde_json::from_str::<String>(reason.get()).ok());
        let reason = reason.filter(|reason| is_printable_text(reason, REASON_BYTES));
        let seconds = written.cache_seconds.and_then(|seconds| serde_json::from_str::<u64>(seconds.get()).ok());
        Ok(Self {
            verdict: if written.allow { HookVerdict::Allowed } else { HookVerdict::Refused(reason.map(Arc::from)) },
            valid_for: seconds.map(|seconds| Duration::from_secs(seconds).min(VALID_MAX)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<HookAnswer, HookFailure> {
        HookAnswer::read(Ok(CallbackAnswer { status, body: body.to_owned().into(), is_whole: true }))
    }

    fn refused(reason: Option<&str>) -> HookVerdict {
        HookVerdict::Refused(reason.map(Arc::from))
    }

    #[test]
    fn answers_are_read_with_their_bounds() {
        let hour = Some(Duration::from_secs(3600));
        for (body, verdict, valid_for) in [
            (r#"{"allow":true}"#, HookVerdict::Allowed, None),
            (r#"{"allow":true,"reason":"unused","other":[1]}"#, HookVerdict::Allowed, None),
            (r#"{"allow":false,"reason":null,"cache_seconds":null}"#, refused(None), None),
            (r#"{"allow":false,"reason":"no guests, Grüße"}"#, refused(Some("no guests, Grüße")), None),
            (r#"{"allow":false,"cache_seconds":0}"#, refused(None), Some(Duration::ZERO)),
            (r#"{"allow":false,"cache_seconds":99999999999}"#, refused(None), hour),
            (r#"{"allow":false,"reason":"two\nlines"}"#, refused(None), None),
            (r#"{"allow":false,"reason":""}"#, refused(None), None),
            (r#"{"allow":false,"reason":"cut \ud83d"}"#, refused(None), None),
            (r#"{"allow":false,"reason":7,"cache_seconds":-1}"#, refused(None), None),
            (r#"{"allow":false,"cache_seconds":"60"}"#, refused(None), None),
            (r#"{"allow":true,"reason":7,"cache_seconds":1.5}"#, HookVerdict::Allowed, None),
        ] {
            assert_eq!(read(200, body), Ok(HookAnswer { verdict, valid_for }), "{body}");
        }
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "x".repeat(REASON_BYTES + 1));
        assert_eq!(read(200, &long), Ok(HookAnswer { verdict: refused(None), valid_for: None }));
    }

    #[test]
    fn unusable_answers_are_failures_and_never_verdicts() {
        for body in [
            "",
            "ok",
            "[]",
            "null",
            "{}",
            r#"{"allow":1}"#,
            r#"{"allow":"true"}"#,
            r#"{"allow":null}"#,
            r#"{"allow":true,"allow":false}"#,
            r#"{"allow":true} x"#,
        ] {
            assert!(matches!(read(200, body), Err(HookFailure::Malformed(_))), "{body}");
        }
        let quoted = read(200, r#"{"allow":"a text of the application"}"#).expect_err("no verdict").to_string();
        assert_eq!(quoted, "the answer is not as expected: line 1, column 36");
        for status in [201, 204, 302, 403, 500] {
            assert_eq!(read(status, r#"{"allow":true}"#), Err(HookFailure::Status(status)));
        }
        let cut = CallbackAnswer { status: 200, body: r#"{"allow":true}"#.into(), is_whole: false };
        assert!(matches!(HookAnswer::read(Ok(cut)), Err(HookFailure::Malformed(_))));
        assert_eq!(HookAnswer::read(Err(CallbackError::Late)), Err(HookFailure::Late));
    }
}
