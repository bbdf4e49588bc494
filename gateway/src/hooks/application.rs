//! [`ApplicationHooks`]: asks the application, and applies the rule for failures.
//!
//! Invariant: at most [`PLACES`] questions are under way and [`WAITING_MAX`] wait for a place, each until its deadline.
//! A question beyond that has failed at once. A reload replaces the settings and forgets all answers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use presence::host::callback::{CallbackClient, CallbackRequest, CallbackUrl, signature};
use presence::host::line_pace::LinePace;
use presence::host::metrics::{Label, Labelled};
use presence::host::reloadable::Reloadable;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answers::RememberedAnswers;
use super::metrics::{HookMetrics, HookOutcome};
use super::question::{HookKind, HookQuestion};
use super::settings::{HookFailureRule, HookSettings};
use super::verdict::{HookAnswer, HookFailure, HookVerdict};

/// Maximum number of questions that are under way, each with a connection of its own.
const PLACES: usize = 128;
/// Maximum number of questions that wait for a place.
const WAITING_MAX: usize = 1024;

/// A request that must not be performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookRefusal {
    /// The application refused it, with a reason for the client if there is one.
    Refused(Option<Arc<str>>),
    /// There was no usable answer.
    Unavailable,
}

/// The hooks of a gateway.
#[derive(Debug)]
pub struct ApplicationHooks {
    node: Arc<str>,
    allow_private: bool,
    /// The points at which the application is asked, for a look without a lock.
    asks: Labelled<HookKind, AtomicBool>,
    /// `None` without hooks.
    rules: Reloadable<Option<Arc<HookRules>>>,
    /// Created with the first hook, because it reads the root certificates.
    client: OnceLock<CallbackClient>,
    /// Admits the questions that are under way or wait.
    admitted: Semaphore,
    places: Semaphore,
    failures: Labelled<HookKind, Mutex<LinePace>>,
    metrics: HookMetrics,
}

/// Settings in effect, with the answers that were given under them.
#[derive(Debug)]
struct HookRules {
    settings: HookSettings,
    client: CallbackClient,
    answers: Mutex<RememberedAnswers>,
}

impl ApplicationHooks {
    /// Hooks of the gateway with this node id. Their metrics are registered on `metrics`.
    #[must_use]
    pub fn new(node: &str, settings: &HookSettings, metrics: &prometheus::Registry) -> Self {
        let hooks = Self {
            node: node.into(),
            allow_private: settings.allow_private,
            asks: Labelled::new(|_| AtomicBool::new(false)),
            rules: Reloadable::default(),
            client: OnceLock::new(),
            admitted: Semaphore::new(PLACES + WAITING_MAX),
            places: Semaphore::new(PLACES),
            failures: Labelled::new(|_| Mutex::default()),
            metrics: HookMetrics::new(metrics),
        };
        hooks.reload(settings);
        hooks
    }

    /// Replaces the settings, except `callbacks.allow_private`. Questions under way keep theirs.
    pub fn reload(&self, settings: &HookSettings) {
        if let Some(rules) = self.rules.get().filter(|rules| rules.settings == *settings) {
            *rules.answers() = RememberedAnswers::default();
            return;
        }
        let rules = settings.is_set().then(|| {
            let client = self.client.get_or_init(|| CallbackClient::new(self.allow_private)).clone();
            Arc::new(HookRules { settings: settings.clone(), client, answers: Mutex::default() })
        });
        self.rules.set(rules);
        for kind in HookKind::ROWS {
            self.asks[*kind].store(settings.url(*kind).is_some(), Relaxed);
        }
    }

    /// Returns true if the application is asked at a point.
    #[must_use]
    pub fn asks(&self, kind: HookKind) -> bool {
        self.asks[kind].load(Relaxed)
    }

    /// Asks the application about a request, unless a remembered answer decides.
    ///
    /// # Errors
    /// The application refused the request, or gave no usable answer and the rule for failures is `closed`.
    pub async fn ask(&self, question: &HookQuestion) -> Result<(), HookRefusal> {
        let kind = question.kind();
        let Some(rules) = self.rules.get() else { return Ok(()) };
        let Some(url) = rules.settings.url(kind) else { return Ok(()) };
        let key = question.key();
        let remembered = rules.answers().get(Instant::now(), &key);
        if let Some(verdict) = remembered {
            self.metrics.count(kind, HookOutcome::Remembered);
            return verdict.result();
        }
        match self.question(&rules, url, question).await {
            Ok(HookAnswer { verdict, valid_for }) => {
                self.metrics.count(kind, (&verdict).into());
                let valid_for = valid_for.unwrap_or(rules.settings.valid_for);
                rules.answers().insert(Instant::now(), key, verdict.clone(), valid_for);
                verdict.result()
            }
            Err(failure) => {
                self.metrics.count(kind, (&failure).into());
                self.report(kind, url, &failure);
                match rules.settings.on_failure {
                    HookFailureRule::Open => Ok(()),
                    HookFailureRule::Closed => Err(HookRefusal::Unavailable),
                }
            }
        }
    }

    /// Sends a question and reads its answer, both within one deadline.
    async fn question(
        &self,
        rules: &HookRules,
        url: &CallbackUrl,
        question: &HookQuestion,
    ) -> Result<HookAnswer, HookFailure> {
        let (began, limit) = (Instant::now(), rules.settings.timeout);
        let _admitted = self.admitted.try_acquire().map_err(|_| HookFailure::Crowded)?;
        let Ok(Ok(_place)) = timeout(limit, self.places.acquire()).await else { return Err(HookFailure::Crowded) };
        // Built only now: a question that waits holds nothing but its request.
        let body = question.json(&self.node);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let signed = signature::sign(rules.settings.secret.as_slice(), seconds, &body);
        let (header, body) = ((signature::HEADER, signed), Bytes::from(body));
        let (sent, deadline) = (Instant::now(), limit.saturating_sub(began.elapsed()));
        let called = rules.client.post(CallbackRequest { url, header, body, deadline }).await;
        self.metrics.answered(question.kind(), sent.elapsed());
        HookAnswer::read(called)
    }

    /// Logs failures of a hook, at most one line a minute.
    fn report(&self, kind: HookKind, url: &CallbackUrl, error: &HookFailure) {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        let due = self.failures[kind].lock().unwrap_or_else(PoisonError::into_inner).record(Instant::now());
        if let Some(failed) = due {
            tracing::warn!(hook = kind.value(), %url, %error, failed, "hook not answered");
        }
    }
}

impl HookRules {
    fn answers(&self) -> MutexGuard<'_, RememberedAnswers> {
        // Held for one look or one insertion, which leave it valid at each step.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HookVerdict {
    fn result(self) -> Result<(), HookRefusal> {
        match self {
            Self::Allowed => Ok(()),
            Self::Refused(reason) => Err(HookRefusal::Refused(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use presence::model::Nick;

    use super::*;
    use crate::hooks::AskedRequest;

    fn settings(on_failure: HookFailureRule) -> HookSettings {
        HookSettings {
            register: Some("http://127.0.0.1:1/".parse().unwrap()),
            secret: Some("a-secret-of-tests".to_owned()),
            timeout: Duration::from_millis(50),
            on_failure,
            allow_private: true,
            ..HookSettings::default()
        }
    }

    #[tokio::test]
    async fn questions_beyond_their_bounds_have_failed() {
        let metrics = prometheus::Registry::new();
        let hooks = ApplicationHooks::new("g1", &settings(HookFailureRule::Closed), &metrics);
        let nick = Nick::parse("ann").unwrap();
        let question =
            HookQuestion { request: AskedRequest::Register, session: None, nick, grant: None, address: None };
        let all = hooks.admitted.acquire_many((PLACES + WAITING_MAX) as u32).await.unwrap();
        let began = Instant::now();
        assert_eq!(hooks.ask(&question).await, Err(HookRefusal::Unavailable));
        assert!(began.elapsed() < Duration::from_millis(50), "it waited although nothing may wait");
        drop(all);
        let places = hooks.places.acquire_many(PLACES as u32).await.unwrap();
        assert_eq!(hooks.ask(&question).await, Err(HookRefusal::Unavailable));
        hooks.reload(&settings(HookFailureRule::Open));
        assert_eq!(hooks.ask(&question).await, Ok(()), "an open rule lets the request pass");
        assert_eq!(hooks.metrics.counted(HookKind::Register, HookOutcome::Crowded), 3);
        assert_eq!(hooks.admitted.available_permits(), PLACES + WAITING_MAX, "a failed question holds nothing");
        drop(places);
    }

    #[tokio::test]
    async fn reload_with_equal_settings_forgets_answers() {
        let settings = settings(HookFailureRule::Closed);
        let hooks = ApplicationHooks::new("g1", &settings, &prometheus::Registry::new());
        let remembered = || hooks.rules.get().unwrap().answers().get(Instant::now(), b"asked");
        let insert = |rules: &HookRules| {
            let valid_for = Duration::from_secs(60);
            rules.answers().insert(Instant::now(), b"asked"[..].into(), HookVerdict::Allowed, valid_for);
        };
        insert(&hooks.rules.get().unwrap());
        assert_eq!(remembered(), Some(HookVerdict::Allowed));
        hooks.reload(&settings);
        assert_eq!(remembered(), None);
    }

    #[tokio::test]
    async fn unset_hooks_hold_no_client() {
        let hooks = ApplicationHooks::new("g1", &HookSettings::default(), &prometheus::Registry::new());
        assert!(HookKind::ROWS.iter().all(|kind| !hooks.asks(*kind)));
        assert!(hooks.rules.get().is_none() && hooks.client.get().is_none());
        hooks.reload(&settings(HookFailureRule::Closed));
        assert!(hooks.asks(HookKind::Register) && !hooks.asks(HookKind::Send));
        hooks.reload(&HookSettings::default());
        assert!(!hooks.asks(HookKind::Register) && hooks.rules.get().is_none());
    }
}
