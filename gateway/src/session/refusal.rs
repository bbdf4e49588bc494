//! The refusal that a client receives for each way in which a call to a store fails.
//!
//! Conversions only, so that performing code uses `?`. Invariant: the text of an inner error is logged, never sent.

use std::time::Duration;

use presence::model::codes::ErrorCode;
use presence::registry::{ClaimError, ModerationError, RegistryError, ResumeError};

use crate::backplane::PublishError;
use crate::hooks::HookRefusal;
use crate::identity::TokenFault;
use crate::outbound::reply_budget::ReplyBudgetUsed;
use crate::quota::{LimitKind, LimitOwner};
use crate::sanctions::BanNotice;
use crate::wire::Refusal;

use super::rate_meter::OverRate;
use super::session_limits::RateRefusal;

/// The pause that clients are advised to make while a store is unavailable.
const RETRY_AFTER_MS: u64 = 1000;

/// The refusal for a call that was not made or not carried out.
pub(super) fn unavailable() -> Refusal {
    temporary(ErrorCode::Unavailable)
}

/// The refusal of an input beyond the limits whose time is not known yet.
pub(super) fn rate_limited() -> Refusal {
    temporary(ErrorCode::RateLimited)
}

fn temporary(code: ErrorCode) -> Refusal {
    Refusal { retry_after_ms: Some(RETRY_AFTER_MS), ..code.into() }
}

/// The refusal of a request beyond a limit, with the time after which it is admitted.
pub(super) fn over_limit((owner, limit): (LimitOwner, LimitKind), retry_after: Duration) -> Refusal {
    let retry_after_ms = u64::try_from(retry_after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    let refusal = Refusal { retry_after_ms: Some(retry_after_ms), ..ErrorCode::RateLimited.into() };
    refusal.with_detail(limit.detail(owner))
}

/// The refusal of a read, which has no outcome: without an answer it is unavailable.
pub(super) fn unread(error: RegistryError) -> Refusal {
    match error {
        RegistryError::Unknown(reason) => RegistryError::Unavailable(reason).into(),
        error => error.into(),
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unknown(reason) => {
                tracing::debug!(reason, "outcome of a registry call unknown");
                temporary(ErrorCode::OutcomeUnknown)
            }
            RegistryError::Unavailable(reason) => {
                tracing::debug!(reason, "registry unavailable");
                unavailable()
            }
            RegistryError::Overloaded => temporary(ErrorCode::Overloaded),
            RegistryError::Fenced => unavailable(),
            RegistryError::Banned => ErrorCode::Banned.into(),
            // Asked only of an address that may create no room now.
            RegistryError::NoSuchRoom => ErrorCode::RateLimited.into(),
            RegistryError::NotAllowed => ErrorCode::NotAllowed.into(),
            RegistryError::RoomFull => ErrorCode::RoomFull.into(),
            RegistryError::InviteOnly => ErrorCode::InviteOnly.into(),
        }
    }
}

impl From<BanNotice> for Refusal {
    fn from(ban: BanNotice) -> Self {
        let refusal = Self::from(ErrorCode::Banned);
        if ban.reason.is_empty() { refusal } else { refusal.with_detail(format!("you are banned: {}", ban.reason)) }
    }
}

impl From<HookRefusal> for Refusal {
    fn from(refusal: HookRefusal) -> Self {
        match refusal {
            HookRefusal::Refused(Some(reason)) => {
                Self::from(ErrorCode::NotAllowed).with_detail(format!("the application refused this: {reason}"))
            }
            HookRefusal::Refused(None) => Self::from(ErrorCode::NotAllowed).with_detail("the application refused this"),
            HookRefusal::Unavailable => temporary(ErrorCode::HookUnavailable),
        }
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::InUse { retry_after } => {
                let refusal = Self::from(ErrorCode::NickInUse);
                let Some(wait) = retry_after else { return refusal };
                let retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                Self { retry_after_ms, ..refusal.with_detail("this nickname is held for a session that may return") }
            }
            ClaimError::Confusable => ErrorCode::NickConfusable.into(),
            ClaimError::Registry(error) => error.into(),
        }
    }
}

impl From<ResumeError> for Refusal {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::UnknownToken => ErrorCode::ResumeFailed.into(),
            ResumeError::Claim(error) => error.into(),
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        let refusal = Self::from(fault.code());
        match fault {
            TokenFault::NoKeys { retry_after } => {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                Self { retry_after_ms: Some(retry_after_ms), ..refusal }
            }
            TokenFault::WrongNick => refusal.with_detail("the token is for another nickname"),
            _ => refusal,
        }
    }
}

impl From<ReplyBudgetUsed> for Refusal {
    fn from(ReplyBudgetUsed: ReplyBudgetUsed) -> Self {
        temporary(ErrorCode::Overloaded).with_detail("too many lists wait to be read by their clients")
    }
}

impl From<OverRate> for Refusal {
    fn from(OverRate { retry_after, .. }: OverRate) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let refusal = Self { retry_after_ms: Some(retry_after_ms), ..ErrorCode::Overloaded.into() };
        refusal.with_detail("too many bytes are sent there per second, the largest senders wait first")
    }
}

impl From<RateRefusal> for Refusal {
    fn from(RateRefusal { limit, owner, retry_after, .. }: RateRefusal) -> Self {
        over_limit((owner, limit), retry_after)
    }
}

impl From<ModerationError> for Refusal {
    fn from(error: ModerationError) -> Self {
        let refused = |code: ErrorCode, detail: &str| Self::from(code).with_detail(detail);
        match error {
            ModerationError::NotInRoom => ErrorCode::NotInRoom.into(),
            ModerationError::NotModerator => refused(ErrorCode::Forbidden, "you are not a moderator of this room"),
            ModerationError::OwnersOnly => refused(ErrorCode::Forbidden, "only an owner of this room may do this"),
            ModerationError::LastOwner => refused(ErrorCode::Forbidden, "this room would have no owner"),
            ModerationError::Full => refused(ErrorCode::Forbidden, "this room has too many roles, bans or invites"),
            ModerationError::NoSuchUser => {
                refused(ErrorCode::NoSuchUser, "this nickname is not known, or is not in the room")
            }
            ModerationError::NothingToLift => {
                refused(ErrorCode::NoSuchUser, "this user is not banned, not muted or has no role")
            }
            ModerationError::Registry(RegistryError::NoSuchRoom) => ErrorCode::NoSuchRoom.into(),
            ModerationError::Registry(error) => error.into(),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::NotInRoom => ErrorCode::NotInRoom.into(),
            PublishError::NoSuchUser => ErrorCode::NoSuchUser.into(),
            PublishError::Muted { retry_after } => {
                let retry_after = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                Self { retry_after_ms: retry_after, ..ErrorCode::Muted.into() }
            }
            PublishError::NotAllowed => ErrorCode::NotAllowed.into(),
            PublishError::SlowMode { retry_after } => {
                let retry_after_ms = Some(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
                Self { retry_after_ms, ..ErrorCode::SlowMode.into() }
            }
            PublishError::Overloaded => temporary(ErrorCode::Overloaded),
            PublishError::Exhausted { retry_after } | PublishError::KeysExhausted { retry_after } => {
                let retry_after_ms = Some(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
                Self { retry_after_ms, ..ErrorCode::Overloaded.into() }
            }
            PublishError::Registry(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_nickname_is_refused_with_its_time() {
        let refused = |retry_after| Refusal::from(ClaimError::InUse { retry_after });
        let held = refused(Some(Duration::from_secs(2)));
        assert_eq!((held.code, held.retry_after_ms), (ErrorCode::NickInUse, Some(2000)));
        assert_eq!(held.detail.as_deref(), Some("this nickname is held for a session that may return"));
        assert_eq!(refused(None), ErrorCode::NickInUse.into());
    }

    #[test]
    fn exhausted_share_is_refused_with_its_time() {
        let refusal = Refusal::from(PublishError::Exhausted { retry_after: Duration::from_millis(4321) });
        assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::Overloaded, Some(4321)));
    }
}
