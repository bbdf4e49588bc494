//! stub
use super::{Draft, PublishError, Published, Range, Stretch};
use presence::model::{Incarnation, NickKey, RoomKey, RoomName};
use presence::registry::RegistryError;
/// stub
#[derive(Debug, Clone)]
pub struct RedisBackplane {}
#[allow(clippy::todo, missing_docs, clippy::unused_async)]
impl RedisBackplane {
    pub async fn listen_as(&self, _incarnation: &Incarnation) {
        todo!()
    }
    pub async fn subscribe(&self, _room: &RoomKey) -> Result<(), RegistryError> {
        todo!()
    }
    pub fn unsubscribe(&self, _room: &RoomKey) {
        todo!()
    }
    pub async fn publish(&self, _room: &RoomName, _draft: &Draft) -> Result<Published, PublishError> {
        todo!()
    }
    pub async fn direct(&self, _to: &NickKey, _draft: &Draft) -> Result<Published, PublishError> {
        todo!()
    }
    pub async fn history(&self, _room: &RoomKey, _range: Range, _limit: usize) -> Result<Stretch, RegistryError> {
        todo!()
    }
}
