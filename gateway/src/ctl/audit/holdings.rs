//! Asks gateways what they hold, at their operators' doors: `GET /holdings`.

use std::net::SocketAddr;
use std::time::Duration;

use presence::model::{Nick, RoomName};
use presence::registry::{HeldSession, LeaseSummary};

use crate::admin::ClaimsReport;
use crate::ctl::Failure;

/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer: some hundreds of thousands of sessions.
const LARGEST: u64 = 256 << 20;

/// What the gateway holds; `None` when the lease is of an earlier life, whose end is for the failure detector to find.
/// `address` goes over what the gateway told itself.
pub(super) async fn ask(gateway: &LeaseSummary, address: Option<&str>) -> Result<Option<Vec<HeldSession>>, Failure> {
    let LeaseSummary { node, .. } = gateway;
    let told = || gateway.admin.parse().ok().filter(|address: &SocketAddr| !address.ip().is_unspecified());
    let address = address.map(str::to_owned).or_else(|| told().map(|address| address.to_string()));
    let address = address.ok_or_else(|| {
        Failure::Silent(format!("{node} tells no address of its admin port: give it with --gateway {node}=HOST:PORT"))
    })?;
    let url = format!("http://{address}/holdings");
    let answer = tokio::task::spawn_blocking(move || get(&url)).await;
    let silent = |reason: String| Failure::Silent(format!("{node} at {address} does not tell what it holds: {reason}"));
    let account = match answer {
        Ok(Ok(text)) => {
            serde_json::from_str::<ClaimsReport>(&text).map_err(|_| silent("not an answer of ours".to_owned()))?
        }
        Ok(Err(error)) => return Err(silent(error.to_string())),
        Err(error) => return Err(silent(error.to_string())),
    };
    if account.node != *node {
        return Err(silent(format!("that is {}; give its address with --gateway {node}=HOST:PORT", account.node)));
    }
    if account.incarnation.as_deref() != Some(gateway.incarnation.as_str()) {
        return Ok(None);
    }
    let sessions = account.sessions.iter().map(|session| {
        let rooms = session.rooms.iter().map(|room| Some(RoomName::parse(room).ok()?.key().clone()));
        let (nick, owner) = (Nick::parse(&session.nick).ok()?.key().clone(), session.claim.clone());
        Some(HeldSession { nick, owner, rooms: rooms.collect::<Option<_>>()? })
    });
    sessions.collect::<Option<_>>().map(Some).ok_or_else(|| silent("a name that is none".to_owned()))
}

fn get(url: &str) -> Result<String, ureq::Error> {
    let request = ureq::get(url).config().timeout_global(Some(PATIENCE)).build();
    request.call()?.body_mut().with_config().limit(LARGEST).read_to_string()
}
