//! The rows of the matrix, one file for each kind of input.

mod frames;
mod http;
mod lines;
mod names;
mod requests;
mod tokens;

pub(super) use self::tokens::TokenIssuer;
use super::row::BadInput;

/// Returns all rows.
pub(super) fn all(issuer: &TokenIssuer, resume: &str) -> Vec<BadInput> {
    let requests = [requests::rows(), requests::cursor_rows(), requests::resume_rows(resume)].concat();
    [frames::rows(), requests, names::rows(), lines::rows(), http::rows(), tokens::rows(issuer)].concat()
}
