//! `ctl kick`: ends the session of a user, by the order that gateways take for it.

use presence::model::Nick;
use serde_json::json;

use super::{Answer, Cluster, Failure};

pub(super) async fn kick(cluster: &Cluster, nick: &str) -> Result<Answer, Failure> {
    let nick = Nick::parse(nick).map_err(|reason| Failure::Usage(format!("{nick}: {reason}")))?;
    if !cluster.registry.kick(nick.key()).await? {
        return Err(Failure::Refused(format!("nobody is online as {}", nick.as_str())));
    }
    Ok(Answer::new(format!("kicked {}\n", nick.as_str()), &json!({ "kicked": nick.as_str() })))
}
