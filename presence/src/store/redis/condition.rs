//! [`StoreCondition`]: the reasons why Redis cannot be used now: refused calls, unmet requirements, failed TLS.
//!
//! Each call over a [`super::RedisStore`] reports its answer; `watch` reports the others. Begin and end of each reason
//! are logged here, once. A lost answer is no reason here; the lease reports it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use redis::RedisError;

use super::calls::CallKind;
use super::fitness::Unfit;
use super::refusals::{CallIdentity, CallRefusal, CallRefusals, RefusalChange, RefusalReason};
use crate::host::metrics::{Label, Labelled};

/// Condition of the Redis that one [`super::RedisStore`] uses.
#[derive(Debug)]
pub(super) struct StoreCondition {
    state: Mutex<ConditionState>,
    /// True while a call is refused, so that a successful call costs no lock otherwise.
    has_refusals: AtomicBool,
    refused: Labelled<RefusalReason, IntCounter>,
    collected: IntCounterVec,
}

#[derive(Debug, Default)]
struct ConditionState {
    refusals: CallRefusals,
    unfit: Vec<Unfit>,
    unfit_since: Option<Instant>,
    /// The reason of the failed TLS handshake, and the time of the first failure.
    handshake: Option<(String, Instant)>,
}

impl StoreCondition {
    /// Registers the metric. Must be called once for each registry.
    ///
    /// # Panics
    /// On a second call.
    pub(super) fn register(&self, registry: &Registry) {
        let refused: Box<dyn Collector> = Box::new(self.collected.clone());
        registry.register(refused).expect("registered once");
    }

    /// Records the answer to a call that was sent at `sent`.
    pub(super) fn record(&self, call: impl FnOnce() -> CallIdentity, sent: Instant, answer: Result<(), &RedisError>) {
        let now = Instant::now();
        let changes = match answer.map_err(CallRefusal::of) {
            Ok(()) if !self.has_refusals.load(Ordering::Acquire) => return,
            Ok(()) => self.lock().refusals.record_done(&call(), sent, now),
            Err(None) => return,
            Err(Some(refusal)) => {
                self.refused[refusal.reason].inc();
                self.has_refusals.store(true, Ordering::Release);
                self.lock().refusals.record_refused(call(), refusal, now).into_iter().collect()
            }
        };
        self.finish(changes);
    }

    /// Ends the refusals of calls that are no longer repeated.
    pub(super) fn expire(&self) {
        let changes = self.lock().refusals.expire(Instant::now());
        self.finish(changes);
    }

    /// Records the unmet requirements.
    pub(super) fn record_unfit(&self, unfit: Vec<Unfit>) {
        let mut state = self.lock();
        if state.unfit == unfit {
            return;
        }
        let is_fit = unfit.is_empty();
        if !is_fit {
            let reasons: Vec<String> = unfit.iter().map(ToString::to_string).collect();
            tracing::error!(reason = reasons.join("; "), "redis is unfit");
            state.unfit_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = state.unfit_since.take() {
            tracing::info!(seconds = since.elapsed().as_secs(), "redis is fit again");
        }
        state.unfit = unfit;
    }

    /// Records the reason of a failed TLS handshake; `None` if it does not fail.
    pub(super) fn record_handshake(&self, failure: Option<String>) {
        let mut state = self.lock();
        let (former, since) = state.handshake.take().unzip();
        match (failure, since) {
            (Some(reason), since) => {
                if former.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "redis tls handshake failed");
                }
                state.handshake = Some((reason, since.unwrap_or_else(Instant::now)));
            }
            (None, Some(since)) => {
                tracing::info!(seconds = since.elapsed().as_secs(), "redis tls handshake failures ended");
            }
            (None, None) => {}
        }
    }

    /// Returns true while calls of this kind are refused.
    pub(super) fn refuses(&self, kind: CallKind) -> bool {
        self.has_refusals.load(Ordering::Acquire) && self.lock().refusals.refuses(kind)
    }

    /// Returns the reasons why Redis cannot be used; none if it can.
    pub(super) fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let mut reasons = state.refusals.reasons();
        reasons.extend(state.unfit.iter().map(ToString::to_string));
        let handshake = state.handshake.iter();
        reasons.extend(handshake.map(|(reason, _)| format!("redis tls handshake failed: {reason}")));
        reasons
    }

    fn finish(&self, changes: Vec<RefusalChange>) {
        for change in changes {
            log(change);
        }
        let state = self.lock();
        self.has_refusals.store(!state.refusals.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, ConditionState> {
        // Every method leaves the state consistent, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(change: RefusalChange) {
    match change {
        RefusalChange::Begun { refusal: CallRefusal { reason: RefusalReason::Loading, answer }, call } => {
            tracing::info!(
                reason = RefusalReason::Loading.value(),
                call = call.kind.value(),
                answer,
                "redis calls refused"
            );
        }
        RefusalChange::Begun { refusal: CallRefusal { reason: RefusalReason::WrongType, answer }, call } => {
            let (reason, keys) = (RefusalReason::WrongType.value(), call.keys);
            tracing::warn!(reason, call = call.kind.value(), answer, keys, "redis calls refused");
        }
        RefusalChange::Begun { refusal: CallRefusal { reason, answer }, call } => {
            tracing::warn!(reason = reason.value(), call = call.kind.value(), answer, "redis calls refused");
        }
        RefusalChange::Ended { reason, lasted, refused } => {
            let seconds = lasted.as_secs();
            tracing::info!(reason = reason.value(), seconds, refused, "redis refusals ended");
        }
    }
}

impl Default for StoreCondition {
    fn default() -> Self {
        let counted = Opts::new("parley_redis_refusals_total", "Calls that Redis answered with a refusal, by reason.");
        let collected = IntCounterVec::new(counted, &["reason"]).expect("the name is valid");
        let refused = Labelled::new(|value| collected.with_label_values(&[value]));
        Self { state: Mutex::default(), has_refusals: AtomicBool::new(false), refused, collected }
    }
}
