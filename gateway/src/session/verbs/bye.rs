//! `bye`: the client ends its session. The end of the connection releases nickname and rooms.

use presence::model::codes::CloseCode;

use super::Decision;

pub(super) fn decide() -> Decision {
    Decision::Close(CloseCode::Normal)
}
