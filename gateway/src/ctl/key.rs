//! `gateway ctl key`: draws a key of the server API. It needs no cluster and stores nothing.

use presence::service::access::{ApiScope, NewKey};
use serde::Serialize;

use super::{CtlAnswer, CtlError};

#[derive(Serialize)]
struct DrawnKey {
    /// For the application.
    key: String,
    /// For `api.keys`.
    row: String,
}

pub(super) fn key(name: &str, scopes: &[String]) -> Result<CtlAnswer, CtlError> {
    let usage = |reason: &'static str| CtlError::Usage(reason.to_owned());
    let scopes: Vec<ApiScope> = scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>().map_err(usage)?;
    let NewKey { secret, known } = NewKey::draw(name, &scopes).map_err(usage)?;
    let drawn = DrawnKey { key: secret, row: known.to_string() };
    let text = format!(
        "key, for the application (not shown again):\n  {}\nrow of api.keys, for presence or a gateway without Redis:\n  {}\n",
        drawn.key, drawn.row
    );
    Ok(CtlAnswer::new(text, &drawn))
}
