//! Reads the claims of a gateway at its admin port: `GET /holdings`.

use std::net::SocketAddr;
use std::time::Duration;

use presence::model::{Nick, RoomName};
use presence::registry::{HeldSession, LeaseSummary};

use crate::admin::ClaimsReport;
use crate::ctl::CtlError;

/// Timeout of the answer of a gateway.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of an answer: several hundred thousand sessions.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Returns the claims of the gateway; `None` if the lease is of an earlier incarnation, which is left to the failure
/// detector. `address` overrides the address in the lease.
pub(super) async fn fetch(gateway: &LeaseSummary, address: Option<&str>) -> Result<Option<Vec<HeldSession>>, CtlError> {
    let LeaseSummary { node, .. } = gateway;
    let advertised = || gateway.admin.parse().ok().filter(|address: &SocketAddr| !address.ip().is_unspecified());
    let address = address.map(str::to_owned).or_else(|| advertised().map(|address| address.to_string()));
    let address = address.ok_or_else(|| {
        CtlError::Silent(format!(
            "{node} advertises no address of its admin port: set it with --gateway {node}=HOST:PORT"
        ))
    })?;
    let url = format!("http://{address}/holdings");
    let answer = tokio::task::spawn_blocking(move || get(&url)).await;
    let silent = |reason: String| CtlError::Silent(format!("{node} at {address} does not report its claims: {reason}"));
    let report = match answer {
        Ok(Ok(text)) => {
            serde_json::from_str::<ClaimsReport>(&text).map_err(|_| silent("not an answer of ours".to_owned()))?
        }
        Ok(Err(error)) => return Err(silent(error.to_string())),
        Err(error) => return Err(silent(error.to_string())),
    };
    if report.node != *node {
        return Err(silent(format!("that is {}; set the address with --gateway {node}=HOST:PORT", report.node)));
    }
    if report.incarnation.as_deref() != Some(gateway.incarnation.as_str()) {
        return Ok(None);
    }
    let sessions = report.sessions.iter().map(|session| {
        let rooms = session.rooms.iter().map(|room| Some(RoomName::parse(room).ok()?.key().clone()));
        let (nick, owner) = (Nick::parse(&session.nick).ok()?.key().clone(), session.claim.clone());
        Some(HeldSession { nick, owner, rooms: rooms.collect::<Option<_>>()? })
    });
    sessions.collect::<Option<_>>().map(Some).ok_or_else(|| silent("it contains an invalid name".to_owned()))
}

fn get(url: &str) -> Result<String, ureq::Error> {
    let request = ureq::get(url).config().timeout_global(Some(ANSWER_TIMEOUT)).build();
    request.call()?.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()
}
