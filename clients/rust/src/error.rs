//! The error of every call, and the tables of the protocol that a client acts on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Codes after which the same request is expected to succeed later.
const TEMPORARY_CODES: &[&str] = &[
    "rate_limited",
    "slow_mode",
    "overloaded",
    "unavailable",
    "hook_unavailable",
    "outcome_unknown",
    "going_away",
    "internal",
];

/// The close codes of the protocol: number, name, and true if a client must not reconnect.
const CLOSE_CODES: &[(u16, &str, bool)] = &[
    (1000, "bye", true),
    (1002, "protocol_error", true),
    (1003, "unsupported_data", true),
    (1007, "bad_utf8", true),
    (1008, "rate_limited", true),
    (1009, "too_big", true),
    (1011, "internal", false),
    (1012, "restart", false),
    (4000, "timeout", false),
    (4001, "register_timeout", false),
    (4002, "slow_consumer", false),
    (4003, "kicked", true),
    (4004, "taken_over", true),
    (4005, "token_expired", false),
    (4006, "banned", true),
];

/// A refusal of the server, or the end of the session. Branch on [`code`](Self::code).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParleyError {
    code: Cow<'static, str>,
    message: String,
    retry_after: Option<Duration>,
}

impl ParleyError {
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after: None }
    }

    pub(crate) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The error of calls after the end of the session.
    pub(crate) fn closed() -> Self {
        Self::new("closed", "the session is closed")
    }

    /// Returns a code of the protocol's error table, `closed` after [`Parley::close`](crate::Parley::close), or the
    /// name of a final close code such as `kicked`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Returns a text for people. It may change.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the time until a retry can succeed, if the server named one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns true if the same request is expected to succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.retry_after.is_some() || is_temporary_code(&self.code)
    }
}

impl fmt::Display for ParleyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ParleyError {}

pub(crate) fn is_temporary_code(code: &str) -> bool {
    TEMPORARY_CODES.contains(&code)
}

/// Returns the name of a close code, and true if it is final.
pub(crate) fn close_code(number: u16) -> Option<(&'static str, bool)> {
    CLOSE_CODES.iter().find(|(known, ..)| *known == number).map(|(_, name, is_final)| (*name, *is_final))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the cells of the rows of a table in PROTOCOL.md.
    fn rows(header: &str) -> Vec<Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../gateway/PROTOCOL.md");
        let page = std::fs::read_to_string(path).expect("the page of the repository");
        let (_, table) = page.split_once(header).expect("the table");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
    }

    #[test]
    fn close_codes_match_the_protocol_page() {
        let documented = rows("| number | name | reconnect | when |");
        assert_eq!(documented.len(), CLOSE_CODES.len());
        for (row, (number, name, is_final)) in documented.iter().zip(CLOSE_CODES) {
            assert_eq!((&row[1], &row[2], row[3] == "no"), (&number.to_string(), &(*name).to_owned(), *is_final));
        }
    }

    #[test]
    fn temporary_codes_match_the_protocol_page() {
        let documented = rows("| code | temporary | HTTP |");
        assert!(documented.len() > 20);
        for row in documented {
            assert_eq!(is_temporary_code(&row[1]), row[2] == "yes", "{}", row[1]);
        }
    }
}
