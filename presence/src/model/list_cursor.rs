//! The order of lists of users and members, and their cursor.
//!
//! [`SessionId::list_score`] is the place of a session in every such list, so a new nickname moves no user to another
//! page. Invariant: a session listed from the first page to the last is on exactly one page, also while it owns two
//! nicknames in the middle of a rename. The stores sort by score, then by nick key.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::claims::{Fence, Owner, SessionId};

impl SessionId {
    /// Returns the score of the session in lists of users and members: its first 48 bits. The Lua twin is in
    /// `registry/script/prelude.lua`.
    #[must_use]
    pub fn list_score(&self) -> u64 {
        let head: String = self.as_str().chars().take(12).collect();
        u64::from_str_radix(&head, 16).unwrap_or(0)
    }
}

/// The highest list score.
const SCORE_MAX: u64 = (1 << 48) - 1;
/// The maximum number of rows with score 0 before a position. Far above every list, and far below what Redis counts.
const ROWS_MAX: usize = u32::MAX as usize;

/// The text is not that of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignCursor;

/// Position between two rows of a list. Its text is opaque for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCursor {
    score: u64,
    /// The number of rows with this score before the position; `None` if all are before it.
    rows: Option<usize>,
}

impl ListCursor {
    /// Rows that a page reads in addition to its limit, to see whether its last session has more of them.
    pub const EXTRA_ROWS: usize = 2;

    /// Returns the lowest score after the position, and the number of its rows to leave out.
    #[must_use]
    pub fn next_row(cursor: Option<Self>) -> (u64, usize) {
        match cursor {
            None => (0, 0),
            Some(Self { score, rows: None }) => (score.saturating_add(1), 0),
            Some(Self { score, rows: Some(rows) }) => (score, rows),
        }
    }

    /// Cuts the rows read from [`next_row`](Self::next_row) to a page of at most `limit` sessions, which ends between
    /// two sessions. Returns the cursor of the next page, or `None` on the last one.
    ///
    /// Score 0 belongs to the sessions of gateways that know no scores. Its rows are counted instead.
    #[must_use]
    pub fn cut<N>(start: Option<Self>, rows: &mut Vec<(N, u64)>, limit: usize) -> Option<Self> {
        let score = rows.get(limit)?.1;
        let whole = rows.iter().take_while(|row| row.1 < score).count();
        match (whole, score) {
            (0, 0) => {
                rows.truncate(limit);
                Some(Self { score, rows: Some(Self::next_row(start).1 + limit) })
            }
            // The first session alone is longer than the page.
            (0, _) => {
                let own = rows.iter().take_while(|row| row.1 == score).count();
                rows.truncate(own);
                Some(Self { score, rows: None })
            }
            _ => {
                rows.truncate(whole);
                rows.last().map(|row| Self { score: row.1, rows: None })
            }
        }
    }
}

impl fmt::Display for ListCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            None => write!(f, "{}", self.score),
            Some(rows) => write!(f, "{}.{rows}", self.score),
        }
    }
}

/// Reads exactly the texts that [`fmt::Display`] writes. A client may send any other, and Redis refuses a read with a
/// number beyond its own range as it refuses one of a broken key.
impl FromStr for ListCursor {
    type Err = ForeignCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (score, rows) = text.split_once('.').map_or((text, None), |(score, rows)| (score, Some(rows)));
        let cursor = Self {
            score: score.parse().map_err(|_| ForeignCursor)?,
            rows: rows.map(str::parse).transpose().map_err(|_| ForeignCursor)?,
        };
        let is_possible = match cursor.rows {
            None => cursor.score <= SCORE_MAX,
            Some(rows) => cursor.score == 0 && rows <= ROWS_MAX,
        };
        if is_possible && cursor.to_string() == text { Ok(cursor) } else { Err(ForeignCursor) }
    }
}

/// Keeps one row of each session of a page: that of its newest claim.
pub fn keep_newest<T>(rows: &mut Vec<(Owner, T)>) {
    let mut newest: HashMap<SessionId, Fence> = HashMap::new();
    for (owner, _) in &*rows {
        let fence = newest.entry(owner.session.clone()).or_insert(owner.fence);
        *fence = owner.fence.max(*fence);
    }
    rows.retain(|(owner, _)| {
        let is_newest = newest.get(&owner.session) == Some(&owner.fence);
        is_newest && newest.remove(&owner.session).is_some()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(score: u64) -> Option<ListCursor> {
        Some(ListCursor { score, rows: None })
    }

    fn counted(rows: usize) -> Option<ListCursor> {
        Some(ListCursor { score: 0, rows: Some(rows) })
    }

    #[test]
    fn score_is_head_of_session_id() {
        let score = |id: &str| SessionId::from_store(id).list_score();
        assert_eq!(score("0123456789abcdef0123456789abcdef"), 0x0123_4567_89ab);
        assert_eq!(score("ffffffffffffffffffffffffffffffff"), 0xffff_ffff_ffff);
        assert_eq!((score("ff"), score("session"), score("")), (255, 0, 0));
        assert!(SessionId::random().list_score() < 1 << 48, "a score of Redis is exact below 2^53");
    }

    #[test]
    fn page_ends_between_two_sessions() {
        let cut = |limit: usize| {
            let all = [("a", 1), ("b", 2), ("z", 2), ("c", 5)];
            let mut rows = all[..all.len().min(limit + ListCursor::EXTRA_ROWS)].to_vec();
            let next = ListCursor::cut(None, &mut rows, limit);
            (rows.iter().map(|row| row.0).collect::<String>(), next)
        };
        assert_eq!(cut(1), ("a".to_owned(), after(1)));
        assert_eq!(cut(2), ("a".to_owned(), after(1)));
        assert_eq!(cut(3), ("abz".to_owned(), after(2)));
        assert_eq!(cut(4), ("abzc".to_owned(), None));
        let mut pair = vec![("b", 2), ("z", 2), ("c", 5)];
        assert_eq!((ListCursor::cut(after(1), &mut pair, 1), pair.len()), (after(2), 2), "a page has progress");
    }

    #[test]
    fn rows_without_score_are_counted() {
        let mut rows = vec![("a", 0), ("b", 0), ("c", 0)];
        assert_eq!((ListCursor::cut(counted(4), &mut rows, 2), rows.len()), (counted(6), 2));
        let mut rows = vec![("a", 0), ("b", 3), ("c", 4)];
        assert_eq!((ListCursor::cut(None, &mut rows, 1), rows.len()), (after(0), 1));
        assert_eq!(ListCursor::next_row(after(0)), (1, 0));
        assert_eq!(ListCursor::next_row(counted(6)), (0, 6));
    }

    #[test]
    fn cursor_text_is_read_back() {
        for cursor in [after(0), after(SCORE_MAX), counted(100), counted(ROWS_MAX)] {
            let text = cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
            assert_eq!(text.parse().ok(), cursor, "{text}");
        }
        let numbers =
            ["-1", "+1", "01", "0.+1", "0.01", "281474976710656", "18446744073709551615", "99999999999999999999"];
        let rows = ["1.", ".1", "1.2", "1.2.3", "0.4294967296", "0.9223372036854775808", "0.18446744073709551615"];
        for foreign in ["", "ann"].iter().chain(&numbers).chain(&rows) {
            assert_eq!(foreign.parse::<ListCursor>(), Err(ForeignCursor), "{foreign}");
        }
    }
}
