//! `ctl kick` of a nickname: ends its session, by an order to its gateway.

use presence::model::Nick;
use serde_json::json;

use super::{CommandAccess, CtlAnswer, CtlError};

pub(super) async fn kick(cluster: &CommandAccess, nick: &str) -> Result<CtlAnswer, CtlError> {
    let nick = Nick::parse(nick).map_err(|reason| CtlError::Usage(format!("{nick}: {reason}")))?;
    if !cluster.registry.kick(nick.key()).await? {
        return Err(CtlError::Refused(format!("nobody is online as {}", nick.as_str())));
    }
    Ok(CtlAnswer::new(format!("kicked {}\n", nick.as_str()), &json!({ "kicked": nick.as_str() })))
}
