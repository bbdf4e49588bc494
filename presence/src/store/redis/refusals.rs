//! [`CallRefusals`]: the calls that Redis answered with a refusal, until they succeed or are no longer repeated.
//!
//! One episode for each [`RefusalReason`]: it begins with a refusal and ends once no refused call of it is left.
//! Invariant: one that keeps returning ends only after [`REPEAT_TIME`] without a refusal, so requests that are refused
//! now and then make few lines of the log. Pure: time is passed in, and `condition` logs the changes. Lost answers are
//! not refusals; the lease detects them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError};

use super::calls::CallKind;
use super::script_source;
use crate::host::metrics::Label;

/// Time after its last refusal at which a call that is not repeated stops counting.
pub(super) const REPEAT_TIME: Duration = Duration::from_secs(10);
/// Number of returns, each within [`REPEAT_TIME`] of the last end, from which a success ends an episode no longer.
/// Calls of one identity may run other commands, or use other keys that a script finds.
const RETURNS_MAX: u32 = 2;
/// Maximum number of refused calls that one episode remembers; the others only count.
const CALLS_MAX: usize = 256;
/// Maximum length of a shown answer, in characters.
const ANSWER_CHARS: usize = 400;

/// Declares the reasons: the label value, the error codes of Redis, and the reason in words.
macro_rules! refusal_reasons {
    ($($(#[$doc:meta])* $row:ident => $value:literal, [$($code:literal),*], $words:literal;)*) => {
        /// Reason of a refusal, by the error code that Redis answered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) enum RefusalReason { $($(#[$doc])* $row,)* }

        impl Label for RefusalReason {
            const ROWS: &'static [Self] = &[$(Self::$row,)*];

            fn value(self) -> &'static str {
                match self { $(Self::$row => $value,)* }
            }

            fn row(self) -> usize {
                self as usize
            }
        }

        impl RefusalReason {
            fn words(self) -> &'static str {
                match self { $(Self::$row => $words,)* }
            }

            fn of_code(code: &str) -> Self {
                match code { $($($code)|* => Self::$row,)* _ => Self::Other }
            }
        }
    };
}

refusal_reasons! {
    /// Its memory is full.
    Full => "full", ["OOM"], "redis is full";
    /// A key holds another type than a script expects.
    WrongType => "wrong_type", ["WRONGTYPE"], "redis holds a key of the wrong type";
    /// It is a replica.
    ReadOnly => "read_only", ["READONLY"], "redis is a read-only replica";
    /// The user lacks a right.
    NoPermission => "no_permission", ["NOPERM"], "the redis user lacks a right";
    /// User or password are refused.
    Authentication => "authentication", ["NOAUTH", "WRONGPASS"], "redis refuses the login of redis.url";
    /// Its last save failed.
    NotPersisting => "not_persisting", ["MISCONF"], "redis cannot save its data";
    /// It has fewer connected replicas than `min-replicas-to-write`.
    NoReplicas => "no_replicas", ["NOREPLICAS"], "redis has too few replicas";
    /// It reads its data after a start.
    Loading => "loading", ["LOADING"], "redis is loading its data";
    /// It is a replica that has lost its primary.
    NoPrimary => "no_primary", ["MASTERDOWN"], "redis is a replica without its primary";
    /// A script of another program blocks it.
    Busy => "busy", ["BUSY"], "redis is blocked by a script";
    /// It is part of a Redis Cluster.
    ClusterMode => "cluster_mode", ["MOVED", "ASK", "CROSSSLOT", "TRYAGAIN", "CLUSTERDOWN"], "redis is in cluster mode";
    /// Any other error.
    Other => "other", ["ERR"], "redis refuses calls";
}

impl RefusalReason {
    /// Returns true if every write is refused for this reason, so that one accepted write disproves it.
    fn is_of_server(self) -> bool {
        !matches!(self, Self::WrongType | Self::NoPermission | Self::Authentication | Self::Other)
    }
}

/// An answered refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallRefusal {
    pub(super) reason: RefusalReason,
    /// The answer of Redis, one line without the client's data.
    pub(super) answer: String,
}

impl CallRefusal {
    /// Returns the refusal in an error; `None` for a lost answer and for the refusals of our own scripts.
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        if error.kind() == ErrorKind::AuthenticationFailed {
            // The client library drops the text of the answer to AUTH. With a full `maxclients` it is an error too.
            let answer = "an error to AUTH: WRONGPASS, or maxclients is reached".to_owned();
            return Some(Self { reason: RefusalReason::Authentication, answer });
        }
        // A pipeline has an error for each refused command.
        let errors = error.clone().into_server_errors()?;
        let (_, first) = errors.first()?;
        Self::of_answer(first.code(), first.details().unwrap_or_default())
    }

    fn of_answer(code: &str, detail: &str) -> Option<Self> {
        // A missing script is loaded and called again; a recovering store is reported by the lease.
        if ["NOSCRIPT", "RECOVERING"].contains(&code) {
            return None;
        }
        // Redis 7.0 answers ERR if a command within a script is not allowed.
        let is_right = code == "ERR" && detail.starts_with("The user executing the script can't");
        let reason = if is_right { RefusalReason::NoPermission } else { RefusalReason::of_code(code) };
        // Arguments may be a message.
        let detail = detail.split(", with args beginning with").next().unwrap_or_default();
        let line = script_source::with_line(&format!("{code} {detail}")).replace(char::is_control, " ");
        Some(Self { reason, answer: line.trim().chars().take(ANSWER_CHARS).collect() })
    }
}

/// Identity of a call: a repeated call has the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CallIdentity {
    pub(super) kind: CallKind,
    /// The keys of its unit, separated by spaces.
    pub(super) keys: String,
}

/// Begin or end of an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefusalChange {
    Begun { refusal: CallRefusal, call: CallIdentity },
    Ended { reason: RefusalReason, lasted: Duration, refused: u64 },
}

#[derive(Debug)]
struct RefusalEpisode {
    began: Instant,
    refused: u64,
    /// The newest answer, and the keys of its call.
    newest: (CallRefusal, String),
    /// Time of the newest refusal of each call that has not succeeded since.
    calls: HashMap<CallIdentity, Instant>,
    /// Number of episodes before this one that ended less than [`REPEAT_TIME`] before the next began.
    returns: u32,
}

impl RefusalEpisode {
    fn keeps_returning(&self) -> bool {
        self.returns >= RETURNS_MAX
    }
}

/// The present episodes, by reason.
#[derive(Debug, Default)]
pub(super) struct CallRefusals {
    episodes: Vec<(RefusalReason, RefusalEpisode)>,
    /// The end of the last episode of each reason, and its returns.
    ended: HashMap<RefusalReason, (Instant, u32)>,
}

impl CallRefusals {
    /// Records a refusal. Returns the episode that begins with it.
    pub(super) fn record_refused(
        &mut self,
        call: CallIdentity,
        refusal: CallRefusal,
        now: Instant,
    ) -> Option<RefusalChange> {
        let reason = refusal.reason;
        let newest = (refusal.clone(), call.keys.clone());
        if let Some((_, episode)) = self.episodes.iter_mut().find(|(known, _)| *known == reason) {
            episode.refused += 1;
            episode.newest = newest;
            if episode.calls.len() < CALLS_MAX || episode.calls.contains_key(&call) {
                episode.calls.insert(call, now);
            }
            return None;
        }
        let calls = HashMap::from([(call.clone(), now)]);
        let former = self.ended.get(&reason).filter(|(end, _)| now.saturating_duration_since(*end) < REPEAT_TIME);
        let returns = former.map_or(0, |(_, returns)| returns + 1);
        self.episodes.push((reason, RefusalEpisode { began: now, refused: 1, newest, calls, returns }));
        Some(RefusalChange::Begun { refusal, call })
    }

    /// Records a call that was sent at `sent` and succeeded. Returns the episodes that end with it.
    pub(super) fn record_done(&mut self, call: &CallIdentity, sent: Instant, now: Instant) -> Vec<RefusalChange> {
        let is_probe = call.kind == CallKind::Probe;
        for (reason, episode) in self.episodes.iter_mut().filter(|(_, episode)| !episode.keeps_returning()) {
            episode.calls.remove(call);
            if is_probe && reason.is_of_server() {
                episode.calls.retain(|_, refused| *refused >= sent);
            }
        }
        self.take_ended(now)
    }

    /// Ends the episodes whose calls are no longer repeated.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<RefusalChange> {
        for (_, episode) in &mut self.episodes {
            episode.calls.retain(|_, refused| now.saturating_duration_since(*refused) < REPEAT_TIME);
        }
        self.take_ended(now)
    }

    /// Returns true if a call of this kind is refused.
    pub(super) fn refuses(&self, kind: CallKind) -> bool {
        self.episodes.iter().any(|(_, episode)| episode.calls.keys().any(|call| call.kind == kind))
    }

    /// Returns true if no call is refused.
    pub(super) fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// Returns each present reason in words, with the newest answer.
    pub(super) fn reasons(&self) -> Vec<String> {
        let words = self.episodes.iter().map(|(reason, RefusalEpisode { newest: (refusal, keys), .. })| {
            let place = if *reason == RefusalReason::WrongType {
                format!(" to a call about the keys {keys}")
            } else {
                String::new()
            };
            format!("{}: redis answered {}{place}", reason.words(), refusal.answer)
        });
        words.collect()
    }

    fn take_ended(&mut self, now: Instant) -> Vec<RefusalChange> {
        let ended = self.episodes.extract_if(.., |(_, episode)| episode.calls.is_empty());
        let changes = ended.map(|(reason, RefusalEpisode { began, refused, returns, .. })| {
            self.ended.insert(reason, (now, returns));
            RefusalChange::Ended { reason, lasted: now.saturating_duration_since(began), refused }
        });
        changes.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(kind: CallKind, keys: &str) -> CallIdentity {
        CallIdentity { kind, keys: keys.to_owned() }
    }

    fn refusal(code: &str) -> CallRefusal {
        CallRefusal::of_answer(code, "some text").unwrap()
    }

    #[test]
    fn refusals_of_one_reason_begin_and_end_once() {
        let (mut refusals, start) = (CallRefusals::default(), Instant::now());
        let (lobby, hall) = (call(CallKind::Publish, "lobby"), call(CallKind::Publish, "hall"));
        let begun = refusals.record_refused(lobby.clone(), refusal("WRONGTYPE"), start);
        assert_eq!(begun, Some(RefusalChange::Begun { refusal: refusal("WRONGTYPE"), call: lobby.clone() }));
        assert_eq!(refusals.record_refused(lobby.clone(), refusal("WRONGTYPE"), start + SECOND), None);
        assert_eq!(
            refusals.reasons(),
            ["redis holds a key of the wrong type: redis answered WRONGTYPE some text to a call about the keys lobby"]
        );
        assert_eq!(refusals.record_done(&hall, start + SECOND, start + SECOND), [], "another room works");
        assert_eq!([CallKind::Publish, CallKind::Beat].map(|kind| refusals.refuses(kind)), [true, false]);
        let probe = call(CallKind::Probe, "");
        assert_eq!(refusals.record_done(&probe, start + SECOND * 2, start + SECOND * 2), [], "a probe proves no key");
        let ended = RefusalChange::Ended { reason: RefusalReason::WrongType, lasted: SECOND * 2, refused: 2 };
        assert_eq!(refusals.record_done(&lobby, start + SECOND * 2, start + SECOND * 2), [ended]);
        assert!(refusals.is_empty());
    }

    #[test]
    fn refused_login_names_each_possible_cause() {
        let error = RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed"));
        let answer = CallRefusal::of(&error).unwrap().answer;
        assert!(["WRONGPASS", "maxclients"].iter().all(|cause| answer.contains(cause)), "{answer}");
    }

    #[test]
    fn refusals_that_keep_returning_end_after_quiet_time() {
        for (code, kind) in [("NOPERM", CallKind::Read), ("WRONGTYPE", CallKind::Read), ("OOM", CallKind::Probe)] {
            let (mut refusals, start) = (CallRefusals::default(), Instant::now());
            let page = call(kind, "those of rooms");
            let mut changes = Vec::new();
            for second in (0..100).map(|number| start + SECOND * number) {
                changes.extend(refusals.record_refused(page.clone(), refusal(code), second));
                changes.extend(refusals.record_done(&page, second + SECOND / 2, second + SECOND / 2));
            }
            assert_eq!(changes.len(), 5, "two short episodes, and the begin of a long one: {changes:?}");
            let last = start + SECOND * 99;
            assert_eq!(refusals.expire(last + REPEAT_TIME - SECOND), []);
            let lasted = SECOND * 97 + REPEAT_TIME;
            let reason = refusal(code).reason;
            assert_eq!(
                refusals.expire(last + REPEAT_TIME),
                [RefusalChange::Ended { reason, lasted, refused: 98 }],
                "{code}"
            );
            let later = last + REPEAT_TIME * 3;
            refusals.record_refused(page.clone(), refusal(code), later).unwrap();
            assert_eq!(refusals.record_done(&page, later + SECOND, later + SECOND).len(), 1, "it is a new fault");
        }
    }

    #[test]
    fn accepted_probe_ends_refusals_of_the_server() {
        let (mut refusals, start) = (CallRefusals::default(), Instant::now());
        let probe = call(CallKind::Probe, "");
        refusals.record_refused(call(CallKind::Publish, "lobby"), refusal("OOM"), start + SECOND).unwrap();
        assert_eq!(refusals.record_done(&probe, start, start + SECOND), [], "it was sent before the refusal");
        let ended = RefusalChange::Ended { reason: RefusalReason::Full, lasted: SECOND, refused: 1 };
        assert_eq!(refusals.record_done(&probe, start + SECOND * 2, start + SECOND * 2), [ended]);
    }

    #[test]
    fn refused_call_that_is_not_repeated_expires() {
        let (mut refusals, start) = (CallRefusals::default(), Instant::now());
        refusals.record_refused(call(CallKind::Write, "ann"), refusal("WRONGTYPE"), start).unwrap();
        assert_eq!(refusals.expire(start + REPEAT_TIME - SECOND), []);
        assert_eq!(refusals.expire(start + REPEAT_TIME).len(), 1);
    }

    #[test]
    fn refused_calls_are_remembered_up_to_a_bound() {
        let (mut refusals, start) = (CallRefusals::default(), Instant::now());
        for number in 0..CALLS_MAX * 2 {
            refusals.record_refused(call(CallKind::Write, &number.to_string()), refusal("OOM"), start);
        }
        assert_eq!((refusals.episodes[0].1.calls.len(), refusals.episodes[0].1.refused), (CALLS_MAX, 512));
    }

    #[test]
    fn answers_name_the_reason_and_no_message() {
        let table = [
            ("OOM", "command not allowed", Some(RefusalReason::Full)),
            ("READONLY", "", Some(RefusalReason::ReadOnly)),
            ("NOPERM", "this user has no permissions", Some(RefusalReason::NoPermission)),
            (
                "ERR",
                "The user executing the script can't run this command or subcommand",
                Some(RefusalReason::NoPermission),
            ),
            (
                "ERR",
                "The user executing the script can't publish to the channel mentioned in the command",
                Some(RefusalReason::NoPermission),
            ),
            ("ERR", "unknown command 'x', with args beginning with: 'hunter2'", Some(RefusalReason::Other)),
            ("NEWCODE", "hello\nworld", Some(RefusalReason::Other)),
            ("NOSCRIPT", "No matching script", None),
            ("RECOVERING", "the gateways are reasserting", None),
        ];
        for (code, detail, reason) in table {
            let refusal = CallRefusal::of_answer(code, detail);
            assert_eq!(refusal.as_ref().map(|refusal| refusal.reason), reason, "{code} {detail}");
            let answer = refusal.map(|refusal| refusal.answer).unwrap_or_default();
            assert!(!answer.contains("hunter2") && !answer.contains('\n'), "{answer}");
        }
    }
}
