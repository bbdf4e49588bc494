//! The token of the user: when the application is asked for it, and what a refusal of the server leads to.
//!
//! One question waits for its answer at a time. The token is in memory only: it is part of `register` and `refresh`,
//! and of nothing that is stored or shown.

use std::time::Duration;

use serde_json::Value;

use super::connection::{TOKEN_EXPIRED, retry_wait};
use super::{Machine, Purpose, SessionEffect};
use crate::error::ParleyError;
use crate::sign_in::{TokenAnswer, TokenText};
use crate::wire::{ClientRequest, RefreshedFrame, fold};

/// Time for the application to answer a question.
const ASK: Duration = Duration::from_secs(10);
/// Maximum age at which a token is renewed after `expiring`: half of the time that the server announces.
const RENEW_MAX: Duration = Duration::from_secs(15);

/// The token in use.
#[derive(Debug, Default)]
pub(super) struct UserTokenState {
    /// `None` for a guest, or if none is known.
    pub(super) value: Option<TokenText>,
    can_ask: bool,
    /// True if a question comes before the next use.
    pub(super) needs_new: bool,
    /// Number of tokens in a row that the server has refused.
    refusals: u32,
    /// Time at which the server accepted the token.
    accepted_at: Duration,
}

impl UserTokenState {
    pub(super) fn new(value: Option<TokenText>, can_ask: bool) -> Self {
        Self { needs_new: can_ask && value.is_none(), value, can_ask, ..Self::default() }
    }

    pub(super) fn accepted(&mut self, now: Duration) {
        self.accepted_at = now;
        self.refusals = 0;
    }

    pub(super) fn forget_refusals(&mut self) {
        self.refusals = 0;
    }

    /// Notes a connection that was closed with its token. Returns false if there is no source of another one.
    pub(super) fn expired(&mut self) -> bool {
        self.refusals = 0;
        self.needs_new = self.can_ask;
        self.can_ask || self.value.is_none()
    }

    /// Returns true if a new token may help: after the first refusal, and whenever the time of a token has passed.
    fn may_help(&mut self, error: &ParleyError) -> bool {
        if !self.can_ask || !error.code().starts_with("token_") {
            return false;
        }
        self.needs_new = true;
        self.refusals += 1;
        self.refusals == 1 || error.code() == TOKEN_EXPIRED
    }
}

impl Machine {
    /// Asks the application for a token, unless a question waits for its answer.
    pub(super) fn ask(&mut self) {
        if self.due.asked.is_none() {
            self.due.asked = Some(self.now + ASK);
            self.emit(SessionEffect::AskToken);
        }
    }

    /// Takes the answer of the application; `None` if the function failed.
    pub(super) fn token_answered(&mut self, answer: Option<TokenAnswer>, failure: &str) {
        if self.due.asked.take().is_none() {
            return;
        }
        match (answer, self.is_online()) {
            (Some(token), is_online) => {
                self.user_token.value = token;
                self.user_token.needs_new = false;
                if is_online { self.renew() } else { self.dial() }
            }
            (None, true) => self.renew_later(None),
            (None, false) => self.retry(&ParleyError::new("no_token", failure)),
        }
    }

    pub(super) fn question_timed_out(&mut self) {
        self.token_answered(None, "get_token gave no answer in time");
    }

    /// Renews the token over the connection. A guest cannot: the server closes the connection.
    pub(super) fn renew(&mut self) {
        self.due.renew = None;
        if self.user_token.needs_new {
            self.ask();
        } else if let Some(token) = self.user_token.value.clone() {
            self.transmit(&ClientRequest::Refresh { token }, Purpose::Refresh);
        }
    }

    fn renew_later(&mut self, error: Option<&ParleyError>) {
        let least = error.and_then(ParleyError::retry_after).unwrap_or_default();
        self.due.renew = Some(self.now + least + retry_wait(self.failures, self.random));
        self.failures += 1;
    }

    /// Renews the token soon. One with a short life is renewed after half of it: the server announces its end at once,
    /// and without a pause the application would be asked all the time.
    pub(super) fn expiring(&mut self, expires_in_ms: u64) {
        if self.user_token.can_ask && self.is_online() {
            self.user_token.needs_new = true;
            let age = RENEW_MAX.min(Duration::from_millis(expires_in_ms) / 2);
            self.due.renew = Some(self.now.max(self.user_token.accepted_at + age));
        }
    }

    /// Applies the answer of `refresh`. If no other token helps against a refusal, the server closes the connection
    /// when the old one expires.
    pub(super) fn refreshed(&mut self, outcome: Result<Value, ParleyError>) {
        match outcome.map(serde_json::from_value) {
            Ok(frame) => {
                self.user_token.accepted(self.now);
                self.failures = 0;
                let RefreshedFrame { left } = frame.unwrap_or_default();
                let error = ParleyError::new("forbidden", "the token does not allow this room");
                left.iter().for_each(|room| self.close_room(&fold(room), &error));
            }
            Err(error) if error.is_temporary() => self.renew_later(Some(&error)),
            Err(error) if self.user_token.may_help(&error) => {
                if self.user_token.refusals > 1 {
                    self.renew_later(None)
                } else {
                    self.ask()
                }
            }
            Err(_) => {}
        }
    }

    /// Begins another attempt after a refused `register`, if a new token may help. Returns false otherwise.
    pub(super) fn retries_with_new_token(&mut self, error: &ParleyError) -> bool {
        if !self.user_token.may_help(error) {
            return false;
        }
        if self.user_token.refusals > 1 {
            self.retry(error);
        } else {
            self.abandon();
            self.connect();
        }
        true
    }
}
